"""Preference models behind /v1/score: both orders are read, and their mean is the answer."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign import embedded
from jalign.data.joint import both_orders
from jalign.data.records import parse
from jalign.data.tokenizers import load_tokenizer
from jalign.models import hub
from jalign.rewards.model import RewardModel
from jalign.serve.errors import ApiError
from jalign.serve.scorers import PairScorer, RewardScorer, Scorers, letter_model, pair_ranker
from tests.serve._policy import embedded_policy

FIRST, SECOND = "She was glad.", "It was dark."


@pytest.fixture(scope="module")
def reward_model():
    model = hub.load(str(embedded.path()), value_head=True, key=jax.random.key(5))
    return RewardModel(model, load_tokenizer(embedded.path()))


def orders():
    return both_orders(parse({"prompt": "Lily", "chosen": FIRST, "rejected": SECOND}, "pairs"))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_a_ranker_is_read_at_both_letters_in_both_orders(reward_model):
    want = []
    for record in orders():
        a, b = (x[-1] for x in reward_model.at_scored(reward_model.tokenized([record])))
        want.append(sigmoid(a - b))
    scorer = pair_ranker(reward_model)
    (got,) = scorer.preferences(["Lily"], [FIRST], [SECOND])
    (swapped,) = scorer.preferences(["Lily"], [SECOND], [FIRST])
    assert got == pytest.approx(np.mean(want), abs=1e-6)
    assert got + swapped == pytest.approx(1)
    assert want[0] != pytest.approx(want[1])
    with pytest.raises(ValueError, match="compares two responses"):
        scorer.rewards(["Lily"], [FIRST])


def test_a_language_model_prefers_by_the_letter_it_writes(reward_model):
    policy = embedded_policy()
    scorer = letter_model(policy)
    graphdef, state = policy.weights

    @jax.jit
    def last_logits(state, ids):
        model = nnx.merge(graphdef, state)
        return model.logits(model(ids[None], jnp.arange(len(ids))[None])[0][0, -1])

    want = []
    for record in orders():
        (example,) = reward_model.tokenized([record])
        logits = last_logits(state, example.prompt)
        a, b = (float(logits[response[0]]) for response in example.responses)
        want.append(sigmoid(a - b))
    (got,) = scorer.preferences(["Lily"], [FIRST], [SECOND])
    assert got == pytest.approx(np.mean(want), abs=1e-5)


def test_equal_responses_are_a_tie_and_empty_ones_unknown(reward_model):
    for scorer in (pair_ranker(reward_model), RewardScorer(reward_model)):
        got = scorer.preferences(["a"] * 3, [FIRST, " ", FIRST], [FIRST, FIRST, SECOND])
        assert got[:2] == [0.5, None]
        assert 0 < got[2] < 1


def test_a_ranker_refuses_to_reward_a_single_response():
    scorers = Scorers({"pairs": PairScorer(list, np.array)}, embedded_policy().mesh)
    with pytest.raises(ApiError, match="give `responses`"):
        scorers.read({"model": "pairs", "prompt": "a", "response": "b"})
