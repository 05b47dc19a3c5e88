"""A forward pass whose every bit is a function of a token and those before it in its row.

With an ordinary one a token that is decoded from a cache and the same token in a training batch
differ in their last bits, so that an importance ratio of equal weights is not 1. Here decoding and
scoring run the same loops (`jalign.kernels.tiles`, `jalign.kernels.tiled_attention`), so that
neither the size of the batch nor padding, order of rows, layout or slot of the cache changes a bit.
Gradients come from the ordinary operations, which are computed again for them.

For one v5e, products and float32 reductions of the compiled scorer are all in the compiled sampler,
shape for shape; beside them the sampler has only what draws tokens.

Shape letters: S streams, N tokens per stream, n = S * N, M rows per stream, T tokens per row, H
heads, G key/value heads, C head dim, D width, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn import logsumexp
from jaxtyping import Float, Int

from jalign.kernels.attention import attention
from jalign.kernels.flat import collapse, expand
from jalign.kernels.tiled_attention import tiled_attention
from jalign.kernels.tiles import padded, tile_size, tiled, with_gradient_of
from jalign.models import logprobs
from jalign.models.block import AttentionInputs, Layer
from jalign.models.cache import KeysValues, write
from jalign.models.experts.linear import ExpertLinear
from jalign.models.linear import Linear
from jalign.models.norms import Norm
from jalign.models.quant import Quantized
from jalign.models.spec import LayerType, Spec


def check(spec: Spec, linears: Collection[Linear | ExpertLinear]) -> None:
    """Raise ValueError for a model that cannot be batch-invariant."""
    if any(kind.rope is not None and kind.rope.by_length for kind in spec.kinds):
        raise ValueError(
            "this model's rotary angles depend on the length of the row, which is unknown while it "
            "is sampled: it cannot be batch-invariant"
        )
    if spec.delta is not None or spec.attn_gate:
        raise ValueError(
            "a model with gated delta nets or gated attention cannot be batch-invariant"
        )
    if any(isinstance(linear.kernel, Quantized) for linear in linears):
        raise ValueError("a batch-invariant model has no quantized matrices: set model.quant: none")
    if any(getattr(linear.lora, "dropout", 0) for linear in linears):
        raise ValueError("a batch-invariant model has no dropout: set model.lora.dropout: 0")


def norm(module: Norm, x: Float[Array, "S N D"]) -> Float[Array, "S N D"]:
    """As the module itself."""
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
) -> tuple[Float[Array, "n D"], KeysValues | None, Float[Array, "n E"] | None]:
    """As `Layer.__call__` without dropout; `implementation` computes the gradient of attention."""
    del key
    streams = inputs.positions.shape
    graphdef, params = nnx.split(layer)
    before = functools.partial(_before, graphdef, layer_type)
    q, k, v = (
        y.reshape(*streams, *y.shape[1:])
        for y in tiled(before, params, x, inputs.positions.ravel())
    )
    options = layer.attn.options(layer_type)
    on_rows = functools.partial(_of_rows, options, implementation)
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
        y = tiled_attention(q, k, v, inputs.positions, **options)
    y = y.reshape(x.shape[0], -1)
    replayed = () if inputs.replayed is None else (inputs.replayed[number],)
    x, logits = tiled(functools.partial(_after, graphdef), params, x, y, *replayed)
    return x, kv, logits


def _call(graphdef: nnx.GraphDef, params: nnx.State, x: Array) -> Array:
    return nnx.merge(graphdef, params)(x)


def _before(
    graphdef: nnx.GraphDef, layer_type: LayerType, params: nnx.State, x: Array, positions: Array
) -> tuple[Array, Array, Array]:
    """Queries, keys and values [n, heads, C]."""
    module, rope = nnx.merge(graphdef, params), layer_type.rope
    attn, y = module.attn, module.attn_input(x)
    q, k, v = (
        linear(y).reshape(1, len(x), -1, attn.spec.head_dim) for linear in (attn.q, attn.k, attn.v)
    )
    tables = {} if rope is None else {rope: rope.rotation(positions[None], attn.spec.head_dim)}
    q, k = attn.rotated(*attn.normed(q, k), layer_type, tables)
    return q[0], k[0], v[0]


def _after(
    graphdef: nnx.GraphDef, params: nnx.State, x: Array, y: Array, *replayed: Array
) -> tuple[Array, Array | None]:
    module = nnx.merge(graphdef, params)
    return module.add(x, module.attn.o(y), None, *replayed)


def _of_rows(options: dict[str, Any], implementation: str, q: Array, k: Array, v: Array) -> Array:
    """Attention of right-padded rows [B, T, heads, C]."""
    fixed = {name: value for name, value in options.items() if name != "sinks"}

    def forward(q: Array, k: Array, v: Array, sinks: Array | None) -> Array:
        positions = jnp.broadcast_to(jnp.arange(q.shape[1]), q.shape[:2])
        k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
        return tiled_attention(q, k, v, positions, sinks=sinks, **fixed)

    def ordinary(q: Array, k: Array, v: Array, sinks: Array | None) -> Array:
        return attention(q, k, v, sinks=sinks, implementation=implementation, **fixed)

    # Sinks are an argument, since they have a gradient.
    return with_gradient_of(ordinary, forward)(q, k, v, options["sinks"])


def logits(model: Any, hidden: Float[Array, "n D"]) -> Float[Array, "n V"]:
    """As `Decoder.logits`."""
    weight, options = _head(model)
    return tiled(functools.partial(_unembed, options), weight, hidden)


def logps(
    logits: Float[Array, "n V"], ids: Int[Array, " n"], temperature: float
) -> Float[Array, " n"]:
    """log p(id), nats, of the distribution softmax(logits / temperature)."""
    return tiled(functools.partial(_logps, temperature), (), logits, ids)


def token_logps(
    model: Any,
    hidden: Float[Array, "*S n D"],
    targets: Int[Array, "*S n"],
    temperature: float,
) -> Float[Array, "*S n"]:
    """`logps` of `logits`, of which one tile exists at a time."""
    weight, options = _head(model)
    unembed = functools.partial(_unembed, options)

    def forward(weight: Array, hidden: Array, targets: Array) -> Array:
        size, width = tile_size(), hidden.shape[-1]
        h, y = padded(hidden.reshape(-1, width), 0, size), padded(targets.ravel(), 0, size)
        out = jax.lax.map(
            # The loops of the sampler, of one pass each: one loop around both would fuse them.
            lambda x: logps(tiled(unembed, weight, x[0]), x[1], temperature),
            (h.reshape(-1, size, width), y.reshape(-1, size)),
        )
        return out.ravel()[: targets.size].reshape(targets.shape)

    def ordinary(weight: Array, hidden: Array, targets: Array) -> Array:
        return logprobs.token_logps(hidden, weight, targets, temperature=temperature, **options)

    return with_gradient_of(ordinary, forward)(weight, hidden, targets)


def _head(model: Any) -> tuple[Array, dict[str, Any]]:
    """The unembedding, and how it makes logits."""
    (weight, vocab_axis), spec = model.head(), model.spec
    options = {"softcap": spec.logit_softcap, "scale": spec.logit_scale}
    return weight, {"vocab_axis": vocab_axis, **options}


def _unembed(options: dict[str, Any], weight: Array, hidden: Array) -> Array:
    return logprobs.unembed(hidden, weight, **options)


def _logps(temperature: float, params: tuple[()], z: Array, ids: Array) -> Array:
    del params
    z = z / temperature
    own = jnp.take_along_axis(z, ids[:, None], 1)[:, 0]
    return jnp.minimum(own - logsumexp(z, axis=-1), 0.0)
