"""Whole runs that end before their last step, and their best checkpoint. 8 devices (2 x 2 x 2)."""

import json
import os
import signal

import pytest
from rich.console import Console

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.resume import ResumeError
from jalign.cli.export import export
from jalign.cli.sample import sample
from jalign.eval.evaluate import evaluate
from jalign.run import folder as runs
from jalign.train.preemption import ExitCode
from jalign.train.source import Offline
from tests._runs import ONLINE, leaves, rows, run
from tests.tiny_run import arguments, write_model, write_pairs

# After a few steps every held-out pair is told apart, and the accuracy cannot rise any more.
PATIENT = {
    "eval_every": 1,
    "steps": 30,
    "checkpoint.keep": 1,
    "checkpoint.every": 4,
    "log_every": 7,
    "stop.metric": "auto",
    "stop.patience": 3,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stop")
    write_model(folder / "model")
    write_pairs(folder / "pairs.jsonl.gz")
    assert run(folder, "whole", **PATIENT) == ExitCode.OK
    return folder


def checkpoints(folder, out):
    return Checkpointer(folder / out / "checkpoints")


def accuracies(folder, out):
    return {row["step"]: row["rewards/accuracies"] for row in rows(folder, out, "eval")}


def test_a_run_without_gains_ends_with_its_last_step_saved_and_logged_and_its_best_kept(folder):
    seen = accuracies(folder, "whole")
    best, last = max(seen, key=lambda step: (seen[step], -step)), max(seen)
    assert best > 0 and last == best + 3 < 30
    assert checkpoints(folder, "whole").pinned == best
    assert checkpoints(folder, "whole").steps() == [best, last]  # keep is 1
    assert rows(folder, "whole")[-1]["step"] == last  # though log_every does not divide it
    (stop,) = rows(folder, "whole", "stop")
    assert stop["step"] == last
    assert f"rewards/accuracies has not improved on {seen[best]:.4g} of step {best}" in str(stop)


def test_a_run_that_has_ended_takes_no_step_when_it_is_started_again(folder, capsys):
    from jalign.config.read import read_config
    from tests._train import train

    before = checkpoints(folder, "whole").steps()
    config = read_config(arguments(folder, "whole", **PATIENT))
    assert train(config, Console(width=400)) == ExitCode.OK
    said = capsys.readouterr().out
    assert "has ended already, no step is taken: rewards/accuracies has not improved" in said
    assert f"ended after step {before[-1]} of 30" in said and "Relax that rule to continue" in said
    assert f"checkpoints/{before[0]} (--step best)" in said
    assert checkpoints(folder, "whole").steps() == before
    assert len(rows(folder, "whole", "stop")) == 1


class Killed(Exception):
    pass


@pytest.fixture
def at_step(monkeypatch):
    """Do something when the data of a step are asked for."""

    def install(step, act):
        ask = Offline.__call__

        def asked(self, state, frozen):
            if self.step + 1 == step:
                act()
            return ask(self, state, frozen)

        monkeypatch.setattr(Offline, "__call__", asked)
        return lambda: monkeypatch.setattr(Offline, "__call__", ask)

    return install


def same_end(folder, out):
    assert leaves(folder, out, max(accuracies(folder, out))) == leaves(
        folder, "whole", max(accuracies(folder, "whole"))
    )
    assert accuracies(folder, out) == accuracies(folder, "whole")
    for kind in ("eval", "train", "stop"):
        one, other = (
            [{name: row.get(name) for name in ("step", "loss", "rows")} for row in found]
            for found in (rows(folder, out, kind), rows(folder, "whole", kind))
        )
        assert one == other, kind
    assert checkpoints(folder, out).pinned == checkpoints(folder, "whole").pinned
    assert checkpoints(folder, out).steps() == checkpoints(folder, "whole").steps()


def test_a_run_that_was_killed_ends_where_the_whole_one_does(folder, at_step):
    def kill():
        raise Killed

    best = checkpoints(folder, "whole").pinned
    undo = at_step(best + 2, kill)  # evaluations without a gain stand between it and the best
    with pytest.raises(Killed):
        run(folder, "killed", **PATIENT)
    undo()
    assert run(folder, "killed", **PATIENT) == ExitCode.OK
    same_end(folder, "killed")


def test_an_evaluation_that_a_stop_cut_short_is_made_up_for(folder, at_step):
    best = checkpoints(folder, "whole").pinned
    undo = at_step(best, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(folder, "told", **PATIENT) == ExitCode.PREEMPTED
    undo()
    assert max(accuracies(folder, "told"), default=0) == best - 1
    assert run(folder, "told", **PATIENT) == ExitCode.OK
    same_end(folder, "told")


def test_a_pin_that_a_kill_came_before_is_set_by_the_next_life(folder):
    best = checkpoints(folder, "whole").pinned
    checkpoints(folder, "whole").pin(None)
    run(folder, "whole", **PATIENT)
    assert checkpoints(folder, "whole").pinned == best


def test_the_best_checkpoint_is_evaluated_sampled_from_and_exported(folder, tmp_path, capsys):
    out = str(folder / "whole")
    best = checkpoints(folder, "whole").pinned
    quiet = Console(quiet=True)
    found = evaluate(out, step="best").metrics
    assert found["rewards/accuracies"] == pytest.approx(accuracies(folder, "whole")[best])
    assert evaluate(out, step=str(best)).metrics == found
    assert evaluate(out).metrics["loss"] != found["loss"]
    export([out, str(tmp_path / "hf"), "--step", "best"], Console(width=400))
    assert f"step {best} of" in capsys.readouterr().out
    sample([out, "hello", "--step", "best", "--max_new_tokens", "2"], quiet)
    with pytest.raises(ValueError, match=r"or best, got 'bset'; did you mean 'best'"):
        sample([out, "hello", "--step", "bset"], quiet)
    with pytest.raises(ValueError, match=r"names a checkpoint of a run; .* is not a run"):
        sample([str(folder / "model"), "hello", "--step", "best"], quiet)


def test_a_relaxed_rule_lets_the_run_go_on(folder):
    last = max(accuracies(folder, "whole"))
    run(folder, "relaxed", **PATIENT)
    assert run(folder, "relaxed", **PATIENT | {"stop.patience": 5}) == ExitCode.OK
    assert max(accuracies(folder, "relaxed")) == last + 2


def test_rules_may_come_later_unless_the_start_was_not_kept(folder, monkeypatch):
    run(folder, "plain", steps=2)
    assert run(folder, "plain", **PATIENT | {"steps": 3}) == ExitCode.OK
    save = Checkpointer.save

    def without(self, step, state, meta, **options):
        save(self, step, state, {n: x for n, x in meta.items() if n != "evaluations"}, **options)

    monkeypatch.setattr(Checkpointer, "save", without)
    run(folder, "old", steps=1)
    with pytest.raises(ResumeError, match="before the first step, and the checkpoint of step 1"):
        run(folder, "old", **PATIENT)


def test_a_misspelt_metric_is_refused_before_the_first_step(folder):
    wrong = PATIENT | {"stop.metric": "rewards/margin", "stop.mode": "max"}
    with pytest.raises(ValueError, match=r"stop\.metric reads rewards/margin, .*'rewards/margins'"):
        run(folder, "misspelt", **wrong)
    assert not rows(folder, "misspelt") and not checkpoints(folder, "misspelt").steps()


def test_a_budget_of_divergence_ends_an_online_run_and_more_of_it_lets_it_go_on(folder):
    rules = {"eval_every": 1, "stop.kl_budget": 0.5, "stop.metric": "reward", "steps": 12}
    given = ONLINE | {"optim.learning_rate": 3e-2, "checkpoint.every": 0} | rules
    assert run(folder, "budget", "grpo", **given) == ExitCode.OK
    seen = rows(folder, "budget", "eval")
    last = seen[-1]["step"]
    assert seen[0]["objective/kl"] == pytest.approx(0, abs=1e-5)
    assert all(row["objective/kl"] <= 0.5 for row in seen[:-1]) and seen[-1]["objective/kl"] > 0.5
    assert 0 < last < 12 and last in checkpoints(folder, "budget").steps()
    assert all(0 < row["completions/distinct_2"] <= 1 for row in seen)
    assert run(folder, "budget", "grpo", **given) == ExitCode.OK
    assert rows(folder, "budget", "eval") == seen
    best = max(seen, key=lambda row: (row["reward"], -row["step"]))["step"]
    assert checkpoints(folder, "budget").pinned == (best or None)  # of step 0 there is none
    more = given | {"stop.kl_budget": 1e6, "steps": last + 1}
    assert run(folder, "budget", "grpo", **more) == ExitCode.OK
    assert rows(folder, "budget", "eval")[-1]["step"] == last + 1


def test_where_nothing_was_better_than_the_start_there_is_no_best_checkpoint(folder):
    (folder / "constant.py").write_text(
        "def one(prompts, responses):\n    return [1.0] * len(prompts)\n"
    )
    rules = {"eval_every": 1, "stop.metric": "reward", "stop.patience": 2}
    given = {"reward.functions": json.dumps({f"{folder}/constant.py:one": 1.0})}
    assert run(folder, "constant", "grpo", **ONLINE | given | rules) == ExitCode.OK
    assert checkpoints(folder, "constant").steps()[-1] == 2
    with pytest.raises(ValueError, match=r"keeps no best checkpoint: .* never better than before"):
        runs.newest(str(folder / "constant"), "best")
