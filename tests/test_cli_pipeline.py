"""Pipelines: names, loops and options are checked before anything runs; stages that ended are not
run again, whatever happened in between.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from jalign.cli import pipeline
from jalign.config.read import ConfigError
from jalign.data import sources
from jalign.pipeline.process import Runner, locked
from jalign.pipeline.records import Records
from jalign.pipeline.stages import Stage, expand
from tests._cli import call
from tests._xla import QUICK
from tests.judge_server import prefers_longer, serve
from tests.tiny_run import write_model

SAMPLE = {"sample": {"model": "$model", "file": "f.jsonl", "responses": 2, "temperature": 1.0}}
LABEL = {"label": {"file": "$candidates", "judge": {"model": "$model"}}}
TRAIN = {
    "train": {
        "algorithm": {"name": "dpo", "beta": 0.2},
        "model": {"path": "$model"},
        "data": {"train": {"$labels": 1.0, "more.jsonl": 0.5}},
    }
}


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")


def loop(n, **stages):
    return {"iterations": n, "stages": stages}


def of(stages, **more):
    return {"out": "o", "values": {"model": "embedded"}, "stages": stages} | more


def write(folder, file):
    path = folder / "p.yaml"
    path.write_text(yaml.safe_dump(file, sort_keys=False))
    return path


def planned(stages, values=None, overrides=None, **more):
    return {
        s.name: s
        for s in expand(of(stages, **more), values or {}, overrides or {}, pipeline.COMMANDS)
    }


def test_a_stage_is_a_command_and_a_name_the_output_of_the_stage_before():
    found = planned({"candidates": SAMPLE, "labels": LABEL, "policy": TRAIN})
    assert shlex.join(found["candidates"].args) == (
        "sample embedded --file=f.jsonl --responses=2 --temperature=1.0 --out=o/candidates.jsonl"
    )
    assert found["labels"].args[1:] == [
        "--file=o/candidates.jsonl", "--judge.model=embedded", "--out=o/labels.jsonl",
    ]  # fmt: skip
    assert '--data.train={"o/labels.jsonl": 1.0, "more.jsonl": 0.5}' in found["policy"].args
    assert "--algorithm.beta=0.2" in found["policy"].args
    assert found["policy"].out == Path("o/policy")
    assert found["policy"].needs == ["labels"] and found["candidates"].needs == []


def test_a_stage_of_a_loop_goes_on_with_that_of_the_iteration_before():
    rounds = loop(2, run=TRAIN | {}, model={"export": {"run": "$run"}})
    rounds["stages"]["run"] = {"train": TRAIN["train"] | {"seed": "$iteration"}}
    found = planned({"labels": SAMPLE, "round": rounds, "last": {"export": {"run": "$model"}}})
    assert "--model.path=embedded" in found["round/1/run"].args
    assert "--model.path=o/round/1/model" in found["round/2/run"].args
    assert "--seed=2" in found["round/2/run"].args
    assert found["round/2/run"].needs == ["labels", "round/1/model"]
    assert found["last"].args == ["export", "o/round/2/model", "o/last"]


def test_the_command_line_changes_values_options_and_how_often_a_loop_runs():
    stages = {"candidates": SAMPLE, "round": loop(1, labels=LABEL)}
    overrides = {"round": {"iterations": "2"}, "labels": {"judge.model": "m", "limit": "3"}}
    found = planned(stages, {"model": "other", "out": "elsewhere"}, overrides)
    assert list(found) == ["candidates", "round/1/labels", "round/2/labels"]
    assert found["candidates"].args[1] == "other"
    for i in (1, 2):
        args = found[f"round/{i}/labels"].args
        assert "--judge.model=m" in args and "--limit=3" in args
        assert f"--out=elsewhere/round/{i}/labels.jsonl" in args


def test_a_value_keeps_its_type_and_a_dollar_can_be_written():
    stages = {"a": {"sample": {"model": "$model", "top_k": "$k", "file": "$$${model}.jsonl"}}}
    (found,) = expand(of(stages, values={"model": "m", "k": 1}), {"k": None}, {}, pipeline.COMMANDS)
    assert "--top_k=null" in found.args and "--file=$m.jsonl" in found.args


def test_a_list_of_models_is_several_words():
    found = planned({"m": {"merge": {"base": "b", "models": ["x", "$model"], "method": "linear"}}})
    assert found["m"].args == [
        "merge", "o/m", "--base=b", "--method=linear", "--models", "x", "embedded",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"stagse": {}}, "a pipeline has no key 'stagse'; did you mean 'stages'?"),
        (of([]), "stages must be a mapping"),
        (of({}), "a pipeline needs stages"),
        (of({"a": SAMPLE}, out=None), "a pipeline needs out"),
        (of({"a-b": SAMPLE}), "'a-b' cannot be the name of a stage"),
        (of({"out": SAMPLE}), "'out' cannot be the name of a stage"),
        (of({"a": SAMPLE | LABEL}), "a must be one command with its options"),
        (of({"a": {"lable": {}}}), "a: no stage is a command 'lable'; did you mean 'label'?"),
        (of({"candidate": SAMPLE, "labels": LABEL}), "$candidates is no value and no earlier"),
        (of({"labels": LABEL, "candidates": SAMPLE}), "$candidates is no value and no earlier"),
        (of({"a": {"sample": {"model": "m$"}}}), "stray $ in 'm$'"),
        (of({"a": {"sample": {"file": "f"}}}), "a: sample needs model"),
        (of({"a": {"sample": {"model": "m", "out": "x"}}}), "out follows from the pipeline's out"),
        (of({"a": {"sample": {"model": "m", "respnses": 2}}}), "no option 'respnses'; did you"),
        (of({"a": {"sample": {"model": "m", "responses": 2}}}), "need a --temperature above 0"),
        (of({"a": {"train": {"algorithm": {"name": "dpoo"}}}}), "no algorithm 'dpoo'; did you"),
        (of({"a": {"train": {"config": "no.yaml"}}}), "a: cannot read config no.yaml"),
        (of({"a": {"data": {"algorithm": {"name": "dpo"}}}}), "a: set to: a kind of data"),
        (of({"a": {"export": {"run": "r", "adapter": 3}}}), "a: "),
        (of({"l": loop(0, a=SAMPLE)}), "l.iterations must be an integer above 0, got 0"),
        (of({"l": loop(1, a=SAMPLE) | {"stage": {}}}), "the loop l has no key 'stage'"),
        (of({"l": loop(2, a={"sample": {"model": "$b"}}, b=SAMPLE)}), "l/1/a.model: $b is no"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_first(file, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, said = call(["pipeline", write(tmp_path, file)], capsys)
    assert code == 2 and message in said.err, said.err
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--modl m", "the pipeline has no value 'modl'; did you mean 'model'?"),
        ("--candidate.limit 3", "no stage 'candidate'; did you mean 'candidates'?"),
        ("--candidates.limt 3", "candidates: no option 'limt'; did you mean 'limit'?"),
        ("--redo candidate", "--redo: no stage 'candidate'; did you mean 'candidates'?"),
        ("--model", "options are --name value"),
    ],
)
def test_a_wrong_option_names_the_nearest_match(line, message, tmp_path, capsys):
    path = write(tmp_path, of({"candidates": SAMPLE}))
    code, said = call(["pipeline", path, *line.split()], capsys)
    assert code == 2 and message in said.err, said.err


def test_a_dry_run_prints_the_commands_and_runs_none(tmp_path, capsys):
    path = write(tmp_path, of({"candidates": SAMPLE, "labels": LABEL}))
    code, said = call(["pipeline", path, "--dry-run", "--out", tmp_path / "o"], capsys)
    assert code == 0 and not (tmp_path / "o").exists()
    first, second = said.out.splitlines()
    assert first.startswith("jalign sample embedded --file=f.jsonl")
    assert second == (
        f"jalign label --file={tmp_path}/o/candidates.jsonl --judge.model=embedded "
        f"--out={tmp_path}/o/labels.jsonl"
    )


class Pretend:
    """A runner whose stages write what they are called, or end with the code they are given."""

    ran: list = []  # noqa: RUF012
    codes: dict = {}  # noqa: RUF012
    stops_in = ()

    def __init__(self, lock):
        self.stop_requested = False

    def run(self, stage):
        self.ran.append(stage.name)
        self.stop_requested = stage.name in self.stops_in
        if code := self.codes.pop(stage.name, 0):
            return code
        stage.out.parent.mkdir(parents=True, exist_ok=True)
        stage.out.write_text(stage.name)
        return 0


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a pipeline of three stages without running them: (code, what was said, what ran)."""
    monkeypatch.setattr(pipeline, "Runner", Pretend)
    config = tmp_path / "train.yaml"
    config.write_text("algorithm: {name: dpo}\n")
    train = {"train": {"config": str(config), "data": {"train": "$labels"}}}
    beside = {"sample": {"model": "$model", "file": "beside.jsonl"}}
    stages = {"candidates": SAMPLE, "labels": LABEL, "beside": beside, "policy": train}
    path = write(tmp_path, of(stages, out=str(tmp_path / "o")))

    def run(*args, **codes):
        Pretend.ran, Pretend.codes = [], codes
        code, said = call(["pipeline", path, *args], capsys)
        return code, said, Pretend.ran

    run.config, run.out = config, tmp_path / "o"
    return run


def test_a_stage_that_ended_is_not_run_again(run):
    code, _, ran = run()
    assert code == 0 and ran == ["candidates", "labels", "beside", "policy"]
    code, said, ran = run()
    assert code == 0 and ran == [] and said.out.count("done before") == 4


def test_the_exit_code_of_a_stage_is_that_of_the_pipeline_which_then_goes_on_there(run):
    code, said, ran = run(labels=42)
    assert code == 42 and ran == ["candidates", "labels"]
    assert "labels ended with exit code 42" in said.out
    assert run(policy=4)[::2] == (4, ["labels", "beside", "policy"])
    assert run()[::2] == (0, ["policy"])


def test_a_pipeline_that_is_told_to_stop_begins_no_further_stage(run, monkeypatch):
    monkeypatch.setattr(Pretend, "stops_in", ("labels", "policy"))
    code, said, ran = run()
    assert code == 42 and ran == ["candidates", "labels"] and "stopped on request" in said.out
    assert run()[::2] == (0, ["beside", "policy"])  # nothing is left to be stopped


def test_a_stage_whose_output_is_gone_is_run_again(run):
    run()
    (run.out / "labels.jsonl").unlink()
    code, said, ran = run()
    assert code == 0 and ran == ["labels"] and "labels.jsonl is gone" in said.out


def test_another_definition_of_a_stage_that_ended_is_refused(run):
    run()
    code, said, ran = run("--labels.limit", "5")
    assert code == 2 and ran == []
    assert "stage labels ended with another definition (nothing then, --limit=5 now)" in said.err
    assert "--redo labels" in said.err


def test_redo_runs_a_stage_and_what_needs_it_again_and_leaves_the_others(run):
    run()
    (run.out / "labels.jsonl.part").write_text("")
    code, _, ran = run("--labels.limit", "5", "--redo", "labels")
    assert code == 0 and ran == ["labels", "policy"]
    assert not (run.out / "labels.jsonl.part").exists()
    assert run("--labels.limit", "5")[::2] == (0, [])


def test_a_stage_that_only_began_is_not_gone_on_with_by_another_definition(run):
    run(labels=3)
    code, said, _ = run("--labels.limit", "5")
    assert code == 2 and "stage labels began with another definition" in said.err
    assert run("--labels.limit", "5", "--redo", "labels")[0] == 0


def test_a_config_file_that_changed_is_another_definition_of_the_stage_that_names_it(run):
    run()
    run.config.write_text("algorithm: {name: ipo}\n")
    code, said, _ = run()
    assert code == 2 and "stage policy ended with another definition (the config file" in said.err


def test_redo_deletes_nothing_that_the_pipeline_did_not_make(run):
    run.out.mkdir()
    (run.out / "labels.jsonl").write_text("mine")
    run("--redo", "labels", candidates=3)
    assert (run.out / "labels.jsonl").read_text() == "mine"


def stage(args):
    return Stage("a", args, Path("o"), [], None)


def test_a_pipeline_that_is_told_to_stop_tells_its_stage_and_waits_for_its_code():
    code = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(42)); print(flush=True)"
    runner = Runner(1, (sys.executable, "-c", f"{code}; time.sleep(60)"))
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert runner.run(stage([])) == 42
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_stage_that_ends_by_the_signal_it_was_sent_was_preempted_and_by_another_was_killed():
    runner = Runner(1, (sys.executable, "-c", "import time; time.sleep(60)"))
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert runner.run(stage([])) == 42
    kill = (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert Runner(1, kill).run(stage([])) == 128 + signal.SIGKILL
    assert Runner(1, (sys.executable, "-c", "raise SystemExit(3)")).run(stage([])) == 3


def test_a_stage_that_outlives_its_pipeline_is_waited_for(tmp_path):
    with locked(tmp_path, print) as lock:
        orphan = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(1)"], pass_fds=(lock,)
        )
    said = []
    with locked(tmp_path, said.append):
        assert orphan.poll() is not None or orphan.wait(5) == 0
    assert len(said) == 1 and "still works in" in said[0]
    orphan.wait()


def start(path):
    return subprocess.Popen(
        [sys.executable, "-m", "jalign", "pipeline", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"XLA_FLAGS": QUICK},  # one device compiles faster
        start_new_session=True,  # so that all of it can be killed at once
    )


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_pipeline_goes_on_in_its_labels_asks_nothing_twice_and_trains(tmp_path, capsys):
    """SIGKILL of everything; then a lot of labels that was kept is not paid again."""
    pytest.importorskip("openai")
    write_model(tmp_path / "model")
    rows = [{"prompt": f"p{i}", "responses": ["a" * (i % 5 + 3), "bb"]} for i in range(16)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, size = tmp_path / "o", 2
    with serve(prefers_longer, takes_s=0.2) as (url, asked):
        label = {
            "file": str(tmp_path / "rows.jsonl"),
            "judge": {"server": url, "model": "m", "concurrency": 2},
            "batch_size": size,
        }
        train = {
            "algorithm": {"name": "bradley_terry_soft"},
            "model": {"path": str(tmp_path / "model")},
            "data": {"train": "$labels", "holdout": 0},
            "batch_size": 8,
            "steps": 2,
        }
        file = {"out": str(out), "stages": {"labels": {"label": label}, "reward": {"train": train}}}
        path, part = write(tmp_path, file), out / "labels.jsonl.part"
        process = start(path)
        wait_for(lambda: part.exists() and part.read_bytes().count(b"\n") >= 4, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (out / "labels.jsonl").exists()
        process = start(path)
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0 and "resuming after" in said, said
    assert len(sources.read(out / "labels.jsonl")) == 16
    assert len(set(asked)) == 32 and len(asked) <= 32 + 2 * size  # at most one lot was lost
    assert (out / "reward" / "checkpoints" / "2").is_dir()
    code, said = call(["pipeline", path], capsys)
    assert code == 0 and said.out.count("done before") == 2


def test_the_expansion_refuses_what_is_no_mapping():
    with pytest.raises(ConfigError, match="a must be a mapping, got 3"):
        expand(of({"a": 3}), {}, {}, pipeline.COMMANDS)


def test_a_file_that_was_written_after_the_pipeline_was_killed_counts(tmp_path):
    """The process of a stage outlives that of the pipeline, and nobody notes that it ended."""
    made = Stage("a", ["label"], tmp_path / "a.jsonl", [], None)
    records = Records(tmp_path, [made])
    assert not records.ended_unseen(made)
    records.begin(made)
    assert not records.ended_unseen(made)
    made.out.write_text("rows")
    assert records.ended_unseen(made)
    records.begin(made)  # what is there when a stage begins is not its own
    assert not records.ended_unseen(made)


def test_another_algorithm_for_a_stage_leaves_the_numbers_of_its_own_behind(tmp_path, capsys):
    candidates = {"candidates": SAMPLE, "labels": LABEL, "model": TRAIN}
    stages = planned(candidates, overrides={"model": {"algorithm.name": "simpo"}})
    assert "--algorithm.name=simpo" in stages["model"].args
    assert not any("beta" in arg for arg in stages["model"].args)
    assert "model: algorithm: simpo instead of dpo, whose beta 0.2" in capsys.readouterr().err
    same = planned(candidates, overrides={"model": {"algorithm.name": "dpo"}})
    assert "--algorithm.beta=0.2" in same["model"].args
    config = tmp_path / "c.yaml"
    config.write_text("algorithm: {name: dpo}\n")
    of_a_file = {"model": {"train": {"config": str(config), "algorithm": {"beta": 0.3}}}}
    stages = planned(of_a_file, overrides={"model": {"algorithm.name": "simpo"}})
    assert not any("beta" in arg for arg in stages["model"].args)
