"""The tiny models in tests/golden/models, and how to run one."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

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


def maker():
    """The script that wrote the fixtures, as a module (its functions need torch)."""
    spec = importlib.util.spec_from_file_location("make_fixtures", GOLDEN / "make_fixtures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
