"""A sampler, rewards and prompts of one's own in an online run, from Python."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jalign import algorithms
from jalign.core import Frozen
from jalign.options import RewardConfig
from jalign.parallel.mesh import make_mesh
from jalign.rewards.model import RewardModel
from jalign.rewards.types import Judged
from jalign.rollout.types import Rollout
from jalign.run import prompts as prompts_module
from jalign.run.prompts import PromptTable
from jalign.run.rewards import compose
from jalign.train.online import Online
from jalign.train.rollout_spec import RolloutSpec
from tests.data.tiny_tokenizers import CHATML, byte_level

ROWS = ["the fox", {"prompt": "hello", "answer": 3}, [{"role": "user", "content": "how are you"}]]
STATE: Any = SimpleNamespace(params=None, ref=None, last=None)  # nothing here reads a model
GRPO = algorithms.get("grpo").with_hyper(kl_k3_coef=0.0)  # reads no model before its step


def table(rows=ROWS):
    return PromptTable.of_rows(rows, byte_level(chat_template=CHATML))


def sampled(prompts, *texts):
    """Responses to each prompt: these texts."""
    tokenizer = byte_level()
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return Rollout.from_lists([prompts[i].ids for i in range(len(prompts))], [ids] * len(prompts))


def test_prompts_are_texts_rows_or_messages():
    found = table()
    assert [found[i].text for i in range(3)] == ["the fox", "hello", "how are you"]
    assert found[2].messages == ROWS[2] and found[0].messages == "the fox"
    assert "<|im_start|>" in found[2].policy_text
    assert found.columns([1, 0])["answer"] == [3, None]
    assert found.decode(0, sampled(found, " jumps").response(0, 0)) == " jumps"
    with pytest.raises(TypeError, match="a prompt is a text, a list of messages or a row"):
        PromptTable.of_rows([3], byte_level())  # type: ignore[list-item]


def test_each_prompt_is_parsed_once_however_often_rewards_read_it(monkeypatch):
    found, calls = table(), []
    parse = prompts_module.to_records
    monkeypatch.setattr(prompts_module, "to_records", lambda *a: calls.append(a) or parse(*a))
    reward = compose(RewardConfig(), GRPO, None, functions={"length": lambda p, r: map(len, r)})  # type: ignore[arg-type]
    for _ in range(2):
        reward(found, [0, 1, 2], sampled(found, "a", "bb", "ccc", "dddd"))
    assert len(calls) == 3


def length(prompts, responses):
    return [len(text) for text in responses]


def answered(prompts, responses, *, answer=None, weight=1.0):
    return [None if x is None else weight * x for x in answer]


def test_functions_from_python_add_up_with_their_weights_and_see_the_columns():
    found = table(ROWS[:2])
    functions = {"length": length, "answered": (answered, 0.5)}
    reward = compose(RewardConfig(), GRPO, None, functions=functions)  # type: ignore[arg-type]
    judged = reward(found, [0, 1], sampled(found, "a", "bbb"))
    np.testing.assert_array_equal(judged.scores, [[1, 3], [1 + 1.5, 3 + 1.5]])
    assert judged.win_probs is None and judged.failures == {}
    assert judged.metrics["rewards/answered/absent"] == 2
    assert set(reward.identity["functions"]) == {"length", "answered"}
    named = RewardConfig(functions={"length": 2.0})  # as the options of a run record it
    reward = compose(named, GRPO, None, functions={"length": length})  # type: ignore[arg-type]
    np.testing.assert_array_equal(reward(found, [0, 1], sampled(found, "a")).scores, [[2], [2]])


def test_win_probabilities_are_there_for_methods_that_read_them():
    found = table(ROWS[:1])
    reward = compose(RewardConfig(), algorithms.get("spo"), None, functions={"length": length})  # type: ignore[arg-type]
    won = reward(found, [0], sampled(found, "a", "bb")).win_probs
    np.testing.assert_allclose(won, [[[0.5, 1 / (1 + np.e)], [1 - 1 / (1 + np.e), 0.5]]], rtol=1e-6)


class Constant(RewardModel):
    """A reward model in memory that always says the same."""

    def __init__(self, value):
        self.value, self.step, self._split = value, None, (None, {"bias": np.zeros(1)})

    def of_sampled(self, prompts, responses):
        self.prompts = prompts
        return np.full(len(responses), self.value, np.float32)


def test_a_reward_model_in_memory_reads_messages_and_there_is_one():
    found, model = table(), Constant(2.0)
    functions = {"rm": (model, 0.25), "length": length}
    reward = compose(RewardConfig(), GRPO, None, functions=functions)  # type: ignore[arg-type]
    judged = reward(found, [0, 2], sampled(found, "a").select(np.array([0, 2])))
    np.testing.assert_array_equal(judged.scores, [[1.5], [1.5]])
    assert model.prompts == ["the fox", ROWS[2]] and "weights" in reward.identity["model"]
    with pytest.raises(ValueError, match="a run has one reward model, got first, second"):
        compose(RewardConfig(), GRPO, None, functions={"first": model, "second": model})  # type: ignore[arg-type]


def source(sampler, reward, prompts):
    spec = RolloutSpec(batch_size=3, prompts=3, responses=2, response_len=4, max_tokens=256)
    mesh = make_mesh(fsdp=1, devices=jax.devices()[:1])
    return Online(GRPO, prompts.examples, sampler, reward, lambda *_: {}, spec, mesh, seed=0)


def test_a_sampler_and_a_reward_of_ones_own_make_the_batches_of_a_step():
    found, seen = table(), []

    def sampler(state, frozen, indices, key):
        tokens = [[[10 + i], [20 + i, 30 + i]] for i in indices]
        return Rollout.from_lists([found[i].ids for i in indices], tokens)

    def reward(indices, rollout):
        seen.append(rollout.lengths.tolist())
        return Judged(rollout.lengths.astype(float), None, {"mine": 1.0})

    online = source(sampler, reward, found)
    [stack] = online(STATE, Frozen(None, None))
    batch = stack.micro_batch(0)
    tokens = set(np.asarray(batch.layout.tokens).ravel().tolist())
    assert {10, 11, 12, 20, 21, 22, 30, 31, 32} <= tokens and seen == [[[1, 2]] * 3]
    advantages = np.asarray(batch.extras["advantages"])[np.asarray(batch.present)]
    np.testing.assert_allclose(advantages[:, 0, 0], -advantages[:, 1, 1], rtol=1e-6)
    assert (advantages[:, 1, :2] > 0).all()
    assert online.metrics()["mine"] == 1.0


def test_a_sampler_that_returns_something_else_is_refused_by_what_it_returned():
    found = table()
    for texts, message in (
        ([[1]], r"returned \(3, 1\) \(prompts, responses\) instead of \(3, 2\)"),
        ([[1], [1, 2, 3, 4, 5]], "a response has 5 tokens, more than the 4 that are allowed"),
    ):
        tokens = [texts] * 3
        sampler = lambda s, f, indices, k, t=tokens: Rollout.from_lists(  # noqa: E731
            [found[i].ids for i in indices], t
        )
        with pytest.raises(ValueError, match=message):
            source(sampler, None, found)(STATE, Frozen(None, None))
