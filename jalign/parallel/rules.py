"""Sharding rules: regular expressions on parameter paths -> PartitionSpec.

The default is Megatron's (Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053): a layer's first
matrices are split by column over `tensor`, its last by row, so that attention heads and MLP
features stay on their device and each half of a layer needs one all-reduce; the other dimension is
split over `fsdp` and `context`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from jalign.parallel.axes import EXPERT, FSDP_AXES, STORE_AXES, TENSOR
from jalign.parallel.paths import path_name

Rules = Sequence[tuple[str, P]]

# Matched from the end of a path, as in "layers.attn.q.kernel"; the first that matches counts.
# Layers are stacked on axis 0.
FIRST = r"layers\.(attn\.[qkv]|delta\.[qkvzab]|mlp\.(shared\.)?(gate|up))"
LAST = r"layers\.((attn|delta)\.o|mlp\.(shared\.)?down)"
EXPERTS = r"layers\.mlp\.experts"
STORED = r"kernel(\.parts\.(codes|scales))?"
DEFAULT: Rules = (
    (rf"{FIRST}\.{STORED}", P(None, FSDP_AXES, TENSOR)),
    (rf"{FIRST}\.bias", P(None, TENSOR)),
    (rf"{LAST}\.{STORED}", P(None, TENSOR, FSDP_AXES)),
    # Split such that x A B lands where x W does; the rank is too small to split.
    (rf"{FIRST}\.lora\.a", P(None, FSDP_AXES, None)),
    (rf"{FIRST}\.lora\.b", P(None, None, TENSOR)),
    (rf"{LAST}\.lora\.a", P(None, TENSOR, None)),
    (rf"{LAST}\.lora\.b", P(None, None, FSDP_AXES)),
    (rf"{EXPERTS}\.(gate|up)\.{STORED}", P(None, EXPERT, STORE_AXES, TENSOR)),
    (rf"{EXPERTS}\.(gate|up)\.bias", P(None, EXPERT, TENSOR)),
    (rf"{EXPERTS}\.down\.{STORED}", P(None, EXPERT, TENSOR, STORE_AXES)),
    (rf"{EXPERTS}\.down\.bias", P(None, EXPERT, None)),
    (rf"{EXPERTS}\.(gate|up)\.lora\.a", P(None, EXPERT, STORE_AXES, None)),
    (rf"{EXPERTS}\.(gate|up)\.lora\.b", P(None, EXPERT, None, TENSOR)),
    (rf"{EXPERTS}\.down\.lora\.a", P(None, EXPERT, TENSOR, None)),
    (rf"{EXPERTS}\.down\.lora\.b", P(None, EXPERT, None, STORE_AXES)),
    (rf"{EXPERTS}\..*\.kernel\.parts\.(steps|mean)", P(None, EXPERT)),
    # One step per 16,384 entries, one scale per output: replicating them costs nothing.
    (r"layers\..*\.kernel\.parts\.(steps|mean|channel_scales)", P()),
    (r"layers\.mlp\.(router|shared_gate)\..*", P()),
    (r"layers\.delta\.(conv|a_log|a_bias)", P()),
    (r"embed\.weight", P(TENSOR, FSDP_AXES)),
    (r"positions\.weight", P(None, FSDP_AXES)),
    (r"lm_head\.kernel", P(FSDP_AXES, TENSOR)),
    (rf".*(norm\.(weight|bias)|{LAST}\.bias|attn\.sinks|value\.kernel)", P()),
)

log = logging.getLogger(__name__)


def shardings(mesh: Mesh, abstract_state: PyTree, rules: Rules | None = None) -> PyTree:
    """A NamedSharding for every leaf of a state, in the state's own structure.

    An axis whose size the mesh axes do not divide is not split, and a parameter no rule matches is
    on every device; both are logged, since they cost memory.

    Args:
      mesh: with the axes of `parallel.mesh`.
      abstract_state: an `nnx.State` or any pytree whose paths the rules name; leaves need a shape
        only.
      rules: None is `DEFAULT`. Rules given here must each match something.

    Raises:
      ValueError: a rule that matches nothing, has more axes than the parameter, or names an axis
        the mesh does not have.
    """
    user_rules, rules = rules, DEFAULT if rules is None else rules
    leaves, structure = jax.tree_util.tree_flatten_with_path(abstract_state)
    used, out = set(), []
    for path, leaf in leaves:
        name = path_name(path)
        rule = next((rule for rule in rules if re.fullmatch(rf"(.*\.)?({rule[0]})", name)), None)
        if rule is None and leaf.shape:
            log.warning("no sharding rule matches %s %s: it is replicated", name, leaf.shape)
        used.add(rule)
        out.append(NamedSharding(mesh, _fit(mesh, name, leaf.shape, rule[1] if rule else P())))
    idle = [pattern for pattern, spec in user_rules or () if (pattern, spec) not in used]
    if idle:
        names = ", ".join(path_name(path) for path, _ in leaves)
        raise ValueError(
            f"sharding rules that match no parameter: {', '.join(idle)}; there is: {names}"
        )
    return jax.tree_util.tree_unflatten(structure, out)


def place(
    module: nnx.Module, mesh: Mesh, rules: Rules | None = None, only: nnx.filterlib.Filter = ...
) -> None:
    """Move the arrays of a module that was made on one device to their `shardings`.

    Args:
      only: the filter of those that are moved; all of them.
    """
    state = nnx.state(module, only)
    nnx.update(module, jax.device_put(state, shardings(mesh, state, rules)))


def default_split(name: str, shape: tuple[int, ...]) -> P:
    """The default split of one layer's part of the stacked parameter `name`, over the mesh in
    scope.
    """
    rule = next(spec for pattern, spec in DEFAULT if re.fullmatch(rf"(.*\.)?({pattern})", name))
    mesh = jax.sharding.get_abstract_mesh()
    axes = zip(rule[1:], shape, strict=False)
    return P(*(axis if size % _ways(mesh, axis) == 0 else None for axis, size in axes))


def split_like(sharding: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
    """The same split for an array with as many axes or more, except axes it does not divide."""
    mesh, axes = sharding.mesh, zip(sharding.spec, shape, strict=False)
    return NamedSharding(mesh, P(*(a if n % _ways(mesh, a) == 0 else None for a, n in axes)))


def tensor_only(sharding: NamedSharding) -> NamedSharding:
    """The same sharding reduced to `tensor` and the experts' own axis: tokens go to experts."""
    spec = [axis if axis in (TENSOR, EXPERT) else None for axis in sharding.spec]
    return NamedSharding(sharding.mesh, P(*spec))


def constrain(x: Array, *axes: str | tuple[str, ...] | None) -> Array:
    """`x` constrained to be split over these axes of the mesh in scope (`jax.set_mesh`) where they
    divide it; `x` itself without a mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(jax.tree.leaves(axes)) <= set(mesh.auto_axes):
        return x
    fits = [
        a if size % _ways(mesh, a) == 0 else None for a, size in zip(axes, x.shape, strict=True)
    ]
    return jax.lax.with_sharding_constraint(x, P(*fits))


def ways(*axes: str) -> int:
    """The product of the sizes of these axes of the mesh in scope; missing axes count 1."""
    mesh = jax.sharding.get_abstract_mesh()
    sizes = {} if mesh.empty else dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True))
    return math.prod(sizes.get(axis, 1) for axis in axes)


def _fit(mesh: Mesh, name: str, shape: tuple[int, ...], spec: P) -> P:
    if len(spec) > len(shape):
        raise ValueError(f"the sharding rule {spec} has more axes than {name} {shape}")
    axes = []
    for axis, size in zip(spec, shape, strict=False):
        if size % _ways(mesh, axis):
            log.warning("%s %s: axis of %d is not split over %s", name, shape, size, axis)
            axis = None
        axes.append(axis)
    return P(*axes)


def _ways(mesh: Any, axis: str | tuple[str, ...] | None) -> int:
    """The product of the sizes of one mesh axis or several."""
    names = (axis,) if isinstance(axis, str) else axis or ()
    for name in names:
        if name not in mesh.shape:
            raise ValueError(
                f"mesh axis {name!r} is unknown; there is: {', '.join(mesh.axis_names)}"
            )
    return math.prod(mesh.shape[name] for name in names)
