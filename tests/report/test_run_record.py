"""A run is read from its folder, whatever state that is in."""

import os
import socket

import pytest

from jalign.report import load, load_all
from jalign.report.listing import runs_in
from jalign.report.record import Series
from jalign.report.state import headline, state_of
from tests.report._records import event, record, rows, session, write

LOSSES = rows("train", [2, 4], loss=[0.7, 0.5])


def test_damaged_and_half_written_lines_are_named_and_the_others_read(tmp_path):
    folder = write(tmp_path / "a", LOSSES, [session(1000.0)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": "x"}\n{"step": 6, "kind": "train", "lo')
    run = load(str(folder))
    assert run.series("train", "loss") == Series([2, 4], [0.7, 0.5])
    assert run.damage == [
        "metrics.jsonl: 1 damaged lines are left out",
        "metrics.jsonl ends in the middle of a line, which is left out",
    ]


def test_a_config_that_is_damaged_or_missing_is_named(tmp_path):
    folder = write(tmp_path / "a", LOSSES)
    (folder / "config.json").write_text("{")
    assert "config.json is damaged" in load(str(folder)).damage[0]
    (folder / "config.json").unlink()
    assert "config.json is missing" in load(str(folder)).damage[0]
    with pytest.raises(ValueError, match="is no folder of a run"):
        load(str(tmp_path))


def test_a_damaged_rollout_is_named_and_the_others_read(tmp_path):
    from tests.report._rollouts import write_rollout

    folder = write(tmp_path / "a", LOSSES)
    write_rollout(folder, 0, ["one", "two"], [0.25, 0.75])
    (folder / "rollouts" / "rollout-000001-0.parquet").write_bytes(b"PAR1")
    run = load(str(folder))
    assert [row["response"] for row in run.responses] == ["one", "two"]
    assert run.rollouts == 2 and "rollout-000001-0.parquet is damaged" in run.damage[0]


def test_values_that_are_not_finite_are_no_points():
    run = record(rows("train", [1, 2, 3], loss=[0.5, None, 0.25]))
    assert run.series("train", "loss") == Series([1, 3], [0.5, 0.25])


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path):
    for name in ("x/run", "y/run", "z"):
        write(tmp_path / name, LOSSES)
    names = [run.name for run in load_all([f"{tmp_path}/{n}" for n in ("x/run", "y/run/", "z")])]
    assert names == [f"{tmp_path}/x/run", f"{tmp_path}/y/run", "z"]
    with pytest.raises(ValueError, match="is given twice"):
        load_all([f"{tmp_path}/z", f"{tmp_path}/z/"])


def test_the_state_of_a_run():
    def state(*events, now=1100.0, alive=False, metrics=LOSSES, **options):
        run = record(metrics, events=events, **options)
        return state_of(run, now, lambda pid: alive)

    here = socket.gethostname()
    mine = session(1000.0, host=here, pid=os.getpid())
    assert state(mine, alive=True).word == "running"
    assert state(mine).word == "stopped" and "after step 4" in state(mine).why
    assert state(session(1000.0)).word == "running"  # of another machine, heard a minute ago
    assert state(session(1000.0), now=9000.0).word == "stopped"
    done = event("end", 1050.0, 8, code=0, meaning="done")
    assert state(mine, done) == ("finished", "")
    reason = event("message", 1040.0, text="ended after step 4 of 8: no gain")
    assert state(mine, reason, done) == ("finished", "ended after step 4 of 8: no gain")
    assert state(mine, event("end", 1050.0, code=4)).word == "diverged"
    assert state(mine, event("end", 1050.0, code=42)).word == "stopped"
    failed = state(mine, event("end", 1050.0, error="ValueError: bad"))
    assert failed == ("failed", "ValueError: bad")
    assert state(mine, done, session(1060.0, 4, host=here), alive=True).word == "running"


def test_the_state_of_a_run_without_events_is_told_by_its_metrics():
    def word(metrics, now=9000.0, steps=4):
        return state_of(record(metrics, config={"steps": steps}), now).word

    assert word(LOSSES) == "finished"
    assert word(LOSSES, steps=9) == "stopped"
    assert word(LOSSES, now=1010.0, steps=9) == "running"
    assert word(rows("train", [2, 4], loss=[0.7, None])) == "diverged"


def test_the_list_of_runs_is_of_all_folders_the_newest_first(tmp_path):
    config = {"algorithm": {"name": "grpo"}, "model": {"path": "m"}, "steps": 4}
    held = rows("eval", [4], reward=[0.75])
    write(tmp_path / "old", rows("train", [1], loss=[0.5]))
    write(tmp_path / "more" / "new", [*LOSSES, *held], config=config)
    (tmp_path / "empty").mkdir()
    new, old = runs_in(str(tmp_path))
    assert (new.folder, new.algorithm, new.step, new.steps) == (
        f"{tmp_path}/more/new",
        "grpo",
        4,
        4,
    )
    assert new.metric == ("held-out reward", 0.75) and new.state.word == "finished"
    assert old.metric == ("loss", 0.5)
    with pytest.raises(ValueError, match="there is no folder"):
        runs_in(str(tmp_path / "none"))


def test_the_metric_that_says_most():
    held = rows("eval", [0, 4], loss=[0.7, 0.6], **{"rewards/accuracies": [0.5, 0.75]})
    name, series = headline(record(LOSSES, held))
    assert name == "held-out rewards/accuracies" and series.values == [0.5, 0.75]
    assert headline(record(LOSSES))[0] == "loss" and headline(record()) is None
