"""Model merging from a common base: task arithmetic, TIES, DARE, SLERP.

Task arithmetic: Ilharco et al. 2022, https://arxiv.org/abs/2212.04089. TIES: Yadav et al. 2023,
https://arxiv.org/abs/2306.01708. DARE: Yu et al. 2023, https://arxiv.org/abs/2311.03099. PAFT,
which trains an SFT and a preference delta side by side and merges them: Pentyala et al. 2024,
https://arxiv.org/abs/2406.17923. Code: prateeky2806/ties-merging (merge_utils.py) and
arcee-ai/mergekit (generalized_task_arithmetic.py, sparsify.py, slerp.py).

All of it works on full-rank deltas d_i = theta_i - theta_pre, pytrees of arrays in which every leaf
is one tensor, and gives the delta to add to theta_pre. LoRA factors become deltas s A B first
(`full_rank`): merging A and B apart gives products of one model's A with another's B.

Deviations. TIES: the authors keep int(K n) + 1 entries of the whole model; here it is exactly
floor(K n), of each tensor as in mergekit or of the whole, and of equal entries the first. mergekit
takes a sum of zero for positive; here, as in the authors' code, the majority's sign, except that
without a majority no entry is taken (theirs takes the negative ones). SLERP: a tensor that one of
the two did not change is interpolated linearly, since no angle to it exists (mergekit assumes 90
degrees).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PyTree

from jalign.models.adapters.lora import adapters
from jalign.parallel.paths import path_name

Tree = PyTree

NEARLY_PARALLEL = 0.9995  # |cosine| above which SLERP is linear; mergekit's number


def linear(deltas: Sequence[Tree], weights: Sequence[float]) -> Tree:
    """Task arithmetic: sum_i w_i d_i. A negative weight subtracts that model's delta."""
    _check(deltas, weights)
    return jax.tree.map(lambda *d: _weighted(d, weights), *deltas)


def ties(
    deltas: Sequence[Tree],
    *,
    density: float = 0.2,
    scale: float = 1.0,
    weights: Sequence[float] | None = None,
    trim: str = "tensor",
) -> Tree:
    """TIES: trim each delta, elect a sign per entry, average the entries with that sign, times
    `scale`.

    1. Trim: of each d_i the floor(density n) entries largest in size stay, the rest is 0.
    2. Elect: g = sign(sum_i w_i d_i); where that is 0 the sign that most entries elected.
    3. Merge: sum w_i d_i / sum w_i over the i with sign(d_i) = g and d_i != 0; 0 if there is none.

    Args:
      deltas: one pytree per model.
      density: K, in [0, 1]; the paper's is 0.2.
      scale: lambda; the paper sweeps 0.3 to 1.8.
      weights: > 0, one per model; None is 1 for each, the paper's plain mean.
      trim: "tensor" counts n and takes the majority per tensor; "global", as in the paper, over the
        whole model, which holds trimmed copies of all of them at once.

    Do not jit it: entries are selected on the host, where an index can count all of a model's.
    """
    weights = [1.0] * len(deltas) if weights is None else weights
    _check(deltas, weights)
    if any(w <= 0 for w in weights):
        raise ValueError(f"TIES averages with weights > 0, got {list(weights)}")
    if not 0 <= density <= 1:
        raise ValueError(f"density is the fraction that is kept, 0 to 1, got {density}")
    if trim not in ("tensor", "global"):
        raise ValueError(f"trim must be 'tensor' or 'global', got {trim!r}")
    models = [jax.tree.leaves(d) for d in deltas]
    n = len(models[0])
    scopes = [range(i, i + 1) for i in range(n)] if trim == "tensor" else [range(n)]
    merged = []
    for scope in scopes:
        kept = [_trim([leaves[i] for i in scope], density) for leaves in models]
        merged += _elect_and_merge(list(zip(*kept, strict=True)), weights)
    return jax.tree.unflatten(jax.tree.structure(deltas[0]), [scale * m for m in merged])


def dare(deltas: Sequence[Tree], key: Array, *, drop: float) -> list[Tree]:
    """DARE: every entry becomes 0 with probability `drop`, the others d / (1 - drop).

    Merge the result by `linear`, or by `ties` with density=1 (mergekit's dare_ties). The
    masks of models and tensors are independent of each other.
    """
    if not 0 <= drop < 1:
        raise ValueError(f"drop is a probability, at least 0 and below 1, got {drop}")

    def one(model: int, tensor: int, d: ArrayLike) -> Array:
        d = jnp.asarray(d)
        own = jax.random.fold_in(jax.random.fold_in(key, model), tensor)
        return jnp.where(jax.random.bernoulli(own, 1 - drop, d.shape), d / (1 - drop), 0)

    out = []
    for i, delta in enumerate(deltas):
        leaves, structure = jax.tree.flatten(delta)
        out.append(jax.tree.unflatten(structure, [one(i, j, d) for j, d in enumerate(leaves)]))
    return out


def slerp(a: Tree, b: Tree, t: float) -> Tree:
    """SLERP of two models: (sin((1 - t) W) a + sin(t W) b) / sin W, tensor by tensor.

    W is the angle between the two flattened tensors, deltas or whole weights (two fine-tuned models
    are nearly parallel as weights). Where |cos W| > 0.9995, or a tensor is 0, it is
    (1 - t) a + t b.

    Args:
      t: 0 gives a, 1 gives b.
    """
    _check([a, b], (1.0, 1.0))
    if not 0 <= t <= 1:
        raise ValueError(f"t goes from 0 (the first model) to 1 (the second), got {t}")

    def arc(a: ArrayLike, b: ArrayLike) -> Array:
        a, b = jnp.asarray(a), jnp.asarray(b)
        norm_a, norm_b = jnp.linalg.norm(a), jnp.linalg.norm(b)
        none = (norm_a == 0) | (norm_b == 0)
        cosine = jnp.sum(a / jnp.where(none, 1, norm_a) * (b / jnp.where(none, 1, norm_b)))
        straight = none | (jnp.abs(cosine) > NEARLY_PARALLEL)
        angle = jnp.arccos(jnp.where(straight, 0, cosine))
        first, second = jnp.sin((1 - t) * angle), jnp.sin(t * angle)
        first = jnp.where(straight, 1 - t, first / jnp.sin(angle))
        second = jnp.where(straight, t, second / jnp.sin(angle))
        return first * a + second * b

    return jax.tree.map(arc, a, b)


def sparsity(delta: Tree, threshold: float = 1e-5) -> float:
    """The fraction of entries with |d| <= threshold."""
    leaves = jax.tree.leaves(delta)
    zeros = sum(int(jnp.sum(jnp.abs(d) <= threshold)) for d in leaves)
    return zeros / sum(d.size for d in leaves)


def sign_conflict(a: Tree, b: Tree) -> float:
    """mean(sign(a) sign(b) < 0), over all entries, those that are 0 included."""
    _check([a, b], (1.0, 1.0))
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    against = sum(int(jnp.sum(jnp.sign(x) * jnp.sign(y) < 0)) for x, y in pairs)
    return against / sum(x.size for x, _ in pairs)


def full_rank(model: nnx.Module) -> dict[str, Float[Array, "layer i o"]]:
    """Adapters as deltas of their kernels: name -> s A B, float32; {} without adapters.

    The same as `lora.merge` minus the base, without the rounding of W + s A B to the base's dtype.
    """
    return {f"{path}.kernel": lora.delta() for path, lora in adapters(model).items()}


def by_layer(params: dict[str, PyTree]) -> dict[str, PyTree]:
    """Parameters by name, those that are stacked over layers as lists of one tensor per layer.

    So "per tensor" means the same as for a checkpoint, except that matrices which a checkpoint
    fuses (Phi-3's qkv_proj) stay separate.
    """
    return {name: list(x) if name.startswith("layers.") else x for name, x in params.items()}


def stacked(tensors: dict[str, PyTree]) -> dict[str, Array]:
    """The inverse of `by_layer`."""
    return {name: jnp.stack(x) if isinstance(x, list) else x for name, x in tensors.items()}


def _check(deltas: Sequence[Tree], weights: Sequence[float]) -> None:
    if not deltas:
        raise ValueError("there is nothing to merge")
    if len(weights) != len(deltas):
        raise ValueError(f"{len(deltas)} models need as many weights, got {list(weights)}")
    if not all(math.isfinite(w) for w in weights):
        raise ValueError(f"weights must be finite, got {list(weights)}")
    shapes = [
        {path_name(path): np.shape(x) for path, x in jax.tree_util.tree_leaves_with_path(d)}
        for d in deltas
    ]
    for i, other in enumerate(shapes[1:], 1):
        problems = [
            f"{name} is {other.get(name, 'missing')} instead of {shapes[0].get(name, 'missing')}"
            for name in sorted(shapes[0].keys() | other.keys())
            if shapes[0].get(name) != other.get(name)
        ]
        if problems:
            raise ValueError(f"model {i} does not fit model 0: {'; '.join(problems)}")


def _weighted(arrays: Sequence[ArrayLike], weights: Sequence[float]) -> Array:
    first, *rest = (w * jnp.asarray(x) for w, x in zip(weights, arrays, strict=True))
    return sum(rest, first)


def _trim(leaves: Sequence[Any], density: float) -> list[Array]:
    """The floor(density n) entries largest in size of all leaves together, 0 elsewhere."""
    sizes = [np.abs(np.asarray(x, np.float32)) for x in leaves]
    n = sum(x.size for x in sizes)
    # int(0.57 * 100) is 56: count with the decimal that was written
    count = int(Fraction(str(density)) * n)
    if count == 0:
        return [jnp.zeros_like(x) for x in leaves]
    every = np.concatenate([x.ravel() for x in sizes])
    # Linear time: with trim="global" these are all entries of a model.
    every.partition(n - count)
    least = every[n - count]  # larger entries stay, and the first `spare` of equal ones
    spare = count - int(np.sum(every[n - count :] > least))
    out = []
    for x, size in zip(leaves, sizes, strict=True):
        equal = np.flatnonzero(size == least)
        keep = size >= least
        keep.flat[equal[spare:]] = False
        spare = max(spare - len(equal), 0)
        out.append(jnp.where(keep, x, 0))
    return out


def _elect_and_merge(tensors: Sequence[Sequence[Array]], weights: Sequence[float]) -> list[Array]:
    """Steps 2 and 3 of TIES; `tensors` has the models' trimmed versions of each tensor."""
    elected = [jnp.sign(_weighted(models, weights)) for models in tensors]
    # int32 per tensor: a float32 sum of signs stops counting at 2^24.
    majority = np.sign(sum(int(jnp.sum(g.astype(jnp.int32))) for g in elected))
    out = []
    for models, g in zip(tensors, elected, strict=True):
        g = jnp.where(g == 0, majority, g)
        agree = [(jnp.sign(d) == g) & (d != 0) for d in models]
        count = _weighted(agree, weights)
        total = _weighted([jnp.where(a, d, 0) for a, d in zip(agree, models, strict=True)], weights)
        out.append(total / jnp.where(count == 0, 1, count))
    return out
