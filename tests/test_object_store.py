"""Runs and checkpoints at s3:// and gs://, kept by local servers that speak those protocols."""

import gc
import io
import json
import os
import subprocess
import sys
import time

import fsspec
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jalign import store
from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.fingerprint import fingerprint
from jalign.checkpoint.resume import resume
from jalign.cli.export import export
from jalign.cli.rollouts import rollouts
from jalign.config.read import read_config
from jalign.eval.evaluate import evaluate
from jalign.log import RunLog
from jalign.rollout import record
from jalign.rollout.types import Rollout
from jalign.run import folder as runs
from jalign.train.preemption import ExitCode
from tests import stores
from tests._train import train
from tests.tiny_run import arguments

MARK = "commit_success.txt"


@pytest.fixture(scope="module", params=["s3", "gs"])
def bucket(request):
    with getattr(stores, request.param)() as address:
        yield address


@pytest.fixture
def place(bucket, request):
    return f"{bucket}/{request.node.originalname}"


def state_of(step):
    return {"w": jnp.asarray(np.random.default_rng(step).normal(size=(64, 32)), jnp.float32)}


def saved(place, *steps, **options):
    with Checkpointer(place, **options) as checkpointer:
        for step in steps:
            checkpointer.save(step, state_of(step), {"identity": {"seed": 0}})
    return checkpointer


def files(folder):
    fs, root = fsspec.url_to_fs(str(folder))
    return sorted(name.removeprefix(f"{root}/") for name in fs.find(root))


def data_file(place, step):
    fs, root = fsspec.url_to_fs(f"{place}/{step}/state")
    return f"{place}/{step}/state/" + max(fs.find(root), key=fs.size).removeprefix(f"{root}/")


# ---- checkpoints


def test_the_newest_steps_and_the_pinned_one_are_kept_and_come_back_bit_for_bit(place):
    with Checkpointer(place, keep=1) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, state_of(step), {"identity": {}}, pin=step == 1)
    again = Checkpointer(place, keep=1)
    assert again.steps() == [1, 3] and again.pinned == 1
    assert not any(name.startswith("2/") for name in files(store.as_path(place)))
    step, state, meta = again.restore(state_of(0))
    assert (step, meta["step"]) == (3, 3) and fingerprint(state) == fingerprint(state_of(3))
    again.pin(None)
    assert again.pinned is None and again.leftovers() == []


def test_a_save_that_was_killed_is_no_checkpoint_and_is_swept_by_the_next_one(place):
    saved(place, 1)
    half = store.as_path(place) / "2"
    for name in files(store.as_path(place) / "1"):
        if name != MARK:  # the last object of a save
            (half / name).write_bytes((store.as_path(place) / "1" / name).read_bytes())
    checkpointer = Checkpointer(place)
    assert checkpointer.steps() == [1] and checkpointer.leftovers() == []
    assert checkpointer.restore(state_of(0))[0] == 1
    saved(place, 3)
    assert not half.exists() and checkpointer.steps() == [1, 3]


def test_a_run_killed_in_its_first_save_begins_anew(place):
    (store.as_path(place) / "1" / "state" / "_METADATA").write_bytes(b"{")
    assert resume(Checkpointer(place), "auto", state_of(0), {}) is None


# Orbax starts no further coroutine once a read has failed, and drops those that it has made.
@pytest.mark.filterwarnings("ignore:coroutine 'Store._get_array_metadatas' was never awaited")
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_goes_on(place):
    saved(place, 1, 2)
    file = store.as_path(data_file(place, 2))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(bytes(content if place[:2] == "gs" else content[: len(content) // 2]))
    checkpointer = Checkpointer(place)
    before = files(store.as_path(place) / "2")
    step, state, _ = resume(checkpointer, "auto", state_of(0), {"seed": 0})
    assert step == 1 and fingerprint(state) == fingerprint(state_of(1))
    assert checkpointer.steps() == [1] and checkpointer.leftovers() == ["2.aside"]
    assert files(store.as_path(place) / "2.aside") == before
    saved(place, 2)
    assert checkpointer.restore(state_of(0))[0] == 2
    gc.collect()  # the warning belongs to this test, wherever the next collection would be


# ---- the record


def test_the_record_goes_on_where_the_last_checkpoint_put_it(place):
    folder = store.as_path(place)
    first = RunLog(folder, steps=9, start=0)
    for step in (1, 2, 3):
        first.write(step, {"loss": 1.0 / step})
        if step == 2:
            first.put()
    first._spool = None  # killed: nothing more is put
    first.close()
    second = RunLog(folder, steps=9, start=1)
    second.write(2, {"loss": 0.5})
    second.close()
    lines = (folder / "metrics.jsonl").read_bytes().decode().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert len(list(folder.glob("events.out*"))) == 2


def test_a_file_that_could_not_be_filled_does_not_appear(place):
    def fill(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write(store.as_path(place) / "file", fill)
    assert not (store.as_path(place) / "file").exists()


def test_rollouts_are_kept_and_shown(place, capsys):
    rollout = Rollout.from_lists([np.array([9])], [[[0, 1]] * 2], finished=[[True, False]])
    for number, scores in enumerate([[1.0, 1.0], [2.0, 2.0], [-np.inf, 3.0]]):
        arrays = {"scores": np.array([scores])}
        record.write(
            store.as_path(place) / record.FOLDER,
            number,
            0,
            ["ask"],
            [["a", "b"]],
            rollout,
            arrays,
        )
        rollouts([place], Console(width=200))
    first, second, third = (x for x in capsys.readouterr().out.splitlines() if "responses" in x)
    assert second == "2 responses, mean reward 2, mean length 2 tokens" != first
    assert third == "2 responses, mean reward 3, 1 without a reward, mean length 2 tokens"


# ---- what cannot work is said before anything is compiled


def test_a_bucket_that_is_missing_is_named(folder, bucket):
    out = bucket.replace(stores.BUCKET, "nowhere") + "/run"
    with pytest.raises(ValueError, match=rf"{out} cannot be written to .* The bucket must exist"):
        train(read_config([*arguments(folder), "--out", out]), None)


def test_missing_credentials_are_named(folder, monkeypatch):
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    nothing = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull}
    nothing |= {"AWS_EC2_METADATA_DISABLED": "true"}
    refused = pytest.raises(ValueError, match="NoCredentialsError: Unable to locate credentials")
    with stores.environment(nothing), refused:
        train(read_config([*arguments(folder), "--out", "s3://bucket/run"]), None)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("az://bucket/run", "kept in a folder, or in one of gs://, s3://"),
        ("s3://", "names no bucket: s3://BUCKET/RUN"),
        ("gs:///run", "names no bucket: gs://BUCKET/RUN"),
    ],
)
def test_a_place_that_is_none_is_refused(name, why):
    with pytest.raises(ValueError, match=why):
        store.as_path(name)


@pytest.mark.parametrize(("scheme", "library"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_library_that_is_missing_is_named_with_its_extra(scheme, library, monkeypatch):
    monkeypatch.setattr(store, "find_spec", lambda name: None if name == library else name)
    extra = {"gs": "gcs"}.get(scheme, scheme)
    with pytest.raises(ValueError, match=rf"needs {library}.* pip install 'jalign\[{extra}\]'"):
        store.as_path(f"{scheme}://bucket/run")


def test_what_is_written_to_disk_only_is_refused_elsewhere(folder):
    with pytest.raises(ValueError, match="what is exported must be on local disk, got s3://b/x"):
        export([str(folder / "run"), "s3://b/x"], Console())


# ---- whole runs


@pytest.fixture(scope="module")
def s3():
    with stores.s3() as address:
        yield address


def leaves(out, step):
    """dtype, shape and checksum of every leaf of a checkpoint."""
    (file,) = (store.as_path(out) / "checkpoints" / str(step) / "meta").glob("*.json")
    return json.loads(file.read_bytes())["leaves"]


def test_a_run_that_is_killed_goes_on_and_ends_bit_for_bit_like_one_on_disk(folder, s3, tmp_path):
    whole, out = str(folder / "whole"), f"{s3}/run"
    steps = {"algorithm": "sft", "steps": 5}
    assert train(read_config([*arguments(folder, **steps), "--out", whole]), None) == ExitCode.OK
    command = [*arguments(folder, **steps), "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "jalign", "train", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not (store.as_path(out) / "checkpoints" / "2" / MARK).exists():
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.1)
    process.kill()
    assert process.communicate() and process.returncode == -9
    assert max(Checkpointer(f"{out}/checkpoints").steps()) < 5
    assert train(read_config(command), None) == ExitCode.OK
    assert leaves(out, 5) == leaves(whole, 5)
    record = (store.as_path(out) / "metrics.jsonl").read_bytes().decode().splitlines()
    rows = [row for row in map(json.loads, record) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    held_out = [row for row in map(json.loads, record) if row["kind"] == "eval"]

    console = Console(file=io.StringIO())
    assert evaluate(out).metrics["loss"] == held_out[-1]["loss"]
    export([out, str(tmp_path / "exported")], console)
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    assert runs.options_of(out).out == out
