"""Metrics and texts of a run go to trackers; a resumed run continues the tracked one."""

import json
import warnings

import pytest

from jalign.config.read import read_config
from jalign.log import RunLog, lines
from jalign.log.trackers import EXTRAS, TrackedRun, tag, tracker
from jalign.report import html, load_all
from jalign.run.run import Run
from tests.tiny_run import arguments

CONFIG = {"algorithm": {"name": "dpo", "beta": 0.25}, "seed": 3, "stop": {"metric": None}}


class Own:
    """A user's tracker that remembers its calls."""

    def __init__(self):
        self.calls = []

    def start(self, run: TrackedRun):
        self.calls.append(("start", run.name, run.id, run.start, run.config["seed"]))

    def scalars(self, step, kind, metrics):
        self.calls.append((kind, step, metrics))

    def texts(self, step, name, rows):
        self.calls.append((name, step, rows))

    def flush(self):
        self.calls.append(("flush",))

    def close(self):
        self.calls.append(("close",))


def record(folder, *trackers, start=0):
    """A session of two lines and a table, with an id as `Session` writes it."""
    log = RunLog(folder, steps=9, start=start, config=CONFIG, trackers=trackers, project="tests")
    log.event("session", id=log.id, start=start)
    log.write(start + 1, {"loss": 0.5, "eta_s": 9.0, "grad_norm": float("nan")})
    log.write(start + 1, {"reward": 0.25}, "eval")
    log.text(start + 1, "generations", [{"prompt": "a", "continuation": f"text {start}"}])
    log.close()
    return log.id


def two_sessions(folder, name):
    """The same run, stopped and resumed; returns its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library, about itself
        first = record(folder, tracker(name))
        assert record(folder, tracker(name), start=1) == first
    return first


def test_a_run_tells_its_trackers_metrics_texts_and_how_it_was_resumed(tmp_path):
    own = Own()
    name = record(tmp_path / "mine", own)
    record(tmp_path / "mine", own, start=1)
    assert own.calls[:5] == [
        ("start", "mine", name, 0, 3),
        ("train", 1, {"loss": 0.5, "eta_s": 9.0, "grad_norm": None}),
        ("eval", 1, {"reward": 0.25}),
        ("generations", 1, [{"prompt": "a", "continuation": "text 0"}]),
        ("close",),
    ]
    assert own.calls[5] == ("start", "mine", name, 1, 3) and len(name) == 16
    assert own.calls[8][2] == [{"prompt": "a", "before": "text 0", "after": "text 1"}]


def test_a_run_that_starts_afresh_in_the_same_folder_is_another_tracked_run(tmp_path):
    assert record(tmp_path, Own()) != record(tmp_path, Own())


def test_a_tracker_that_fails_is_reported_once_and_the_run_goes_on(tmp_path, caplog):
    class Offline(Own):
        def scalars(self, step, kind, metrics):
            raise ConnectionError("no route")

    offline, own = Offline(), Own()
    record(tmp_path, offline, own)
    assert caplog.text.count("Offline failed (ConnectionError: no route)") == 1
    assert [call[0] for call in offline.calls] == ["start"]
    assert [call[0] for call in own.calls] == ["start", "train", "eval", "generations", "close"]
    assert len(lines.read(tmp_path)) == 3


def test_a_tracker_that_cannot_start_ends_the_run_before_its_first_step(tmp_path):
    class Refused(Own):
        def start(self, run):
            raise PermissionError("log in first")

    with pytest.raises(PermissionError, match="log in first"):
        RunLog(tmp_path, steps=1, start=0, trackers=[Refused()])


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(EXTRAS, "wandb", "no_such_module")
    with pytest.raises(ValueError, match=r"no_such_module, .* pip install 'jalign\[wandb\]'"):
        tracker("wandb")


def test_an_unknown_tracker_is_refused_with_the_known_ones(folder):
    with pytest.raises(ValueError, match=r"tensorboard.*wandb"):
        read_config(arguments(folder, **{"log.trackers": "[tensorbord]"}))


def test_what_is_learned_is_in_the_groups_that_open_first():
    assert tag("train", "rewards/margins") == "train/rewards/margins"
    assert tag("train", "grad_norm") == "training/grad_norm"
    assert tag("train", "eta_s") == "training_progress/eta_s"
    assert tag("eval", "logps/chosen") == "validation/logps/chosen"
    assert tag("samples", "samples/sentiment/mean") == "samples/sentiment/mean"


def test_wandb_keeps_one_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    run = two_sessions(tmp_path / "mine", "wandb")
    files = sorted((tmp_path / "mine" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [file.stem for file in files] == [f"run-{run}"] * 2
    data = b"".join(file.read_bytes() for file in files)
    for text in (b"train/loss", b"eval/reward", b"training_progress/eta_s", b"tests", b"mine"):
        assert text in data
    assert b"training/grad_norm" not in data  # it was not finite


def test_mlflow_keeps_one_run_in_its_store(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    run = two_sessions(tmp_path / "mine", "mlflow")
    client = mlflow.MlflowClient()
    (experiment,) = [x for x in client.search_experiments() if x.name == "tests"]
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.run_name == "mine" and tracked.info.status == "FINISHED"
    assert tracked.data.tags["jalign.id"] == run
    assert tracked.data.params == {"algorithm.name": "dpo", "algorithm.beta": "0.25", "seed": "3"}
    history = client.get_metric_history(tracked.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.5)]
    (table,) = (tmp_path / "store").glob("**/generations/step-000002.json")
    assert json.loads(table.read_text())["before"] == ["text 0"]


def test_trackio_keeps_one_run_in_its_database(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run = two_sessions(tmp_path / "mine", "trackio")
    assert SQLiteStorage.get_runs("tests") == [f"mine-{run[:6]}"]
    logs = SQLiteStorage.get_logs("tests", f"mine-{run[:6]}")
    losses = [(row["step"], row["train/loss"]) for row in logs if "train/loss" in row]
    assert losses == [(1, 0.5), (2, 0.5)]
    assert any("generations" in row for row in logs)


def test_from_python_ones_own_tracker_and_a_profile_are_arguments(folder):
    own = Own()
    mesh = {"mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 1}
    run = Run(read_config(arguments(folder, "run", steps=2, **mesh)))
    assert run.fit(trackers=[own], profile="2", console=None) == 0
    kinds = [call[0] for call in own.calls]
    assert kinds.count("train") == kinds.count("eval") == 2
    assert kinds[0] == "start" and kinds[-1] == "close"
    out = folder / "run"
    assert not list(out.glob("events.out*"))  # TensorBoard was not asked for
    assert list((out / "profile").rglob("*.xplane.pb"))
    events = lines.read(out, lines.EVENTS)
    (first,) = [row for row in events if row["kind"] == "session"]
    assert (first["start"], first["steps"], first["id"]) == (0, 2, own.calls[0][2])
    assert first["resident_bytes"]["optimizer"] > first["resident_bytes"]["trained parameters"] > 0
    phases = {row["name"] for row in events if row["kind"] == "phase"}
    assert phases == {"evaluating", "compiling the training step", "saving", "waiting for data"}
    (memory,) = [row["bytes"] for row in events if row["kind"] == "memory"]
    assert memory["arguments"] > 0 and memory["temporary"] > 0
    (end,) = [row for row in events if row["kind"] == "end"]
    assert (end["code"], end["taken"]) == (0, 2)
    report = html(load_all([str(out)]))
    assert "finished" in report and "compiling" in report and 'id="memory"' in report
