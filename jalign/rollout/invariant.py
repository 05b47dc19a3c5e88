"""Sampling from a batch-invariant model (`jalign.models.invariant`): tokens and log-probs of a row
depend neither on the other rows nor on how prompts are padded, and log-probs are the scorer's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jalign.kernels.compiler_options import compiler_options
from jalign.kernels.tiles import tiled
from jalign.models import invariant
from jalign.rollout.draw import greedy, pick

if TYPE_CHECKING:
    from jalign.rollout.decode_model import SamplingWeights
    from jalign.rollout.sampler import Settings


def draw_invariant(
    logits: Float[Array, "n V"], keys: Array, temperature: float
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """As `jalign.rollout.draw.draw` without cuts; `keys` [n]."""
    if temperature == 0:  # a maximum does not round
        return greedy(logits), jnp.zeros(logits.shape[:1], jnp.float32)
    uniform = jax.vmap(jax.random.uniform)(keys)
    ids = tiled(functools.partial(_pick, temperature), (), logits, uniform)
    return ids, invariant.logps(logits, ids, temperature)


def _pick(temperature: float, params: tuple[()], logits: Array, uniform: Array) -> Array:
    del params
    logits = logits / temperature
    return pick(jnp.exp(logits - logits.max(-1, keepdims=True)), uniform)


def check_settings(settings: Settings) -> None:
    """Raise ValueError for settings that change the distribution, which a scorer does not know."""
    neutral = {"top_k": None, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "mixture": 0.0}
    for name, value in neutral.items():
        if getattr(settings, name) != value:
            raise ValueError(
                f"a batch-invariant model is sampled from as it is scored: {name} must be {value}, "
                f"got {getattr(settings, name)}"
            )


def program_for(
    weights: SamplingWeights,
    program: Callable[..., Any],
    *,
    static: tuple[str, ...],
    donated: str | None = None,
) -> Callable[..., Any]:
    """A jitted program, for a batch-invariant model with the compiler options of its scorer."""
    model = weights.model()
    if not model.batch_invariant or not compiler_options(model.dtype):
        return program
    return _rounded(program, static, donated)


@functools.cache
def _rounded(
    program: Callable[..., Any], static: tuple[str, ...], donated: str | None
) -> Callable[..., Any]:
    return jax.jit(
        inspect.unwrap(program),
        static_argnames=static,
        donate_argnames=donated,
        compiler_options=dict(compiler_options(jnp.bfloat16)),
    )
