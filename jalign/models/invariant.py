"""A forward pass whose every bit is a function of a token and those before it in its row.

Floating-point sums depend on their order, and a compiler chooses orders by shape: a token that is
decoded from a cache and the same token in a training batch differ in the last bits, so that an
importance ratio of equal weights is not 1. Here both are computed in loops over tiles of a fixed
size, so that decoding and scoring run the same loop bodies: norms, projections, MLP and head on
tiles of TILE tokens, attention on QUERIES queries of one row and blocks of KEYS keys, in the order
of the keys. Blocks of masked keys add exact zeros. So neither the size of the batch nor padding,
order of rows, layout or slot of the cache changes a bit.

Only the forward pass is such; gradients come from the ordinary operations, which are recomputed.

Shape letters: S streams, N tokens per stream, n = S * N, M rows per stream, T tokens per row, H
heads, G key/value heads, C head dim, D width, V vocabulary, Q queries of a tile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn import logsumexp
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int, PyTree

from jalign.kernels import devices
from jalign.kernels.attention import MASKED, attention
from jalign.kernels.flat import collapse, expand
from jalign.models import logprobs
from jalign.models.block import AttentionInputs, Layer
from jalign.models.cache import KeysValues, write
from jalign.models.linear import linear_layers
from jalign.models.norms import Norm
from jalign.models.quant import Quantized
from jalign.models.spec import LayerType, Spec
from jalign.parallel.axes import BATCH_AXES, MESH_AXES, TOKEN_AXES
from jalign.parallel.rules import ways

if TYPE_CHECKING:
    from jalign.models.decoder import Decoder

# Tokens per tile. A CPU computes a row of a product as fast in small tiles; a matrix unit has 128
# rows, and reading the weights takes longer than so many products.
TILE = {"cpu": 16}
TILE_ELSEWHERE = 128
QUERIES = 8  # per tile: the sublanes of a TPU, and what one step of a CPU's product takes
KEYS = 64  # per block


def tile_size() -> int:
    return TILE.get(devices.platform(), TILE_ELSEWHERE)


def set_batch_invariant(decoder: Decoder) -> None:
    """Let a decoder compute its forward pass, and be sampled from, in this way.

    Raises:
      ValueError: for a model that sees the batch otherwise.
    """
    if any(kind.rope is not None and kind.rope.by_length for kind in decoder.spec.kinds):
        raise ValueError(
            "this model's rotary angles depend on the length of the row, which is unknown while it "
            "is sampled: it cannot be batch-invariant"
        )
    if any(isinstance(x.kernel, Quantized) for x in linear_layers(decoder).values()):
        raise ValueError("a batch-invariant model has no quantized matrices: set model.quant: none")
    decoder.batch_invariant = True


def with_gradient_of(
    ordinary: Callable[..., PyTree], forward: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """`forward`, differentiated as `ordinary`, which computes the same but for rounding."""
    function = jax.custom_vjp(forward)
    function.defvjp(
        lambda *xs: (forward(*xs), xs), lambda xs, cotangent: jax.vjp(ordinary, *xs)[1](cotangent)
    )
    return function


# ---- functions of single tokens


def tiled(fn: Callable[..., PyTree], params: PyTree, *xs: PyTree) -> PyTree:
    """fn(params, *xs) for a function of single tokens, tile by tile.

    Args:
      fn: of arrays with a leading axis of tokens, to arrays with the same; it closes over no
        traced array.
      xs: arrays [n, ...].
    """
    forward = functools.partial(on_each_device, functools.partial(_over_tiles, fn), TOKEN_AXES)
    return with_gradient_of(fn, forward)(params, *xs)


def _over_tiles(fn: Callable[..., PyTree], params: PyTree, *xs: Array) -> PyTree:
    n, size = xs[0].shape[0], tile_size()
    count = -(-n // size)
    xs = tuple(padded(x, 0, size) for x in xs)

    def cut(i: Array | int) -> tuple[Array, ...]:
        return tuple(jax.lax.dynamic_slice_in_dim(x, i * size, size) for x in xs)

    def body(i: Array, out: PyTree) -> PyTree:
        y = fused_alone(fn(params, *fused_alone(cut(i))))
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * size, axis=0)
        return jax.tree.map(put, out, y)

    shapes = jax.eval_shape(lambda: fn(params, *cut(0)))
    empty = jax.tree.map(lambda y: jnp.zeros((count * size, *y.shape[1:]), y.dtype), shapes)
    out = jax.lax.fori_loop(0, unknown(count), body, empty)
    return jax.tree.map(lambda y: y[:n], out)


def padded(x: Array, axis: int, size: int) -> Array:
    """x with zeros behind, up to a multiple of `size`."""
    return jnp.pad(x, [(0, -x.shape[a] % size if a == axis else 0) for a in range(x.ndim)])


def on_each_device(fn: Callable[..., PyTree], axes: Sequence[str], params: PyTree, *xs: Array):
    """fn(params, *xs) with xs split over the mesh in scope along their first axis, if it divides,
    and all of the parameters on every device: a product that is split over devices is added up in
    another order.
    """
    if ways(*MESH_AXES) == 1:
        return fn(params, *xs)
    split = PartitionSpec(tuple(axes)) if xs[0].shape[0] % ways(*axes) == 0 else PartitionSpec()
    specs = (PartitionSpec(), *[split] * len(xs))
    return jax.shard_map(fn, in_specs=specs, out_specs=split, check_vma=False)(params, *xs)


def unknown(count: int) -> Array:
    """A number of passes that the compiler does not know: it would inline a single pass, and fuse
    it with what surrounds it.
    """
    return jax.lax.optimization_barrier(jnp.int32(count))


def fused_alone(x: PyTree) -> PyTree:
    """x, not fused with what reads it."""
    return jax.lax.optimization_barrier(x)


# ---- the decoder


def norm(module: Norm, x: Float[Array, "S N D"]) -> Float[Array, "S N D"]:
    graphdef, params = nnx.split(module)
    flat = tiled(functools.partial(_call, graphdef), params, x.reshape(-1, x.shape[-1]))
    return flat.reshape(x.shape)


def run_layer(
    layer: Layer,
    x: Float[Array, "n D"],
    inputs: AttentionInputs,
    layer_type: LayerType,
    implementation: str,
    kv: KeysValues | None,
    number: Array | int,
    key: Array | None,
) -> tuple[Float[Array, "n D"], KeysValues | None]:
    """As `Layer.__call__`; `implementation` computes the gradient of attention."""
    if key is not None:
        raise ValueError("a batch-invariant model has no dropout: set it to 0")
    spec, streams = layer.attn.spec, inputs.positions.shape
    graphdef, params = nnx.split(layer)
    before = functools.partial(_before, graphdef, layer_type)
    q, k, v = (
        y.reshape(*streams, *y.shape[1:])
        for y in tiled(before, params, x, inputs.positions.ravel())
    )
    on_rows = functools.partial(_of_rows, spec, layer_type.window, implementation)
    if kv is not None:
        kv = write(kv, number, k, v, inputs.positions, inputs.fresh)
    if inputs.rows is not None and inputs.inverse is not None:
        s, m, t = inputs.rows.shape
        rows = (expand(a, inputs.rows, inputs.inverse) for a in (q, k, v))
        y = on_rows(*(a.reshape(s * m, t, *a.shape[3:]) for a in rows))
        y = collapse(y.reshape(s, m, t, *y.shape[2:]), inputs.rows, inputs.inverse)
    elif kv is None or inputs.fresh:
        y = on_rows(q, k, v)
    else:
        k, v = (all_[number].astype(q.dtype) for all_ in kv)
        y = attend(spec, layer_type.window, q, k, v, inputs.positions)
    y = y.reshape(x.shape[0], -1)
    return tiled(functools.partial(_after, graphdef), params, x, y), kv


def _call(graphdef: nnx.GraphDef, params: nnx.State, x: Array) -> Array:
    return nnx.merge(graphdef, params)(x)


def _before(
    graphdef: nnx.GraphDef, layer_type: LayerType, params: nnx.State, x: Array, positions: Array
) -> tuple[Array, Array, Array]:
    """Queries, keys and values [n, heads, C]."""
    module, rope = nnx.merge(graphdef, params), layer_type.rope
    attn, y = module.attn, module.attn_norm(x)
    q, k, v = (
        linear(y).reshape(1, len(x), -1, attn.spec.head_dim) for linear in (attn.q, attn.k, attn.v)
    )
    tables = {} if rope is None else {rope: rope.table(positions[None], attn.spec.head_dim)}
    q, k = attn.rotated(q, k, layer_type, tables)
    return q[0], k[0], v[0]


def _after(graphdef: nnx.GraphDef, params: nnx.State, x: Array, y: Array) -> Array:
    module = nnx.merge(graphdef, params)
    return module.add(x, module.attn.o(y), None)


# ---- attention


def _of_rows(
    spec: Spec, window: int | None, implementation: str, q: Array, k: Array, v: Array
) -> Array:
    """Attention of right-padded rows [B, T, heads, C]."""

    def forward(q: Array, k: Array, v: Array) -> Array:
        positions = jnp.broadcast_to(jnp.arange(q.shape[1]), q.shape[:2])
        return attend(spec, window, q, k.swapaxes(1, 2), v.swapaxes(1, 2), positions)

    options = {"scale": spec.scale, "window": window, "softcap": spec.attn_softcap}
    ordinary = functools.partial(attention, implementation=implementation, **options)
    return with_gradient_of(ordinary, forward)(q, k, v)


def attend(
    spec: Spec,
    window: int | None,
    q: Float[Array, "B N H C"],
    k: Float[Array, "B G S C"],
    v: Float[Array, "B G S C"],
    positions: Int[Array, "B N"],
) -> Float[Array, "B N H C"]:
    """Attention of tokens at `positions` to slots 0 to their own, as `cached_attention`."""
    fn = lambda _, *xs: _attend(spec, window, *xs)  # noqa: E731
    return on_each_device(fn, BATCH_AXES, (), q, k, v, positions)


def _attend(
    spec: Spec, window: int | None, q: Array, k: Array, v: Array, positions: Array
) -> Array:
    b, n, h, c = q.shape
    g, tiles = k.shape[1], -(-n // QUERIES)
    q, positions = padded(q, 1, QUERIES), padded(positions, 1, QUERIES)
    k, v = padded(k, 2, KEYS), padded(v, 2, KEYS)

    def tile(i: Array, out: Array) -> Array:
        row, first = i // tiles, i % tiles * QUERIES
        mine = jax.lax.dynamic_slice(q, (row, first, 0, 0), (1, QUERIES, h, c))
        # The query heads of a group share their keys: they are rows of one product.
        mine = mine.reshape(QUERIES, g, h // g, c).swapaxes(0, 1).reshape(g, -1, c)
        at = jax.lax.dynamic_slice(positions, (row, first), (1, QUERIES))[0]
        # Blocks after the last query add zeros, as masked keys in a block do.
        blocks = jnp.maximum(at.max(), 0) // KEYS + 1
        per_row = jnp.repeat(at, h // g)
        y = _sweep(spec, window, fused_alone(mine), k, v, row, per_row, blocks)
        y = y.reshape(g, QUERIES, h // g, c).swapaxes(0, 1).reshape(1, QUERIES, h, c)
        return jax.lax.dynamic_update_slice(out, y.astype(q.dtype), (row, first, 0, 0))

    return jax.lax.fori_loop(0, unknown(b * tiles), tile, jnp.zeros_like(q))[:, :n]


def _sweep(
    spec: Spec,
    window: int | None,
    q: Float[Array, "G Q C"],
    k: Array,
    v: Array,
    row: Array,
    positions: Int[Array, " Q"],
    blocks: Array,
) -> Float[Array, "G Q C"]:
    """One tile over the blocks of its row's keys: the online softmax of Milakov and Gimelshein
    2018 (https://arxiv.org/abs/1805.02867), float32.
    """
    g, size, c = q.shape

    def body(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top, total, out = carry
        cut = lambda x: jax.lax.dynamic_slice(x, (row, 0, i * KEYS, 0), (1, g, KEYS, c))[0]  # noqa: E731
        keys, values = fused_alone((cut(k), cut(v)))
        slots = i * KEYS + jnp.arange(KEYS)
        seen = slots <= positions[:, None]
        if window is not None:
            seen &= slots > positions[:, None] - window
        z = spec.scale * _product("gqc,gkc->gqk", q, keys)
        if spec.attn_softcap is not None:
            z = spec.attn_softcap * jnp.tanh(z / spec.attn_softcap)
        z = jnp.where(seen, z, MASKED)
        new = jnp.maximum(top, z.max(-1))
        shrink, p = jnp.exp(top - new), jnp.exp(z - new[..., None])
        out = out * shrink[..., None] + _product("gqk,gkc->gqc", p.astype(values.dtype), values)
        return fused_alone((new, total * shrink + p.sum(-1), out))

    zeros = jnp.zeros((g, size), jnp.float32)
    start = (zeros + MASKED, zeros, jnp.zeros((g, size, c), jnp.float32))
    _, total, out = jax.lax.fori_loop(0, blocks, body, start)
    return fused_alone(out / total[..., None])


def _product(axes: str, a: Array, b: Array) -> Array:
    if devices.platform() == "cpu":  # which has no 16-bit product of these axes
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)


# ---- log-probs


def logits(model: Any, hidden: Float[Array, "n D"]) -> Float[Array, "n V"]:
    """As `Decoder.logits`."""
    weight, fn = _head(model)
    return tiled(fn, weight, hidden)


def logps(
    logits: Float[Array, "n V"], ids: Int[Array, " n"], temperature: float
) -> Float[Array, " n"]:
    """log p(id), nats, of the distribution softmax(logits / temperature)."""
    return tiled(functools.partial(_logps, temperature), (), logits, ids)


def token_logps(
    model: Any, hidden: Float[Array, "*S n D"], targets: Int[Array, "*S n"], temperature: float
) -> Float[Array, "*S n"]:
    """`logps` of `logits`, of which one tile exists at a time."""
    weight, fn = _head(model)

    def forward(weight: Array, hidden: Array, targets: Array) -> Array:
        size, width = tile_size(), hidden.shape[-1]
        h, y = padded(hidden.reshape(-1, width), 0, size), padded(targets.ravel(), 0, size)
        out = jax.lax.map(
            # The loops of the sampler, of one pass each: one loop around both would fuse them.
            lambda x: logps(tiled(fn, weight, x[0]), x[1], temperature),
            (h.reshape(-1, size, width), y.reshape(-1, size)),
        )
        return out.ravel()[: targets.size].reshape(targets.shape)

    vocab_axis, softcap, scale = fn.args
    options = {"softcap": softcap, "scale": scale, "temperature": temperature}

    def ordinary(weight: Array, hidden: Array, targets: Array) -> Array:
        return logprobs.token_logps(hidden, weight, targets, vocab_axis=vocab_axis, **options)

    return with_gradient_of(ordinary, forward)(weight, hidden, targets)


def _head(model: Any) -> tuple[Array, functools.partial[Array]]:
    """The unembedding, and the function (it, hidden states) -> logits."""
    (weight, vocab_axis), spec = model.head(), model.spec
    return weight, functools.partial(_logits, vocab_axis, spec.logit_softcap, spec.logit_scale)


def _logits(
    vocab_axis: int, softcap: float | None, scale: float, weight: Array, hidden: Array
) -> Array:
    contracted = (((1,), (1 - vocab_axis,)), ((), ()))
    z = jax.lax.dot_general(hidden, weight, contracted, preferred_element_type=jnp.float32) * scale
    return z if softcap is None else softcap * jnp.tanh(z / softcap)


def _logps(temperature: float, params: tuple[()], z: Array, ids: Array) -> Array:
    del params
    z = z / temperature
    own = jnp.take_along_axis(z, ids[:, None], 1)[:, 0]
    return jnp.minimum(own - logsumexp(z, axis=-1), 0.0)
