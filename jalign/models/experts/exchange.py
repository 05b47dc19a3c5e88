"""Experts over a mesh: a device of `expert` holds some of them, and tokens go to where theirs are.

Every device routes its own tokens. The kernels of its experts are gathered over the axes that only
store them (`fsdp`, `context`), and features inside an expert stay split over `tensor`. Over
`expert` all tokens are gathered, and partial sums are added and scattered back (reduce-scatter): of
P devices each receives P - 1 times its own tokens, and sends as many. An all-to-all of the copies
of a token would carry top_k * (P - 1) / P times as many, which is less only where P > top_k, and
without a capacity its buffers would need room for all tokens on one device just the same. XLA has
no ragged all-to-all on CPU, either, so that tests could not run the program of a TPU.

Buffers of sorted rows have room for all P shares of tokens, of which a device's experts get one on
average; products skip the rest. So P is best small in training, where `fsdp` gathers kernels for
many tokens at once, and large in sampling, where few tokens would not be worth the gathering.
"""

from __future__ import annotations

import jax
from flax import nnx
from jax import Array
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from jalign.models.experts.in_place import StackedKernel
from jalign.models.experts.mlp import ExpertMLPs
from jalign.parallel.axes import EXPERT, MESH_AXES, STORE_AXES, TENSOR, TOKEN_AXES
from jalign.parallel.paths import path_name
from jalign.parallel.rules import default_split, ways

USED = "experts_of_one_in_"
"""Names what computes on a buffer of which one device's experts fill a share, one in so many."""


def on_mesh(
    experts: ExpertMLPs,
    x: Float[Array, "n D"],
    ids: Int[Array, "n k"],
    weights: Float[Array, "n k"],
    key: Array | None,
) -> Float[Array, "n D"]:
    """experts(x, ids, weights, key) over the mesh in scope; partial sums of tokens are added in the
    dtype of x. Dropout differs between meshes.

    Raises:
      ValueError: the axis `expert` does not divide the experts.
    """
    mesh = jax.sharding.get_abstract_mesh()
    # A caller's own shard_map has split the tokens already.
    if ways(*MESH_AXES) == 1 or not set(MESH_AXES) <= set(mesh.auto_axes):
        return experts(x, ids, weights, key)
    count, devices = experts.experts.count, ways(EXPERT)
    if count % devices:
        raise ValueError(f"mesh.expert={devices} does not divide the model's {count} experts")
    graphdef, state = nnx.split(_decoded(experts))
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    splits = [_split(path_name(p), x.shape) for p, x in leaves]
    if not experts.stored_split:
        splits = [P(*(None if axis == STORE_AXES else axis for axis in split)) for split in splits]
    tokens = TOKEN_AXES if len(x) % ways(*TOKEN_AXES) == 0 else None
    inside_split = any(TENSOR in split for split in splits)

    def local(leaves: list[Array], x: Array, ids: Array, weights: Array, key: Array | None):
        leaves = [_gathered(x, split) for x, split in zip(leaves, splits, strict=True)]
        module = nnx.merge(graphdef, jax.tree.unflatten(structure, leaves))
        if tokens:
            gather = lambda x: jax.lax.all_gather(x, EXPERT, tiled=True)  # noqa: E731
            key = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(TOKEN_AXES))
            x, ids, weights = gather(x), gather(ids), gather(weights)
        with jax.named_scope(f"{USED}{devices}"):
            y = module(x, ids, weights, key, jax.lax.axis_index(EXPERT) * (count // devices))
        if inside_split:
            y = jax.lax.psum(y, TENSOR)
        return jax.lax.psum_scatter(y, EXPERT, tiled=True) if tokens else jax.lax.psum(y, EXPERT)

    specs = (splits, P(tokens), P(tokens), P(tokens), P())
    run = jax.shard_map(local, in_specs=specs, out_specs=P(tokens), check_vma=False)
    # In the type of the products: kernels are gathered by every layer.
    casts = [x if "lora" in path_name(p) else _cast(x, experts.gate.dtype) for p, x in leaves]
    return run(casts, x, ids, weights, key)


def with_whole_kernels(graphdef: nnx.GraphDef, state: nnx.State) -> nnx.GraphDef:
    """The definition of a model whose experts were gathered over the axes that only store them: the
    default split would cut them, only to gather them again, in sampling for every token.
    """
    model = nnx.merge(graphdef, state)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ExpertMLPs):
            module.stored_split = False
    return nnx.graphdef(model)


def _split(name: str, shape: tuple[int, ...]) -> P:
    """The split of a parameter of the experts, or of a part of a `StackedKernel`."""
    name = f"layers.mlp.experts.{name}"
    if name.endswith(".kernel.layer"):
        return P()
    if name.endswith(".kernel.stack"):
        split = default_split(name.removesuffix(".stack"), shape[1:])
        return P(None, *(None if axis == STORE_AXES else axis for axis in split))
    return default_split(name, shape)


def _decoded(experts: ExpertMLPs) -> ExpertMLPs:
    """With dense kernels for quantized ones, whose parts cannot be split like them."""
    experts = nnx.clone(experts)
    for linear in (experts.gate, experts.up, experts.down):
        if not isinstance(linear.kernel, nnx.Param | StackedKernel):
            linear.kernel = nnx.Param(linear.kernel[...])
    return experts


def _cast(x: Array, dtype) -> Array:
    return x.astype(dtype) if x.dtype in ("float32", "bfloat16") else x


def _gathered(x: Array, split: P) -> Array:
    """x, no longer split over the axes that only store it."""
    for axis, names in enumerate(split):
        if names == STORE_AXES:
            x = jax.lax.all_gather(x, names, axis=axis, tiled=True)
    return x
