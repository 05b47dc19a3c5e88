import json
import logging
import random
import shutil
import signal
import time
from pathlib import Path

import _subprocesses
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from _damage import abandoned_reads, damages, flip_a_bit  # noqa: F401
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jalign.checkpoint import checkpointer as checkpoint
from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.errors import CheckpointError
from jalign.checkpoint.fingerprint import fingerprint
from jalign.core import TrainState

P = PartitionSpec


def state_of(step):
    """Every kind of leaf there is; incompressible, so that most bytes on disk are data."""
    noise = np.random.default_rng(step).normal(size=(64, 32)).astype(np.float32)
    return {
        "w": jnp.asarray(noise),
        "half": jnp.asarray(noise[:3, :5], jnp.bfloat16),
        "mask": jnp.asarray(noise[0] > 0),
        "key": jax.random.key(step),
        "n": jnp.int32(step),
        "empty": jnp.zeros((0, 3)),
        "none": None,
        "nothing": {},
    }


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and fingerprint(a) == fingerprint(b)


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def saved(directory, *steps, **options):
    with Checkpointer(directory, **options) as checkpointer:
        for step in steps:
            checkpointer.save(step, state_of(step), {"seen": 8 * step})
    return checkpointer


def data_file(checkpointer, step):
    files = [p for p in Path(checkpointer.directory, str(step), "state").rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


# ---- what is saved comes back


def test_every_kind_of_leaf_comes_back_bit_for_bit_with_its_meta(tmp_path):
    checkpointer = saved(tmp_path / "run", 7)
    step, state, meta = checkpointer.restore(abstract(state_of(0)))
    assert step == 7
    assert same(state, state_of(7))
    assert state["empty"].shape == (0, 3)
    assert (meta["seen"], meta["step"]) == (56, 7)
    assert meta["leaves"]["half"] == ["bfloat16", [3, 5], fingerprint(state)["half"]]


def test_a_train_state_with_nnx_parameters_and_a_chain_of_optimizers_comes_back(tmp_path):
    params = nnx.state(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lambda step: 1e-3))

    @jax.jit
    def made(key):
        moved = jax.tree.map(lambda x: x + jax.random.normal(key, x.shape), params)
        return TrainState(
            jnp.int32(3), moved, optimizer.init(moved), {}, key, jnp.int32(0), jnp.int32(1)
        )

    state = made(jax.random.key(1))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, state, {})
    _, found, meta = checkpointer.restore(jax.eval_shape(made, jax.random.key(0)))
    assert isinstance(found, TrainState) and isinstance(found.params, nnx.State)
    assert same(found, state)
    assert meta["leaves"]["params.kernel"][:2] == ["float32", [4, 3]]


def test_a_part_of_a_state_is_read_without_the_rest(tmp_path):
    checkpointer = saved(tmp_path, 3)
    part = {name: state_of(3)[name] for name in ("half", "n")}
    _, read, _ = checkpointer.restore(abstract(part), partial=True)
    assert same(read, part)
    with pytest.raises(ValueError, match="is only in the checkpoint"):
        checkpointer.restore(abstract(part))
    with pytest.raises(ValueError, match="other is not in the checkpoint"):
        checkpointer.restore(abstract(part | {"other": jnp.zeros(2)}), partial=True)


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_orbax_alone_reads_a_checkpoint_in_the_ways_that_are_documented(tmp_path):
    saved(tmp_path, 3)
    step, manager = tmp_path / "3", ocp.CheckpointManager(tmp_path)
    kept = ocp.args.Composite(state=ocp.args.StandardRestore())
    for read in (
        ocp.v1.load(step),
        ocp.v1.load_checkpointables(step)["state"],
        ocp.StandardCheckpointer().restore(step / "state"),
        ocp.PyTreeCheckpointer().restore(step / "state"),
        manager.restore(3, args=kept)["state"],
    ):
        np.testing.assert_array_equal(read["w"], state_of(3)["w"])
    manager.close()


def test_another_mesh_reads_what_one_mesh_wrote(tmp_path):
    devices = np.array(jax.devices())
    wide, tall = (
        Mesh(devices.reshape(2, 4), ("a", "b")),
        Mesh(devices[:4].reshape(4, 1), ("a", "b")),
    )
    w = np.arange(64.0, dtype=np.float32).reshape(8, 8)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": jax.device_put(w, NamedSharding(wide, P("a", "b")))}, {})
    for sharding in (
        NamedSharding(tall, P("b", "a")),
        NamedSharding(wide, P(None, ("b", "a"))),
        None,
    ):
        target = jax.ShapeDtypeStruct(w.shape, w.dtype, sharding=sharding)
        _, state, _ = checkpointer.restore({"w": target})
        np.testing.assert_array_equal(state["w"], w)
        assert sharding is None or state["w"].sharding == sharding


def test_a_scalar_on_one_device_is_restored_beside_arrays_on_a_mesh(tmp_path):
    mesh = Mesh(np.array(jax.devices()), ("a",))
    state = {"w": jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P("a"))), "n": jnp.int32(2)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {})
    _, found, _ = checkpointer.restore(abstract(state))
    assert jax.jit(lambda s: s["w"] * s["n"])(found).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]


def test_arrays_that_are_donated_right_after_save_are_saved_as_they_were(tmp_path):
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros((512, 512))
    with Checkpointer(tmp_path) as checkpointer:
        for i in range(3):
            checkpointer.save(i, {"x": x}, {})
            for _ in range(3):
                x = step(x)
        checkpointer.wait()
        _, state, _ = checkpointer.restore({"x": jax.ShapeDtypeStruct((512, 512), jnp.float32)})
    assert np.unique(state["x"]).tolist() == [6.0]


def test_what_cannot_be_saved_is_named(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    with pytest.raises(TypeError, match=r"only jax arrays are saved; n\.k is int"):
        checkpointer.save(1, {"n": {"k": 3}}, {})
    with pytest.raises(TypeError, match="JSON"):
        checkpointer.save(1, {"n": jnp.int32(3)}, {"path": object()})
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        Checkpointer(tmp_path, keep=0)


# ---- what does not fit is refused, and is not taken for damage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"w": jnp.zeros((64, 33))},
            r"w is float32\[64, 32\] in the checkpoint and float32\[64, 33\] here",
        ),
        (
            {"w": jnp.zeros((64, 32), jnp.bfloat16)},
            r"w is float32\[64, 32\] .* and bfloat16\[64, 32\] here",
        ),
        ({"more": jnp.zeros(2)}, "more is not in the checkpoint"),
        ({"w": None}, "w is only in the checkpoint"),
        ({"key": jnp.zeros(2, jnp.uint32)}, r"key is key<fry>\[\] .* and uint32\[2\] here"),
    ],
)
def test_a_state_of_other_leaves_shapes_or_dtypes_is_refused(tmp_path, change, message):
    checkpointer = saved(tmp_path, 1, 2)
    with pytest.raises(ValueError, match=f"step 2 does not fit: {message}"):
        checkpointer.restore(state_of(0) | change)


def test_shardings_without_devices_are_refused(tmp_path):
    nowhere = NamedSharding(AbstractMesh((2,), ("a",)), P("a"))
    target = state_of(0) | {"w": jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=nowhere)}
    with pytest.raises(ValueError, match="AbstractMesh"):
        saved(tmp_path, 1).restore(target)


def test_a_step_that_is_there_already_is_left_alone_or_refused(tmp_path):
    checkpointer = saved(tmp_path, 1)
    checkpointer.save(1, state_of(1), {})
    checkpointer.wait()
    with pytest.raises(ValueError, match="step 1 with other content"):
        checkpointer.save(1, state_of(2), {})


# ---- damage


@damages
def test_a_flipped_bit_is_caught_and_the_checkpoint_before_is_used(tmp_path, caplog):
    checkpointer = saved(tmp_path, 1, 2)
    flip_a_bit(data_file(checkpointer, 2))
    step, state, _ = checkpointer.restore(state_of(0))
    assert step == 1 and same(state, state_of(1))
    assert "CHECKPOINT 2 IS DAMAGED" in caplog.text
    with pytest.raises(CheckpointError, match="step 2"):  # by number it never falls back
        checkpointer.restore(state_of(0), 2)
    assert checkpointer.steps() == [1, 2]  # reading changes nothing


@damages
def test_orbax_alone_loads_a_flipped_bit_without_an_error(tmp_path):
    # the reason for fingerprints; when this fails, Orbax has learnt to check its data
    checkpointer = saved(tmp_path, 1)
    flip_a_bit(data_file(checkpointer, 1))
    stored = {k: v for k, v in state_of(0).items() if k in ("w", "half", "mask", "key", "n")}
    loaded = checkpointer._reader.read(1, {"state": stored})
    assert loaded["state"]["w"].shape == (64, 32)


@damages
def test_the_error_names_the_leaves_that_differ(tmp_path):
    one, two = saved(tmp_path / "1", 1), saved(tmp_path / "2", 1)
    with Checkpointer(tmp_path / "2b") as other:
        other.save(1, state_of(1) | {"w": state_of(5)["w"], "n": jnp.int32(9)}, {})
    shutil.rmtree(one.directory / "1" / "state")
    shutil.copytree(other.directory / "1" / "state", one.directory / "1" / "state")
    with pytest.raises(CheckpointError, match="2 of 6 leaves differ from what was saved: n, w"):
        one.restore(state_of(0), 1)
    assert same(two.restore(state_of(0), 1)[1], state_of(1))


@damages
@pytest.mark.parametrize("how", ["truncated", "missing", "meta changed", "meta broken", "unmarked"])
def test_a_truncated_missing_or_edited_file_falls_back(tmp_path, how):
    checkpointer = saved(tmp_path, 1, 2)
    if how in ("truncated", "missing"):
        path = data_file(checkpointer, 2)
        path.write_bytes(path.read_bytes()[:100]) if how == "truncated" else path.unlink()
    elif how == "unmarked":
        (checkpointer.directory / "2" / "commit_success.txt").unlink()
    else:
        path = next((checkpointer.directory / "2" / "meta").glob("*.json"))
        path.write_text(
            path.read_text().replace('"seen": 16', '"seen": 17') if how == "meta changed" else "{"
        )
    step, state, meta = Checkpointer(tmp_path).restore(state_of(0))
    assert step == 1 and same(state, state_of(1)) and meta["seen"] == 8


@damages
def test_a_step_under_another_number_is_damage(tmp_path):
    checkpointer = saved(tmp_path, 1)
    shutil.move(checkpointer.directory / "1", checkpointer.directory / "5")
    with pytest.raises(CheckpointError, match="no checkpoint is intact: step 5"):
        checkpointer.restore(state_of(0))


def test_an_empty_directory_has_nothing_to_restore_and_one_with_files_is_refused(tmp_path):
    assert Checkpointer(tmp_path / "new").restore(state_of(0)) is None
    assert not (tmp_path / "new").exists()
    (tmp_path / "100").mkdir()  # a checkpoint that lost its mark
    with pytest.raises(CheckpointError, match="files but no complete checkpoint: 100"):
        Checkpointer(tmp_path).restore(state_of(0))


def test_a_step_that_does_not_exist_lists_those_that_do(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint of step 3; saved steps: 1, 2"):
        saved(tmp_path, 1, 2).restore(state_of(0), 3)


# ---- what stays


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, [5, 6]),
        ({"keep": 1}, [6]),
        ({"keep": 1, "keep_every": 2}, [2, 4, 6]),
        ({"keep": 9}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_retention_leaves_exactly_what_was_asked_for(tmp_path, options, left):
    checkpointer = saved(tmp_path, *range(1, 7), **options)
    assert checkpointer.steps() == left
    assert sorted(p.name for p in tmp_path.iterdir()) == [str(s) for s in left]


def test_a_pinned_step_outlives_the_others_and_a_restart_until_another_is_pinned(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        for step in range(1, 4):
            checkpointer.save(step, state_of(step), {})
            if step == 2:
                checkpointer.pin(2)
    again = saved(tmp_path, 4, keep=1)
    assert (again.steps(), again.pinned) == ([2, 4], 2)
    again.pin(4)
    assert saved(tmp_path, 5, keep=1).steps() == [4, 5]
    with pytest.raises(ValueError, match="no checkpoint of step 2; saved steps: 4, 5"):
        again.pin(2)


def test_a_save_pins_its_step_only_once_it_is_on_disk_and_the_pin_before_stays_till_then(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=1)
    for step in (1, 2, 3):
        checkpointer.save(step, state_of(step), {}, pin=step != 2)
        assert checkpointer.pinned == {1: None, 2: 1, 3: 1}[step]
        assert step == 1 or 1 in checkpointer.steps()  # a kill now would leave it
    checkpointer.wait()
    assert (checkpointer.pinned, checkpointer.steps()) == (3, [3])
    checkpointer.save(3, state_of(3), {}, pin=True)  # there already
    assert checkpointer.pinned == 3


def test_a_pinned_step_that_is_set_aside_is_pinned_no_more(tmp_path):
    checkpointer = saved(tmp_path, 1, 2)
    checkpointer.pin(2)
    checkpointer.set_aside_after(1)
    assert (checkpointer.steps(), checkpointer.pinned) == ([1], None)
    checkpointer.pin(1)
    checkpointer.pin(None)
    assert checkpointer.pinned is None


def test_an_interrupted_deletion_and_an_interrupted_save_are_swept_by_the_next_save_only(tmp_path):
    saved(tmp_path, 1, 2)
    (tmp_path / "1" / "commit_success.txt").unlink()
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    checkpointer = Checkpointer(tmp_path)
    assert checkpointer.steps() == [2]
    assert (tmp_path / "3.orbax-checkpoint-tmp").exists()
    saved(tmp_path, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4"]


def test_a_step_loses_its_mark_before_anything_else_of_it_is_deleted(tmp_path, monkeypatch):
    checkpointer = saved(tmp_path, 1, 2)
    monkeypatch.setattr(
        type(checkpointer.directory),
        "rmtree",
        lambda path: (_ for _ in ()).throw(OSError("killed")),
    )
    checkpointer.save(3, state_of(3), {})
    checkpointer.wait()
    assert checkpointer.steps() == [2, 3]
    assert (tmp_path / "1" / "state").exists()


# ---- errors are heard


class Failing:
    """In place of Orbax: the first `n` saves fail, when they start or in the background."""

    def __init__(self, n, in_background, real=checkpoint.ocp.save_checkpointables_async):
        self.left, self.in_background, self.real = n, in_background, real

    def __call__(self, *args):
        if self.left == 0:
            return self.real(*args)
        self.left -= 1
        if not self.in_background:
            raise OSError("no space")
        return self

    def result(self, timeout=None):
        raise OSError("no space")


@pytest.fixture(params=[True, False], ids=["in background", "at start"])
def failing(request, monkeypatch):
    def fail(n):
        monkeypatch.setattr(checkpoint.ocp, "save_checkpointables_async", Failing(n, request.param))

    return fail


def test_a_failed_save_is_logged_and_the_next_step_retries_it(tmp_path, failing, caplog):
    failing(1)
    checkpointer = Checkpointer(tmp_path)
    assert not checkpointer.needs_retry()
    checkpointer.save(1, state_of(1), {})
    assert checkpointer.needs_retry()
    checkpointer.save(2, state_of(2), {})
    assert "step 1 was NOT saved (failure 1 in a row): OSError: no space" in caplog.text
    checkpointer.wait()
    assert not checkpointer.needs_retry()
    assert checkpointer.steps() == [2]


def test_a_retry_that_fails_too_is_not_retried_at_every_step(tmp_path, failing):
    failing(2)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, state_of(1), {})
    checkpointer.save(2, state_of(2), {})
    assert not checkpointer.needs_retry()


def test_failures_in_a_row_end_the_run_and_a_success_starts_the_count_again(tmp_path, failing):
    checkpointer = Checkpointer(tmp_path, max_failures=2)
    for first in (1, 3):  # fail, succeed, fail, succeed
        failing(1)
        checkpointer.save(first, state_of(1), {})
        checkpointer.save(first + 1, state_of(1), {})
    failing(2)
    checkpointer.save(5, state_of(1), {})
    checkpointer.save(6, state_of(1), {})
    with pytest.raises(CheckpointError, match="2 checkpoints in a row could not be saved") as e:
        checkpointer.save(7, state_of(1), {})
    assert isinstance(e.value.__cause__, OSError)
    assert checkpointer.steps() == [2, 4]


def test_waiting_and_closing_never_swallow_an_error(tmp_path, failing):
    failing(2)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, state_of(1), {})
    with pytest.raises(CheckpointError, match="last checkpoint was not saved"):
        checkpointer.wait()
    with pytest.raises(CheckpointError, match="last checkpoint was not saved"), checkpointer:
        checkpointer.save(1, state_of(1), {})


def test_an_error_of_the_run_is_not_hidden_by_an_error_of_the_save(tmp_path, failing, caplog):
    failing(1)
    with pytest.raises(ZeroDivisionError), Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state_of(1), {})
        raise ZeroDivisionError
    assert "step 1 was not saved either" in caplog.text


def test_a_full_disk_is_heard_retried_and_in_the_end_fatal(tmp_path):
    output, code = _subprocesses.finish(_subprocesses.start("_full_disk.py", tmp_path / "run"))
    assert code == 5, output
    assert "step 3 was NOT saved (failure 1 in a row)" in output
    assert "step 4 was NOT saved (failure 2 in a row)" in output
    assert "ENDED 10 retried [4, 8] 3 checkpoints in a row could not be saved" in output
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["5", "6"]  # and no debris


# ---- runs that are stopped


def test_a_run_killed_at_any_moment_goes_on_from_the_last_finished_step(tmp_path):
    chance = random.Random(0)
    resumed = []
    for _ in range(4):
        process = _subprocesses.start("_loop.py", tmp_path / "run", 10**6)
        said = _subprocesses.read_until(process, "RESUMED")
        resumed.append(int(said.split()[-1]))
        for _ in range(chance.randint(1, 6)):
            _subprocesses.read_until(process, "SAVING")
        time.sleep(chance.uniform(0, 0.06))
        process.kill()
        process.communicate()
    output, code = _subprocesses.finish(_subprocesses.start("_loop.py", tmp_path / "run", 2))
    assert code == 0, output  # the script itself checks the state that it resumes with
    last = int(output.split("RESUMED ")[1].split()[0])
    assert resumed[0] == 0 < resumed[1] <= resumed[2] <= resumed[3] <= last
    assert Checkpointer(tmp_path / "run").steps() == [last + 1, last + 2]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(
        [str(last + 1), str(last + 2)]
    )


def test_sigterm_saves_the_step_and_exits_with_42(tmp_path):
    process = _subprocesses.start("_loop.py", tmp_path / "run", 10**6)
    _subprocesses.read_until(process, "SAVING 3")
    process.send_signal(signal.SIGTERM)
    output, code = _subprocesses.finish(process)
    assert code == 42, output
    stopped = int(output.split("PREEMPTED ")[1].split()[0])
    assert stopped >= 3
    assert Checkpointer(tmp_path / "run").steps() == [stopped - 1, stopped]


# ---- what is relied on in Orbax


def test_orbax_marks_a_finished_step_and_names_an_unfinished_one_differently(tmp_path, monkeypatch):
    seen = []
    real = checkpoint.ocp.save_checkpointables_async

    def watched(path, *args):
        response = real(path, *args)
        while not any(tmp_path.iterdir()):
            time.sleep(0.001)
        seen.extend(p.name for p in tmp_path.iterdir())
        return response

    monkeypatch.setattr(checkpoint.ocp, "save_checkpointables_async", watched)
    saved(tmp_path, 1)
    assert set(seen) <= {"1.orbax-checkpoint-tmp", "1"}
    assert {"commit_success.txt", "_CHECKPOINT_METADATA", "meta", "state"} <= {
        p.name for p in (tmp_path / "1").iterdir()
    }
    assert json.loads(next((tmp_path / "1" / "meta").glob("*.json")).read_text())["step"] == 1


def test_logging_of_a_normal_run_is_quiet(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        saved(tmp_path, 1, 2, 3)
    assert caplog.records == []
