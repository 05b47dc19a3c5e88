"""One layer of the decoder: attention and MLP, each with norms and a residual connection.

Tokens are one axis [n = S * N, D] everywhere but inside attention. Shape letters: S streams, N
tokens per stream, M rows per stream, T tokens per row, H heads, G key/value heads, C head dim, D
width.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from jalign.kernels import splash_layout
from jalign.kernels.attention import attention, cached_attention
from jalign.kernels.flat import collapse, expand
from jalign.kernels.remat import RESIDUAL
from jalign.layout import Inverse
from jalign.models import stacks
from jalign.models.cache import KeysValues, Memory, write
from jalign.models.delta.net import GatedDeltaNet
from jalign.models.experts.sparse import SparseMLP
from jalign.models.linear import Linear, split_key
from jalign.models.mlp import MLP
from jalign.models.norms import Norm
from jalign.models.rope import Rope, Rotation
from jalign.models.rotate import Turn, rotate, rotate_by_product, rotate_in_one_pass
from jalign.models.spec import LayerType, Spec
from jalign.parallel.axes import BATCH_AXES, CONTEXT, HEAD_AXES
from jalign.parallel.rules import constrain, ways

Cached = KeysValues | Memory | None


class AttentionInputs(NamedTuple):
    """Positions and layout of the tokens of a call; the same for every layer.

    Attributes:
      positions: [S, N].
      tables: every rotary embedding in use at these positions.
      row_tables: the same by rows [S * M, T], for a kernel whose rows are rotated after they are
        gathered (splash), else None.
      rows, inverse: of a flat stream (`jalign.layout`), else None.
      fresh: with a cache, whether it was empty.
      replayed: experts to use, for every layer, instead of the router's own (-1 keeps those).
    """

    positions: Int[Array, "S N"]
    tables: dict[Rope, Rotation]
    row_tables: dict[Rope, Rotation] | None
    rows: Int[Array, "S M T"] | None
    inverse: Inverse | None
    fresh: bool
    replayed: Int[Array, "L n k"] | None = None


class Attention(nnx.Module):
    def __init__(self, spec: Spec, *, layers: int, **types):
        q_width, kv_width = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        linear = functools.partial(Linear, layers=layers, **types)
        gates = 2 if spec.attn_gate else 1
        self.q = linear(spec.width, gates * q_width, bias=spec.qkv_bias)
        self.k = linear(spec.width, kv_width, bias=spec.qkv_bias)
        self.v = linear(spec.width, kv_width, bias=spec.qkv_bias)
        self.o = linear(q_width, spec.width, bias=spec.o_bias)
        norm = functools.partial(Norm, spec, layers=layers, param_dtype=types["param_dtype"])
        sizes = (q_width, kv_width) if spec.qk_norm_over == "width" else (spec.head_dim,) * 2
        self.q_norm = nnx.data(norm(sizes[0]) if spec.qk_norm else None)
        self.k_norm = nnx.data(norm(sizes[1]) if spec.qk_norm else None)
        sinks = jnp.zeros((layers, spec.heads), types["param_dtype"]) if spec.attn_sinks else None
        self.sinks = nnx.data(None if sinks is None else nnx.Param(sinks))
        self.spec = spec

    def options(self, layer_type: LayerType) -> dict[str, Any]:
        """The arguments of `jalign.kernels.attention.attention` beside the arrays of tokens."""
        spec, sinks = self.spec, None if self.sinks is None else self.sinks[...]
        options = {"scale": spec.scale, "window": layer_type.window}
        return {**options, "softcap": spec.attn_softcap, "sinks": sinks}

    def __call__(
        self,
        x: Float[Array, "n D"],
        inputs: AttentionInputs,
        layer_type: LayerType,
        implementation: str,
        kv: KeysValues | None,
        layer: Array | int,
        key: Array | None,
    ) -> tuple[Float[Array, "n D"], KeysValues | None]:
        spec, streams = self.spec, inputs.positions.shape
        keys = split_key(key, 4)
        q, k, v = (
            linear(x, key).reshape(*streams, heads, -1)
            for linear, key, heads in zip(
                (self.q, self.k, self.v),
                keys,
                (spec.heads, spec.kv_heads, spec.kv_heads),
                strict=False,
            )
        )
        q, gate = jnp.split(q, 2, -1) if spec.attn_gate else (q, None)
        q, k = self.normed(q, k)
        if inputs.row_tables is None:
            q, k = self.rotated(q, k, layer_type, inputs.tables)
        if kv is None:
            q, k, v = _by_heads(q, k, v)
        options = self.options(layer_type)

        def on_rows(q: Array, k: Array, v: Array) -> Array:
            if inputs.row_tables is not None:
                turn = rotate_by_product if splash_layout.by_lanes(q, k) else rotate_in_one_pass
                q, k, v = splash_layout.as_read(q, k, v)
                q, k = self.rotated(q, k, layer_type, inputs.row_tables, turn)
            return attention(q, k, v, implementation=implementation, **options)

        if kv is not None:
            kv = write(kv, layer, k, v, inputs.positions, inputs.fresh)
        if inputs.rows is not None and inputs.inverse is not None:
            y = _on_flat_stream(on_rows, (q, k, v), inputs.rows, inputs.inverse)
        # A prefill sees its own tokens only: the training kernel skips the empty rest of the cache.
        elif kv is None or inputs.fresh:
            y = on_rows(q, k, v)
        else:
            k, v = (all_[layer].astype(q.dtype) for all_ in kv)
            y = cached_attention(q, k, v, inputs.positions, **options)
        if gate is not None:
            y = y * jax.nn.sigmoid(gate).reshape(y.shape)
        return self.o(y.reshape(x.shape[0], -1), keys[3]), kv

    def normed(self, q: Array, k: Array) -> tuple[Array, Array]:
        """Queries and keys [S, N, heads, C], normalized where the model does that: before the
        rotation, as in Qwen 3 and Gemma 3, and in a stream, which has fewer tokens than its rows.
        """
        if self.q_norm is None or self.k_norm is None:
            return q, k
        return self._normed(self.q_norm, q), self._normed(self.k_norm, k)

    def rotated(
        self,
        q: Array,
        k: Array,
        layer_type: LayerType,
        tables: dict[Rope, Rotation],
        turn: Turn = rotate,
    ) -> tuple[Array, Array]:
        """Queries and keys, rotated."""
        if layer_type.rope is None:
            return q, k
        return layer_type.rope.rotate(q, k, tables[layer_type.rope], turn)

    def _normed(self, norm: Norm, x: Float[Array, "S N H C"]) -> Float[Array, "S N H C"]:
        s, n, *sizes = x.shape
        if self.spec.qk_norm_over == "width":
            return norm(x.reshape(s, n, -1)).reshape(x.shape)
        # By eight tokens, which lie together in a TPU's tiles of [n, H * C]: no copy.
        return norm(x.reshape(s, n // 8, 8, *sizes) if n % 8 == 0 else x).reshape(x.shape)


def _by_heads(q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """[S, N, heads, C] resharded from tokens to heads where the mesh splits streams, the exchange
    of DeepSpeed-Ulysses (https://arxiv.org/abs/2309.14509). Keys and values are repeated if they
    have too few heads.
    """
    if ways(CONTEXT) == 1:
        return q, k, v
    parts, groups = ways(*HEAD_AXES), k.shape[2]
    times = parts // math.gcd(parts, groups)
    if q.shape[2] % (groups * times) == 0:
        k, v = jnp.repeat(k, times, axis=2), jnp.repeat(v, times, axis=2)
    q, k, v = (constrain(x, BATCH_AXES, None, HEAD_AXES, None) for x in (q, k, v))
    return q, k, v


def _on_flat_stream(on_rows, qkv: tuple[Array, ...], rows: Array, inverse: Inverse) -> Array:
    """Attention of [S, N, heads, C] streams on the rows gathered from them."""
    s, m, t = rows.shape
    y = on_rows(*(expand(a, rows, inverse).reshape(s * m, t, *a.shape[2:]) for a in qkv))
    return collapse(y.reshape(s, m, t, *y.shape[2:]), rows, inverse)


class Layer(nnx.Module):
    """x + attn(norm x), then x + mlp(norm x), or x + attn(norm x) + mlp(norm x) in parallel;
    parameters of all layers are stacked on a leading axis L.
    """

    def __init__(self, spec: Spec, *, layers: int, **types):
        norm = functools.partial(
            Norm, spec, spec.width, layers=layers, param_dtype=types["param_dtype"]
        )
        self.attn_norm = nnx.data(norm() if spec.pre_norms else None)
        self.attn = nnx.data(Attention(spec, layers=len(spec.layers_of("attn")), **types))
        self.delta = nnx.data(None)
        if spec.delta is not None:
            count = len(spec.layers_of("delta"))
            options = {"eps": spec.norm_eps, "layers": count, **types}
            self.delta = nnx.data(GatedDeltaNet(spec.width, spec.delta, **options))
        self.post_attn_norm = nnx.data(norm() if spec.post_norms else None)
        own = spec.pre_norms and not spec.parallel
        self.mlp_norm = nnx.data(norm() if own else None)
        self.mlp = _make_mlp(spec, activation=spec.activation, layers=layers, **types)
        self.post_mlp_norm = nnx.data(norm() if spec.post_norms else None)
        self.spec = spec

    def __call__(
        self,
        x: Float[Array, "n D"],
        inputs: AttentionInputs,
        layer_type: LayerType,
        implementation: str,
        kv: Cached,
        layer: Array | int,
        key: Array | None,
    ) -> tuple[Float[Array, "n D"], Cached, Float[Array, "n E"] | None]:
        """The output, the cache, and the router's logits if there are experts."""
        attn_key, mlp_key = split_key(key, 2)
        y, kv = self.mix(
            self.attn_input(x), inputs, layer_type, implementation, kv, layer, attn_key
        )
        replayed = None if inputs.replayed is None else inputs.replayed[layer]
        x, logits = self.add(x, y, mlp_key, replayed)
        return x, kv, logits

    def mix(
        self,
        x: Float[Array, "n D"],
        inputs: AttentionInputs,
        layer_type: LayerType,
        implementation: str,
        kv: Cached,
        layer: Array | int,
        key: Array | None,
    ) -> tuple[Float[Array, "n D"], Cached]:
        """The output of attention, or of a gated delta net, and the cache."""
        if self.delta is None and not isinstance(kv, Memory):
            return self.attn(x, inputs, layer_type, implementation, kv, layer, key)
        attn, delta = kv if isinstance(kv, Memory) else (None, None)
        layer = jnp.array(stacks.cache_indices(self.spec))[layer]
        if layer_type.delta:
            flat = (inputs.rows, inputs.inverse)
            y, delta = self.delta(x, inputs.positions, *flat, delta, layer, key)
        else:
            y, attn = self.attn(x, inputs, layer_type, implementation, attn, layer, key)
        return y, None if kv is None else Memory(attn, delta)

    def attn_input(self, x: Float[Array, "n D"]) -> Float[Array, "n D"]:
        """What attention reads, and a parallel MLP."""
        return x if self.attn_norm is None else self.attn_norm(x)

    def add(
        self,
        x: Float[Array, "n D"],
        y: Float[Array, "n D"],
        mlp_key: Array | None,
        replayed: Int[Array, "n k"] | None = None,
    ) -> tuple[Float[Array, "n D"], Float[Array, "n E"] | None]:
        """x with the output y of attention, and then with that of the MLP; the router's logits."""
        if self.spec.parallel:
            # The norm again: it costs less than carrying its output through attention.
            z, logits = self._mlp(self.attn_input(x), mlp_key, replayed)
            return x + self._output(None, y + z), logits
        x = checkpoint_name(x + self._output(self.post_attn_norm, y), RESIDUAL)
        z = x if self.mlp_norm is None else self.mlp_norm(x)
        z, logits = self._mlp(z, mlp_key, replayed)
        return x + self._output(self.post_mlp_norm, z), logits

    def _mlp(
        self, x: Float[Array, "n D"], key: Array | None, replayed: Int[Array, "n k"] | None
    ) -> tuple[Float[Array, "n D"], Float[Array, "n E"] | None]:
        if isinstance(self.mlp, SparseMLP):
            return self.mlp(x, key, replayed)
        return self.mlp(x, key), None

    def _output(self, norm: Norm | None, y: Float[Array, "n D"]) -> Float[Array, "n D"]:
        """What is added to the residual stream."""
        y = y if norm is None else norm(y)
        scale = self.spec.residual_scale
        return y if scale == 1.0 else (y * scale).astype(y.dtype)


def _make_mlp(spec: Spec, **options) -> MLP | SparseMLP:
    if spec.experts is not None:
        return SparseMLP(spec.width, spec.experts, **options)
    return MLP(spec.width, spec.mlp_width, gated=spec.gated, bias=spec.mlp_bias, **options)
