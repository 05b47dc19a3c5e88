"""A gated delta net (Yang, Kautz and Hatamizadeh 2024, https://arxiv.org/abs/2412.06464), as in
Qwen3.5: queries, keys and values pass a short causal convolution, the gated delta rule
(`jalign.kernels.delta_rule`) stands in the place of attention, and its output is normalized and
gated.

Shape letters: S streams, N tokens per stream, n = S * N, B rows, T tokens per row, W features of
the convolution, c its tokens, G, H, K, V as in `DeltaNet`, D width.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jalign.kernels.delta_rule import gated_delta_rule
from jalign.kernels.flat import collapse, expand
from jalign.layout import Inverse
from jalign.models.delta.spec import DeltaNet
from jalign.models.linear import Linear, split_key


class DeltaState(NamedTuple):
    """What a row keeps of its tokens, by layers that are gated delta nets.

    Attributes:
      conv: the last c - 1 inputs of the convolution [L, B, c - 1, W].
      state: of the delta rule, float32 [L, B, H, K, V].
    """

    conv: Array
    state: Array

    @classmethod
    def empty(cls, sizes: DeltaNet, layers: int, rows: int, dtype: Any) -> DeltaState:
        """Before the first token."""
        heads = (sizes.value_heads, sizes.key_dim, sizes.value_dim)
        return cls(
            jnp.zeros((layers, rows, sizes.conv - 1, sizes.conv_width), dtype),
            jnp.zeros((layers, rows, *heads), jnp.float32),
        )


class GatedNorm(nnx.Module):
    """x / rms(x) * w * silu(gate) over the last axis, in float32."""

    def __init__(self, size: int, *, eps: float, layers: int, param_dtype: Any):
        self.weight = nnx.Param(jnp.ones((layers, size), param_dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "... V"], gate: Float[Array, "... V"]) -> Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + self.eps)
        y = y * self.weight[...].astype(jnp.float32)
        return (y * jax.nn.silu(gate.astype(jnp.float32))).astype(x.dtype)


class GatedDeltaNet(nnx.Module):
    """q, k, v, z, a, b = x W; q, k, v = silu(conv(q, k, v)); y = norm(rule(q, k, v), z) W_o.

    Queries and keys have length 1 (queries K^-1/2), the step is sigmoid(b), and the logarithm of
    the decay -exp(a_log) * softplus(a + a_bias).
    """

    def __init__(self, width: int, sizes: DeltaNet, *, eps: float, layers: int, **types):
        linear = functools.partial(Linear, width, layers=layers, **types)
        self.q, self.k = linear(sizes.key_width), linear(sizes.key_width)
        self.v, self.z = linear(sizes.value_width), linear(sizes.value_width)
        self.a, self.b = linear(sizes.value_heads), linear(sizes.value_heads)
        self.o = Linear(sizes.value_width, width, layers=layers, **types)
        dtype = types["param_dtype"]
        # One tap per token and feature; the current token alone, until it is trained.
        taps = jnp.zeros((layers, sizes.conv_width, 1, sizes.conv), dtype).at[..., -1].set(1)
        self.conv = nnx.Param(taps)
        self.a_log = nnx.Param(jnp.zeros((layers, sizes.value_heads), dtype))
        self.a_bias = nnx.Param(jnp.ones((layers, sizes.value_heads), dtype))
        self.norm = GatedNorm(sizes.value_dim, eps=eps, layers=layers, param_dtype=dtype)
        self.sizes = sizes

    def __call__(
        self,
        x: Float[Array, "n D"],
        positions: Int[Array, "S N"],
        rows: Int[Array, "S M T"] | None,
        inverse: Inverse | None,
        memory: DeltaState | None,
        layer: Array | int,
        key: Array | None,
    ) -> tuple[Float[Array, "n D"], DeltaState | None]:
        keys, streams = split_key(key, 7), positions.shape
        linears = (self.q, self.k, self.v, self.z, self.a, self.b)
        q, k, v, z, a, b = (
            linear(x, key).reshape(*streams, -1) for linear, key in zip(linears, keys, strict=False)
        )
        mixed = jnp.concatenate((q, k, v), -1)
        rate = jnp.exp(self.a_log[...].astype(jnp.float32))
        bias = self.a_bias[...].astype(jnp.float32)
        decay = -rate * jax.nn.softplus(a.astype(jnp.float32) + bias)
        step = jax.nn.sigmoid(b.astype(jnp.float32))
        if memory is not None:
            y, memory = self._from_cache(mixed, decay, step, positions, memory, layer)
        elif rows is not None and inverse is not None:
            s, m, t = rows.shape
            gathered = (
                expand(p, rows, inverse).reshape(s * m, t, -1) for p in (mixed, decay, step)
            )
            y = self._on_rows(*gathered)[0]
            y = collapse(y.reshape(s, m, t, *y.shape[2:]), rows, inverse)
        else:
            y, _ = self._on_rows(mixed, decay, step)
        y = self.norm(y.astype(x.dtype), z.reshape(y.shape))
        return self.o(y.reshape(x.shape[0], -1), keys[6]), memory

    def _from_cache(
        self, mixed: Array, decay: Array, step: Array, positions: Array, memory: DeltaState, layer
    ) -> tuple[Array, DeltaState]:
        """Continue rows from what they keep; padding, to the right, changes nothing of it."""
        real = (positions >= 0)[..., None]
        decay, step = (jnp.where(real, p, 0.0) for p in (decay, step))
        before = memory.conv[layer].astype(mixed.dtype)
        inputs = jnp.concatenate((before, mixed), 1)
        y, state = self._on_rows(inputs, decay, step, memory.state[layer])
        # The last inputs that are not padding.
        last = real.sum(1) + jnp.arange(before.shape[1])
        kept = jnp.take_along_axis(inputs, last[..., None], 1).astype(memory.conv.dtype)
        return y, DeltaState(memory.conv.at[layer].set(kept), memory.state.at[layer].set(state))

    def _on_rows(
        self, mixed: Float[Array, "B t W"], decay: Array, step: Array, state: Array | None = None
    ) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
        """Outputs and last states of rows; `mixed` may have c - 1 inputs from before the row."""
        sizes, (rows, tokens) = self.sizes, decay.shape[:2]
        missing = tokens + sizes.conv - 1 - mixed.shape[1]
        mixed = jnp.pad(mixed, ((0, 0), (missing, 0), (0, 0)))
        # float32 from here to the output, as the state is.
        mixed, taps = mixed.astype(jnp.float32), self.conv[...].astype(jnp.float32)[:, 0]
        parts = (taps[:, i] * mixed[:, i : i + tokens] for i in range(sizes.conv))
        mixed = jax.nn.silu(sum(parts, jnp.zeros(())))
        ends = (sizes.key_width, 2 * sizes.key_width)
        q, k, v = jnp.split(mixed, ends, -1)
        q, k = (x.reshape(rows, tokens, sizes.key_heads, -1) for x in (q, k))
        q, k = (x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-6) for x in (q, k))
        v = v.reshape(rows, tokens, sizes.value_heads, -1)
        return gated_delta_rule(q * sizes.key_dim**-0.5, k, v, decay, step, state)
