"""The decoder: one transformer whose switches (`jalign.models.spec`) make it a Llama, a Gemma, a
GPT-2 or another family (`jalign.models.families`).

Parameters of all layers are stacked on a leading axis and the layers are one `lax.scan`, so
compile time does not grow with depth. Layers of different kinds (Gemma 2 alternates two, Gemma 3
repeats six) are scanned a whole period at a time, which keeps the kind static; layers left over
after the last whole period follow unrolled.

Shape letters: S streams, N tokens per stream, M rows per stream, T tokens per row, L layers, V
vocabulary, D width.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from jalign.core import did_you_mean
from jalign.kernels import devices
from jalign.kernels.backend import choose_attention
from jalign.kernels.flat import expand
from jalign.kernels.remat import REMAT
from jalign.layout import Inverse
from jalign.models import invariant, stacks
from jalign.models.block import AttentionInputs, Layer
from jalign.models.cache import KVCache
from jalign.models.experts import in_place
from jalign.models.experts.linear import layer_matrices
from jalign.models.heads import ScalarHead
from jalign.models.linear import Embed, Linear
from jalign.models.logprobs import unembed
from jalign.models.norms import Norm
from jalign.models.rope import row_lengths
from jalign.models.spec import LayerType, Spec
from jalign.parallel.axes import TOKEN_AXES
from jalign.parallel.memory import to_device
from jalign.parallel.rules import constrain


class Decoder(nnx.Module):
    """A causal language model, or a reward model or critic when it has a scalar head.

    Args:
      spec: the architecture.
      dtype: of activations and products; norms, softmax, rotary angles and logits are always
        float32.
      param_dtype: of the stored parameters.
      remat: what the backward pass recomputes (`jalign.kernels.remat`): none | dots (all but
        matrix products and the output of attention; products of experts, too) | attention (all but
        what attention reads and writes) | attention_output | full (each layer).
      attention: a kernel of `jalign.kernels.attention`, or None for the one that fits the device.
      unroll: whether the scan over layers is unrolled; None unrolls on CPU, where that runs about
        10 % faster.
      value_head: adds `value`, a scalar head; an int sets the number of outputs.
      lm_head: False leaves out the unembedding of an untied model (reward models have none).
      rngs: the stream `params` is used.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: str = "none",
        attention: str | None = None,
        unroll: bool | None = None,
        value_head: bool | int = False,
        lm_head: bool = True,
        rngs: nnx.Rngs,
    ):
        if remat not in REMAT:
            raise ValueError(f"remat={remat!r} is unknown{did_you_mean(remat, REMAT)}")
        types = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.embed = Embed(spec.vocab_size, spec.width, **types)
        learned = spec.learned_positions
        self.positions = nnx.data(Embed(learned, spec.width, **types) if learned else None)
        self.layers = Layer(spec, layers=spec.depth, **types)
        self.final_norm = Norm(spec, spec.width, param_dtype=param_dtype)
        untied = lm_head and not spec.tied
        self.lm_head = nnx.data(Linear(spec.width, spec.vocab_size, **types) if untied else None)
        # Without `dtype`: scores and values are float32 whatever the model computes in.
        scalar = {"param_dtype": param_dtype, "rngs": rngs}
        self.value = nnx.data(
            ScalarHead(spec.width, int(value_head), **scalar) if value_head else None
        )
        self.spec = spec
        self.dtype = dtype
        self.remat = remat
        self.attention = attention
        self.unroll = unroll
        self.batch_invariant = False
        self.replaced: tuple[str, ...] = ()  # tables that are an adapter's: embed, lm_head
        self.source: str | None = None  # JSON of the checkpoint's config, for `hub.save`

    def __call__(
        self,
        tokens: Int[Array, "S N"],
        positions: Int[Array, "S N"],
        *,
        rows: Int[Array, "S M T"] | None = None,
        inverse: Inverse | None = None,
        cache: KVCache | None = None,
        key: Array | None = None,
        replayed: Int[Array, "L S N k"] | None = None,
    ) -> tuple[Float[Array, "S N D"], KVCache | None]:
        """Hidden states after the final norm.

        Without `rows` and `cache` every stream is one right-padded row. With `rows` the streams
        are flat (`jalign.layout`).
        With `cache` the tokens are appended to its rows: a first call on an empty cache is a
        prefill whose rows start at position 0, padding (at negative positions) to the right; later
        calls may give any number of tokens per row.

        Args:
          tokens: ids.
          positions: of each token in its row.
          rows, inverse: both or neither.
          cache: from `KVCache.empty`.
          key: of LoRA's dropout; None disables it.
          replayed: of a mixture, the experts that each token uses in each layer; -1: the router's.

        Returns:
          The hidden states and the cache with the new tokens (None without one).
        """
        call = (tokens, positions, rows, inverse, cache, key, replayed)
        x, cache, _ = self._run(*call, keep=None)
        return self._normed(x), cache

    def with_router(
        self,
        tokens: Int[Array, "S N"],
        positions: Int[Array, "S N"],
        *,
        rows: Int[Array, "S M T"] | None = None,
        inverse: Inverse | None = None,
        cache: KVCache | None = None,
        key: Array | None = None,
        replayed: Int[Array, "L S N k"] | None = None,
    ) -> tuple[Float[Array, "S N D"], KVCache | None, Float[Array, "L S N E"]]:
        """As a call, with the router's logits of every layer.

        Raises:
          ValueError: this model has no experts.
        """
        if self.spec.experts is None:
            raise ValueError("this model has no experts, and so no router")
        call = (tokens, positions, rows, inverse, cache, key, replayed)
        x, cache, logits = self._run(*call, keep="router")
        return self._normed(x), cache, logits.reshape(len(logits), *x.shape[:2], -1)

    def _normed(self, x: Float[Array, "S N D"]) -> Float[Array, "S N D"]:
        norm = functools.partial(invariant.norm, self.final_norm)
        return (norm if self.batch_invariant else self.final_norm)(x)

    def set_batch_invariant(self) -> None:
        """Compute and be sampled from with the same bits in every batch (`models.invariant`).

        Raises:
          ValueError: this model cannot: quantized matrices, angles that depend on a row's length.
        """
        invariant.check(self.spec, layer_matrices(self).values())
        self.batch_invariant = True

    def empty_cache(self, rows: int, slots: int) -> KVCache:
        """A cache for `rows` rows of up to `slots` tokens."""
        return KVCache.empty(self.spec, rows, slots, self.dtype)

    def hidden_by_layer(
        self, tokens: Int[Array, "S N"], positions: Int[Array, "S N"]
    ) -> Float[Array, "{self.spec.depth}+1 S N D"]:
        """The embeddings and each layer's output before the final norm, to locate the first layer
        that differs between two models.
        """
        return self._run(tokens, positions, *[None] * 5, keep="states")[2]

    def logits(self, hidden: Float[Array, "*P D"]) -> Float[Array, "*P V"]:
        """Unnormalized log-probabilities in float32, scaled and soft-capped. For a few positions:
        training never holds all logits.
        """
        weight, vocab_axis = self.head()
        options = {"softcap": self.spec.logit_softcap, "scale": self.spec.logit_scale}
        return unembed(hidden.astype(self.dtype), weight, vocab_axis=vocab_axis, **options)

    def head(self) -> tuple[Array, int]:
        """The unembedding in the compute dtype, and which of its axes is the vocabulary: [V, D]
        and 0 (tied), or [D, V] and 1.
        """
        if self.spec.tied:
            return self.embed.weight[...].astype(self.dtype), 0
        if self.lm_head is None:
            raise ValueError(
                "this model has no unembedding: it was made or loaded as a scalar model"
            )
        return self.lm_head.kernel[...].astype(self.dtype), 1

    def _run(
        self, tokens, positions, rows, inverse, cache, key, replayed, *, keep: str | None
    ) -> Any:
        if (rows is None) != (inverse is None):
            raise ValueError("rows and inverse describe one layout: give both or neither")
        if rows is not None and cache is not None:
            raise ValueError("a cache holds rows, it cannot be used with a flat stream")
        if cache is not None and cache.fresh and tokens.shape[1] > cache.slots:
            raise ValueError(f"{tokens.shape[1]} tokens do not fit a cache of {cache.slots} places")
        x = self.embed(tokens)
        if self.spec.embed_scale is not None:
            # The factor is rounded to the compute dtype, as when Gemma was trained.
            x = x * jnp.asarray(self.spec.embed_scale, self.dtype)
        if self.positions is not None:
            # Padding has negative positions, which would read the table from its end.
            x = x + self.positions(jnp.maximum(positions, 0))
        ropes = {kind.rope for kind in self.spec.kinds if kind.rope is not None}
        lengths = None
        if any(rope.by_length for rope in ropes):
            lengths = (
                row_lengths(positions, rows, inverse)
                if cache is None
                # The cache's size, so that no row changes its angles while it is sampled.
                else jnp.full((positions.shape[0], 1), cache.slots)
            )
        tables = {rope: rope.rotation(positions, self.spec.head_dim, lengths) for rope in ropes}
        inputs = AttentionInputs(
            positions,
            tables,
            self._row_tables(tables, rows, inverse) if cache is None else None,
            rows,
            inverse,
            cache is not None and cache.fresh,
            None if replayed is None else replayed.reshape(len(replayed), -1, replayed.shape[-1]),
        )
        kv = None if cache is None else cache.kv
        flat, kv, seen = self._run_layers(x.reshape(-1, x.shape[-1]), inputs, kv, key, keep)
        if keep == "states":
            seen = jnp.concatenate([x[None], seen.reshape(-1, *x.shape)])
        return flat.reshape(x.shape), None if cache is None else cache.filled(kv, positions), seen

    def _run_layers(self, x, inputs: AttentionInputs, kv, key, keep: str | None) -> Any:
        """Scan over full periods of layers, then run the remaining ones; `x` is [S * N, D]. With
        `keep` also return every layer's output ("states") or logits of its "router".
        """
        spec, period, unroll = self.spec, self.spec.period, self.unroll
        periods = spec.depth // period
        unroll = devices.platform() == "cpu" if unroll is None else unroll
        graphdef, state = nnx.split(self.layers)
        experts = {} if self.batch_invariant else in_place.stacks(self.layers)
        # the last entry: the layer's number
        stacked = (
            state,
            None if key is None else jax.random.split(key, spec.depth),
            jnp.arange(spec.depth),
        )

        def one_layer(i: int, start: int, x, kv, stacked):
            # Sliced here, inside what is recomputed: a slice made outside would be kept for the
            # backward pass, which is a second copy of the weights.
            if period > 1:
                stacked = tuple(stacks.of_layer(spec, x, i, start=start) for x in stacked)
            params, key, number = stacked
            kind = spec.kinds[i]
            implementation = self.attention or self._best_attention(kind)
            layer = nnx.merge(graphdef, params)
            in_place.with_stacks(layer, experts, number)
            run = invariant.run_layer if self.batch_invariant else Layer.__call__
            x, kv, logits = run(layer, x, inputs, kind, implementation, kv, number, key)
            return constrain(x, TOKEN_AXES, None), kv, logits

        def several(carry, stacked, layers: range, scanned: bool) -> Any:
            x, kv = carry
            # An offloaded reference: TPU programs slice host arrays along one axis only.
            stacked = to_device(stacked)
            seen = []
            for i in layers:
                run = functools.partial(one_layer, i, layers.start)
                if kv is None:  # with a cache there is no backward pass
                    # XLA merges recomputation with the forward pass, but not across a loop.
                    run = REMAT[self.remat](run, prevent_cse=not scanned)
                x, kv, logits = run(x, kv, stacked)
                seen.append(x if keep == "states" else logits)
            return (x, kv), jnp.stack(seen) if keep else None

        scanned_layers = stacked
        if period > 1:
            scanned_layers = tuple(stacks.by_period(spec, x, periods) for x in stacked)
        # 24 layers compile in 2.3 CPU-s scanned and 8.1 unrolled. The cache is carried: as scanned
        # input and output it would be copied three times per token (TinyLlama, 64 rows: 1.56 GiB).
        carry, seen = jax.lax.scan(
            functools.partial(several, layers=range(period), scanned=not unroll),
            (x, kv),
            scanned_layers,
            unroll=periods if unroll else 1,
        )
        left = range(periods * period, spec.depth)
        if left:
            rest = tuple(stacks.after(spec, x, left.start) for x in stacked)
            carry, last = several(carry, rest, left, scanned=False)
            seen = jnp.concatenate([seen.reshape(-1, *last.shape[1:]), last]) if keep else None
        elif keep:
            seen = seen.reshape(-1, *seen.shape[2:])
        return *carry, seen

    def _row_tables(self, tables, rows, inverse) -> Any:
        """`tables` by rows, if the kernel rotates rows."""
        attn = [kind for kind in self.spec.kinds if not kind.delta]
        used = {self.attention or self._best_attention(kind) for kind in attn}
        if used != {"splash"}:
            return None
        if rows is None or inverse is None:
            return tables

        def by_row(table: Array) -> Array:
            return expand(table, rows, inverse).reshape(-1, rows.shape[-1], table.shape[-1])

        return {rope: jax.tree.map(by_row, at) for rope, at in tables.items()}

    def _best_attention(self, kind: LayerType) -> str:
        device = devices.built_for()
        name, _ = choose_attention(
            platform=device.platform,
            dtype=self.dtype,
            head_dim=self.spec.head_dim,
            softcap=self.spec.attn_softcap,
            window=kind.window,
            sinks=self.spec.attn_sinks,
            compute_capability=device.capability,
        )
        return name
