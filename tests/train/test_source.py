"""A source of one's own, and sources that are restored."""

import jax
import numpy as np
import optax
import pytest

from jalign.algorithms import get
from jalign.core import Frozen
from jalign.train.loop import fit
from jalign.train.source import Source
from jalign.train.step import create_state, make_train_step
from tests.train._toy import apply, batch, cut, params

ROW = get("dpo")
FROZEN = Frozen(None, params(1))


class ReplayBuffer:
    """The newest batches of an "environment", of which each step draws one."""

    def __init__(self, size: int):
        self.size, self.step, self.buffer, self.ages = size, 0, [], []

    def __call__(self, state, frozen):
        del frozen
        assert int(state.step) == self.step  # the policy of this very step
        self.buffer = [*self.buffer, self.step][-self.size :]
        drawn = self.buffer[-1 - self.step % len(self.buffer)]
        self.ages.append(self.step - drawn)
        self.step += 1
        return (cut(batch(seed=drawn), 2),)

    @property
    def tokens(self):
        return 10 * self.step

    def epoch(self, step):
        return float(step)

    def metrics(self):
        ages, self.ages = self.ages, []
        return {"replay/age": float(np.mean(ages))} if ages else {}

    def describe(self):
        return [f"a replay buffer of {self.size} batches"]

    def position(self):
        return {"num_tokens": self.tokens}

    def save(self, path):
        np.save(path, self.buffer)

    def restore(self, position, step, path):
        assert position["num_tokens"] == 10 * step
        self.step, self.buffer = step, np.load(path).tolist()


def trained(source: Source, state, steps):
    step = jax.jit(make_train_step(ROW, apply, optax.sgd(0.1)))
    losses = []
    state = fit(
        step,
        state,
        FROZEN,
        source,
        steps=steps,
        hooks=[lambda info: losses.append(float(info.metrics["loss"]))],
    )
    return state, losses


def fresh():
    return create_state(params(), optax.sgd(0.1), ROW, jax.random.key(0))


def test_a_replay_buffer_is_a_source_and_resumes_where_it_stopped(tmp_path):
    whole, losses = trained(ReplayBuffer(3), fresh(), 8)
    first = ReplayBuffer(3)
    state, before = trained(first, fresh(), 5)
    first.save(tmp_path / "buffer.npy")
    again = ReplayBuffer(3)
    again.restore(first.position(), 5, tmp_path / "buffer.npy")
    resumed, after = trained(again, state, 8)
    assert before + after == losses and len(set(losses)) > 3
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert again.tokens == 80 and 0 <= again.metrics()["replay/age"] < 3


def test_a_source_that_forgot_its_buffer_is_noticed_by_its_losses():
    _, losses = trained(ReplayBuffer(3), fresh(), 8)
    state, _ = trained(ReplayBuffer(3), fresh(), 5)
    forgetful = ReplayBuffer(3)
    forgetful.step = 5
    assert trained(forgetful, state, 8)[1] != pytest.approx(losses[5:])
