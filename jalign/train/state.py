"""The training state on the mesh: its shardings, its creation, and the reference copy."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import GetAttrKey
from jax.typing import DTypeLike
from jaxtyping import PyTree

from jalign.core import Algorithm, TrainState
from jalign.parallel.memory import on_host
from jalign.parallel.paths import path_name
from jalign.parallel.rules import split_like, tensor_only
from jalign.train.step import create_state

_MATRIX = re.compile(r"(kernel|embed\.weight|positions\.weight|lora\.[ab])$")


def state_shardings(
    mesh: Mesh, abstract: TrainState, params: PyTree, *, offload: bool = False
) -> TrainState:
    """Optimizer moments are sharded like their parameters; everything else is replicated.

    A leaf belongs to a parameter if its path ends like the parameter's and the shapes are equal.
    The
    codes of 8-bit moments have the parameter's path and shape too; their scales are split like it
    where the mesh divides them. With `offload` the optimizer's arrays are in host memory.
    """
    by_name = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    by_name |= {name.removeprefix("policy."): leaf for name, leaf in by_name.items()}  # a reference

    def place(path: tuple, leaf: Any) -> NamedSharding:
        name = path_name(path).removesuffix(".codes").removesuffix(".scales")
        while name and name not in by_name:
            name = name.partition(".")[2]
        if name and by_name[name].shape == leaf.shape:
            return by_name[name].sharding
        if name and path[-1] == GetAttrKey("scales"):
            return split_like(by_name[name].sharding, leaf.shape)
        return NamedSharding(mesh, PartitionSpec())

    shardings = jax.tree_util.tree_map_with_path(place, abstract)
    if not offload:
        return shardings
    host = jax.tree.map(
        lambda x, s: on_host(s) if x.ndim else s, abstract.opt_state, shardings.opt_state
    )
    return replace(shardings, opt_state=host)


def init_state(
    mesh: Mesh,
    params: PyTree,
    optimizer: optax.GradientTransformation,
    algorithm: Algorithm,
    seed: int,
    *,
    offload: bool = False,
    **hyper: float,
) -> TrainState:
    """The state before the first step, created in its shardings; `params` are float32 masters."""
    create = _creator(optimizer, algorithm, seed, **hyper)
    abstract = abstract_state(mesh, params, optimizer, algorithm, seed, offload=offload, **hyper)
    create, held = _with_held_arrays(create, mesh, params)
    # Created in its shardings: no device ever holds more than its part.
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(create, out_shardings=shardings)(params, held)


def _with_held_arrays(
    create: Callable[[PyTree], TrainState], mesh: Mesh, params: PyTree
) -> tuple[Callable[[PyTree, list[jax.Array]], TrainState], list[jax.Array]]:
    """`create` as a function of the arrays on the mesh, too, that the optimizer's `init` closes
    over, and these arrays.

    They may be as large as the model, and `jax.jit` would write them into the program; it refuses
    those that lie on several hosts.
    """
    traced, out = jax.make_jaxpr(create, return_shape=True)(params)
    devices = set(mesh.devices.flat)
    here = [isinstance(x, jax.Array) and x.sharding.device_set == devices for x in traced.consts]

    def call(params: PyTree, held: list[jax.Array]) -> TrainState:
        given = iter(held)
        consts = [next(given) if i else x for i, x in zip(here, traced.consts, strict=True)]
        leaves = jax.core.eval_jaxpr(traced.jaxpr, consts, *jax.tree.leaves(params))
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return call, [x for i, x in zip(here, traced.consts, strict=True) if i]


def abstract_state(
    mesh: Mesh,
    params: PyTree,
    optimizer: optax.GradientTransformation,
    algorithm: Algorithm,
    seed: int,
    *,
    offload: bool = False,
    **hyper: float,
) -> TrainState:
    """The result of `init_state` as shapes with shardings; `params` may be shapes too."""
    create = _creator(optimizer, algorithm, seed, **hyper)
    abstract = jax.eval_shape(create, params)
    return abstract_in(abstract, state_shardings(mesh, abstract, params, offload=offload))


def abstract_in(tree: PyTree, shardings: PyTree) -> PyTree:
    """Shapes of arrays with these shardings."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def _creator(
    optimizer: optax.GradientTransformation, algorithm: Algorithm, seed: int, **hyper: float
) -> Callable[[Any], TrainState]:
    def create(params: PyTree) -> TrainState:
        # bfloat16 masters would swallow small updates.
        params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
        return create_state(params, optimizer, algorithm, jax.random.key(seed), **hyper)

    return create


def reference_copy(params: PyTree, dtype: DTypeLike) -> PyTree:
    """A frozen copy of the trainable parameters.

    Matrices are stored in the compute dtype, to which the model casts them anyway: the reference
    equals the policy of step 0 bit for bit, in half the memory if that dtype is bfloat16. For equal
    results of both see `jalign.kernels.compiler_options`.
    """
    copy = partial(_copy, dtype=dtype)
    return jax.jit(copy, out_shardings=jax.tree.map(lambda x: x.sharding, params))(params)


def abstract_reference(params: PyTree, dtype: DTypeLike) -> PyTree:
    """The result of `reference_copy` as shapes with shardings; `params` may be shapes too."""
    shardings = jax.tree.map(lambda x: x.sharding, params)
    return abstract_in(jax.eval_shape(partial(_copy, dtype=dtype), params), shardings)


def gathered_copy_fn(params: PyTree, dtype: DTypeLike) -> tuple[Callable[[PyTree], PyTree], PyTree]:
    """A function that copies parameters for sampling, and the shapes of its result: as
    `reference_copy`, but split over `tensor` only, so that sampling a token gathers nothing.
    Parameters that are so already are not copied.
    """
    shardings = jax.tree.map(lambda x: tensor_only(x.sharding), params)
    copies = abstract_in(jax.eval_shape(partial(_copy, dtype=dtype), params), shardings)
    before, structure = jax.tree.flatten(params)
    after = jax.tree.leaves(copies)
    changed = [i for i, (x, y) in enumerate(zip(before, after, strict=True)) if not _same(x, y)]
    cast = jax.jit(
        lambda leaves: [x.astype(after[i].dtype) for x, i in zip(leaves, changed, strict=True)],
        out_shardings=[after[i].sharding for i in changed],
    )

    def gathered(params: PyTree) -> PyTree:
        leaves = jax.tree.leaves(params)
        for i, x in zip(changed, cast([leaves[i] for i in changed]), strict=True):
            leaves[i] = x
        return jax.tree.unflatten(structure, leaves)

    for i in set(range(len(before))) - set(changed):
        after[i] = before[i]
    return gathered, jax.tree.unflatten(structure, after)


def _same(x: jax.Array, y: jax.ShapeDtypeStruct) -> bool:
    return x.dtype == y.dtype and x.sharding.is_equivalent_to(y.sharding, x.ndim)


def _copy(params: PyTree, dtype: DTypeLike) -> PyTree:
    def one(path: tuple, x: jax.Array) -> jax.Array:
        # A copy even of the same dtype: jit returns an unchanged argument as the same buffer, and
        # the next step donates the policy's.
        return jnp.astype(x, dtype if _MATRIX.search(path_name(path)) else x.dtype, copy=True)

    return jax.tree_util.tree_map_with_path(one, params)
