"""Online merging: every step of an optimizer is merged with what fine-tuning changed before.

Lu et al. 2024, "Online Merging Optimizers for Boosting Rewards and Mitigating Tax in Alignment".
https://arxiv.org/abs/2405.17931, as in the authors' code (QwenLM/online_merging_optimizers). Whole
models are merged by `jalign.models.merge`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import PyTree


class OnlineMergingState(NamedTuple):
    """State of the wrapped optimizer, steps so far, and what the start differs in from the base."""

    inner: PyTree
    step: Array
    reference_delta: PyTree


def online_merging(
    inner: optax.GradientTransformation,
    base: PyTree | None,
    *,
    alpha: float = 1e-6,
    density: float = 0.5,
    method: Literal["dare", "ties"] = "dare",
    seed: int = 0,
) -> optax.GradientTransformation:
    """theta <- theta + merge(tau, delta), delta the update of `inner` and tau = theta_start - base.

    dare: alpha F(tau) + (1 - alpha) F(delta), where F makes an entry 0 with probability 1 - density
    and divides the others by density; tau is made sparse once, delta anew in each step.
    ties: the density largest entries of each tensor of tau and delta stay, and of these the ones
    with the sign of tau + delta: alpha tau + (1 - alpha) delta.

    tau pulls towards what supervised fine-tuning learned, which aligning the model would forget.

    Args:
      inner: an optimizer, its learning rate included, such as `optax.adamw(1e-5)`.
      base: parameters before fine-tuning, a tree like those that are trained. They start from the
        fine-tuned model, the reference of alignment. None: tau is 0 until a run sets the state's
        `reference_delta`, once the base is loaded.
      alpha: weight of tau, which is added in EVERY step, in [0, 1); 1e-6.
      density: share of the entries that stay, in (0, 1]; 0.5.
      seed: of dare.
    Raises:
      ValueError: a number out of its range, or an unknown method.
    Deviations: the authors merge every k-th step only and may rescale; k = 1 here. Of equal entries
      at the border of ties all stay. tau is kept in the state in float32: 4 bytes per parameter.
    """
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must be in [0, 1), got {alpha}")
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1], got {density}")
    if method not in ("dare", "ties"):
        raise ValueError(f"method must be 'dare' or 'ties', got {method!r}")
    options = {"method": method, "density": density, "seed": seed}

    # the start of training is the reference, so only the base has to be given
    def init(params: PyTree) -> OnlineMergingState:
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        tau = zeros if base is None else reference_delta(params, base, **options)
        return OnlineMergingState(inner.init(params), jnp.zeros((), jnp.int32), tau)

    def update(
        updates: PyTree, state: OnlineMergingState, params: PyTree = None
    ) -> tuple[PyTree, OnlineMergingState]:
        # the update of the wrapped optimizer, its learning rate and sign included
        delta, own = inner.update(updates, state.inner, params)
        step = state.step + 1

        def merge(tau: Array, d: Array) -> Array:
            if method == "ties":
                # a sum of 0 counts as positive, as in the authors' code
                majority = jnp.where(tau + d >= 0, 1.0, -1.0)
                tau, d = (jnp.where(jnp.sign(x) == majority, x, 0.0) for x in (tau, d))
            return alpha * tau + (1 - alpha) * d

        merged = jax.tree.map(
            lambda tau, d, u: merge(tau, d).astype(u.dtype),
            state.reference_delta,
            _sparse(delta, step, **options),
            delta,
        )
        return merged, OnlineMergingState(own, step, state.reference_delta)

    return optax.GradientTransformation(init, update)


def reference_delta(
    params: PyTree,
    base: PyTree,
    *,
    method: Literal["dare", "ties"] = "dare",
    density: float = 0.5,
    seed: int = 0,
) -> PyTree:
    """tau, in float32: what fine-tuning changed, made sparse as `online_merging` does."""
    tau = jax.tree.map(lambda p, b: jnp.asarray(p, jnp.float32) - b, params, base)
    return _sparse(tau, 0, method=method, density=density, seed=seed)


def _sparse(tree: PyTree, step: Array | int, *, method: str, density: float, seed: int) -> PyTree:
    if method == "ties":
        return jax.tree.map(lambda x: _largest(x, density), tree)
    key = jax.random.fold_in(jax.random.key(seed), step)
    leaves, structure = jax.tree.flatten(tree)
    # a mask of its own for each tensor
    keys = jax.random.split(key, len(leaves))
    kept = [_dropped(x, k, density) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, kept)


def _dropped(x: Array, key: Array, density: float) -> Array:
    """DARE: an unbiased estimate of x with a share `density` of its entries."""
    return jnp.where(jax.random.bernoulli(key, density, x.shape), x / density, 0)


def _largest(x: Array, density: float) -> Array:
    """The floor(density * size) entries largest in size; nothing of a tensor too small for one."""
    count = int(density * x.size)
    if count == 0:
        return jnp.zeros_like(x)
    size = jnp.abs(x)
    return jnp.where(size >= jnp.sort(size.ravel())[x.size - count], x, 0)
