"""Prefill and cached decoding choose the tokens transformers chooses, with real weights."""

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import ASSETS
from flax import nnx

from jalign.models import hub
from jalign.models.cache import KVCache

NEW = 128
WEIGHTS = ASSETS / "weights"
FOLDERS = [
    WEIGHTS / "stories260K",
    WEIGHTS / "stories15M-v8192",
    Path(os.environ.get("JALIGN_SMOLLM2", "no-such-folder")),
]
PROMPTS = ["Once upon a time, there was a little dog who", "The sun was"]


def greedy(model, tokens, lengths):
    """[B, NEW] tokens that follow right-padded prompts."""

    @functools.partial(jax.jit, static_argnums=0)
    def run(graphdef, state, tokens, lengths):
        model = nnx.merge(graphdef, state)
        b, n = tokens.shape
        cache = KVCache.empty(model.spec, b, n + NEW, jnp.float32)
        positions = jnp.where(jnp.arange(n) < lengths[:, None], jnp.arange(n), -1)
        hidden, cache = model(tokens, positions, cache=cache)
        last = model.logits(hidden[jnp.arange(b), lengths - 1]).argmax(-1)

        def step(carry, _):
            token, cache = carry
            hidden, cache = model(token[:, None], cache.lengths[:, None], cache=cache)
            return (model.logits(hidden[:, 0]).argmax(-1), cache), token

        return jax.lax.scan(step, (last, cache), None, NEW)[1].T

    return run(*nnx.split(model), tokens, lengths)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_128_greedy_tokens_equal_those_of_transformers(folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    if not folder.is_dir():
        pytest.skip("these weights are not here")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    expected = []
    for row in rows:
        ids = torch.tensor([row])
        out = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            eos_token_id=None,
            pad_token_id=0,
        )
        expected.append(out[0, len(row) :].numpy())
    lengths = np.array([len(row) for row in rows])
    tokens = np.zeros((len(rows), lengths.max()), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    np.testing.assert_array_equal(greedy(hub.load(folder), tokens, lengths), expected)
