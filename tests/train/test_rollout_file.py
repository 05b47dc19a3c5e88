"""The file of a rollout under way is part of its checkpoint: damage to it is damage to that."""

import jax
import numpy as np
import pytest
from _damage import flip_a_bit
from jax.sharding import Mesh

from jalign import algorithms
from jalign.checkpoint.errors import CheckpointError
from jalign.data.examples import Example, Examples
from jalign.train.online import Online
from jalign.train.rollout_spec import RolloutSpec

SPEC = RolloutSpec(batch_size=2, prompts=4, epochs=1, responses=2, response_len=4, max_tokens=64)


def example(start):
    ids = np.arange(start, start + 9, dtype=np.int32)
    responses = (ids[2:5], ids[5:9])
    fields = {"advantages": np.array([start, start + 0.5], np.float32)}
    return Example(ids[:2], responses, tuple(np.ones(len(r), bool) for r in responses), fields)


@pytest.fixture
def source():
    """After the first of two steps of a rollout."""
    prompts = Examples.from_list([example(n)._replace(extras={}) for n in range(4)])
    mesh = Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), ("data", "fsdp", "context", "tensor")
    )
    made = Online(algorithms.get("grpo"), prompts, None, None, None, SPEC, mesh, seed=0)
    made.step, made._examples = 1, Examples.from_list([example(10 * n) for n in range(4)])
    return made


def test_examples_and_their_fields_come_back(source, tmp_path):
    saved, position = source._examples, source.position()
    source.save(tmp_path / "under-way-1.npz")
    source._examples = None
    source.restore(position, 1, tmp_path / "under-way-1.npz")
    assert source._examples.fingerprint == saved.fingerprint == position["under_way"]


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [lambda p: p.unlink(), lambda p: p.write_bytes(b""), lambda p: p.write_bytes(bytes(99)),
     halve, flip_a_bit, lambda p: np.savez(p, tokens=np.zeros(3))],
    ids=["missing", "empty", "zeros", "halved", "a bit", "other arrays"],
)  # fmt: skip
def test_what_is_missing_or_damaged_is_a_damaged_checkpoint(source, tmp_path, damage):
    file = tmp_path / "under-way-1.npz"
    source.save(file)
    damage(file)
    with pytest.raises(
        CheckpointError,
        match=r"and .*under-way-1\.npz is missing or damaged",
    ):
        source.restore(source.position(), 1, file)


def test_an_intact_file_of_another_rollout_is_damage(source, tmp_path):
    file, position = tmp_path / "under-way-1.npz", source.position()
    source._examples = Examples.from_list([example(10 * n + 1) for n in range(4)])
    source.save(file)
    with pytest.raises(CheckpointError, match="its content is not what was saved"):
        source.restore(position, 1, file)


def test_checkpoints_that_keep_no_checksum_of_it_are_taken_as_before(source, tmp_path):
    source.save(tmp_path / "under-way-1.npz")
    position = source.position()
    del position["under_way"]
    source.restore(position, 1, tmp_path / "under-way-1.npz")
    assert len(source._examples) == 4


def test_between_two_rollouts_there_is_no_file(source, tmp_path):
    source.step = 2
    source.save(tmp_path / "under-way-2.npz")
    assert list(tmp_path.iterdir()) == [] and source.position()["under_way"] is None
    source.restore(source.position(), 2, tmp_path / "under-way-2.npz")
