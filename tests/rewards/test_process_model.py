"""A process reward model says of steps what training saw of their last tokens."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.models.decoder import Decoder
from jalign.models.spec import Spec
from jalign.rewards.model import RewardModel
from jalign.rewards.process import step_probabilities
from tests.data.tiny_tokenizers import byte_level

PROMPTS = ["hello", "the quick brown fox", "you"]
STEPS = [["how are you", "the fox"], ["hello"], ["fox", "the world", "brown"]]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level(bos=True)


@pytest.fixture(scope="module")
def decoder(tokenizer):
    sizes = {"width": 16, "depth": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 24}
    spec = Spec(vocab_size=len(tokenizer), **sizes)
    return Decoder(spec, value_head=True, rngs=nnx.Rngs(0))


def by_hand(decoder, tokenizer, prompt, steps):
    """Each step followed by a line break; the head is read at the line breaks."""
    ids, ends = tokenizer(prompt)["input_ids"], []
    for step in steps:
        ids = ids + tokenizer(step + "\n", add_special_tokens=False)["input_ids"]
        ends.append(len(ids) - 1)
    tokens = jnp.array([ids])
    hidden, _ = decoder(tokens, jnp.arange(len(ids))[None])
    logits = decoder.value(hidden)[0]
    return [1 / (1 + math.exp(-float(logits[end]))) for end in ends]


@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_step_has_the_probability_at_its_line_break(decoder, tokenizer, batch_size):
    model = RewardModel(decoder, tokenizer, batch_size=batch_size)
    found = step_probabilities(model, PROMPTS, STEPS)
    for prompt, steps, x in zip(PROMPTS, STEPS, found, strict=True):
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, by_hand(decoder, tokenizer, prompt, steps), rtol=1e-4)


def test_steps_without_a_score_are_nan(decoder, tokenizer):
    model = RewardModel(decoder, tokenizer, max_response_len=6)
    steps = [["how are you", "the fox", "hello"], [], [""], ["fox"]]
    long, none, blank, short = step_probabilities(model, ["hello"] * 4, steps)
    n = len(tokenizer("how are you\n", add_special_tokens=False)["input_ids"])
    assert n <= 6 < n + len(tokenizer("the fox\n", add_special_tokens=False)["input_ids"])
    assert np.isfinite(long).tolist() == [True, False, False]
    assert none.shape == (0,) and np.isnan(blank).all() and np.isfinite(short).all()


def test_prompts_and_responses_must_be_as_many(decoder, tokenizer):
    with pytest.raises(ValueError, match="1 prompts and the steps of 2 responses"):
        step_probabilities(RewardModel(decoder, tokenizer), ["a"], [["b"], ["c"]])
