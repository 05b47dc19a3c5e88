"""The tiny models in tests/golden/models, and how to run one."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jalign.models import hub

GOLDEN = Path(__file__).parents[1] / "golden" / "models"
NAMES = sorted(p.parent.name for p in GOLDEN.glob("*/config.json"))
ASSETS = Path(__file__).parents[3] / "shared" / "assets"


def golden_outputs(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / name / "outputs.npz"))


def positions_of(tokens):
    return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)


@functools.partial(jax.jit, static_argnums=0)
def _forward(graphdef, state, tokens, positions, cache, key):
    model = nnx.merge(graphdef, state)
    hidden, cache = model(tokens, positions, cache=cache, key=key)
    return hidden, model.logits(hidden), cache


def forward(model, tokens, positions=None, *, cache=None, key=None):
    """Hidden states, logits and cache; compiled once for models and shapes that are alike."""
    tokens = jnp.asarray(tokens)
    positions = positions_of(tokens) if positions is None else positions
    return _forward(*nnx.split(model), tokens, positions, cache, key)


def logits_of(model, tokens) -> np.ndarray:
    model.unroll = False  # compiles faster
    return np.asarray(forward(model, tokens)[1])


class Parity(NamedTuple):
    """A golden model here against the same in transformers.

    Attributes:
      float32, bfloat16: largest differences of logits from those of transformers in float32.
      theirs: that of transformers itself in bfloat16.
      greedy: how many tokens both append to each row before they differ.
      new: tokens that transformers appended.
    """

    float32: float
    bfloat16: float
    theirs: float
    greedy: int
    new: int


def parity(name: str, *, low: bool = True) -> Parity:
    """Compare a golden model, whose every token reads those before it from the cache.

    Args:
      low: also in bfloat16, which is another program to compile; else NaN.
    """
    golden, kept = golden_outputs(name), hub.load(GOLDEN / name)
    kept.unroll = False  # compiles faster
    tokens, new = golden["tokens"], golden["greedy"]
    (rows, start), count = tokens.shape, new.shape[1]
    # Each token given those that transformers chose before it: equal until the first that differs.
    row = np.concatenate([tokens, new[:, :-1]], 1)
    # Not fresh: a prefill would not read the cache.
    cache = dataclasses.replace(kept.empty_cache(rows, start + count), fresh=False)
    logits = np.asarray(forward(kept, row, cache=cache)[1])
    prompt, greedy = logits[:, :start], logits[:, start - 1 :].argmax(-1)
    rounded = np.full_like(prompt, np.nan)
    if low:
        types = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
        rounded = logits_of(hub.load(GOLDEN / name, **types), tokens)
    differences = [prompt, rounded, golden["bfloat16"]]
    errors = [float(np.abs(x - golden["logits"]).max()) for x in differences]
    return Parity(*errors, int((greedy == new).all(0).cumprod().sum()), count)


def maker():
    """The script that wrote the fixtures, as a module (its functions need torch)."""
    spec = importlib.util.spec_from_file_location("make_fixtures", GOLDEN / "make_fixtures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
