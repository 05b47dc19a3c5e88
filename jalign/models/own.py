"""A user's own flax module where jalign has a `Decoder`: it is trained, scored and sampled from.

The module sees plain rows of token ids. Where a batch shares a prompt among responses
(`jalign.layout`), the rows are gathered, the module runs on them, and each token's state is taken
from its first copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from jalign.kernels.flat import collapse
from jalign.layout import Inverse
from jalign.models.cache import KeysValues, KVCache
from jalign.models.spec import Spec

Hidden = Callable[[Any, Array], Array]
"""(module, tokens [n, T]) -> states [n, T, D]; causal, so that padding on the right is not seen."""

Unembedding = Callable[[Any], Array]
"""(module) -> [D, V]: logits are states @ it."""


class OwnDecoder(nnx.Module):
    """Wraps a module in the interface of a decoder.

    Sampling has no cache of keys and values: each token runs the module on the whole row, which
    costs O(T) more than a `Decoder` does.

    Args:
      module: any flax nnx module; its `nnx.Param` are trained.
      hidden: computes the states of tokens, called with complete rows that start at position 0.
      unembedding: its output matrix.
      vocab_size, width: V and D.
      depth: number of layers, to estimate the cost of a token.
      dtype: in which the head's product is computed.

    Deviations from `Decoder`: no LoRA, quantization, remat or export, which need its layers.
    """

    def __init__(
        self,
        module: nnx.Module,
        *,
        hidden: Hidden,
        unembedding: Unembedding,
        vocab_size: int,
        width: int,
        depth: int = 1,
        dtype: DTypeLike = jnp.float32,
    ):
        self.module, self.hidden, self.unembedding = module, hidden, unembedding
        # The fields that losses, batches and limits read; the rest describes no layer of ours.
        self.spec = Spec(
            vocab_size=vocab_size, width=width, depth=depth, heads=1, kv_heads=1, head_dim=width,
            mlp_width=width, rope=None, tied=False,
        )  # fmt: skip
        self.dtype, self.attention, self.source = dtype, None, None
        self.batch_invariant = False
        self.value, self.lm_head = nnx.data(None), nnx.data(None)

    def __call__(
        self,
        tokens: Int[Array, "S N"],
        positions: Int[Array, "S N"],
        *,
        rows: Int[Array, "S M T"] | None = None,
        inverse: Inverse | None = None,
        cache: KVCache | None = None,
        key: Array | None = None,
    ) -> tuple[Float[Array, "S N D"], KVCache | None]:
        """States of the tokens, as `Decoder.__call__`; `key` is not passed on."""
        del key
        if cache is not None:
            return self._with_cache(tokens, positions, cache)
        if rows is None or inverse is None:
            return self.hidden(self.module, tokens), None
        s, m, t = rows.shape
        copies = jnp.take_along_axis(tokens, rows.reshape(s, -1), 1).reshape(s * m, t)
        states = self.hidden(self.module, copies)
        return collapse(states.reshape(s, m, t, -1), rows, inverse), None

    def head(self) -> tuple[Float[Array, "D V"], int]:
        """The unembedding in the compute dtype, and which of its axes is the vocabulary."""
        return self.unembedding(self.module).astype(self.dtype), 1

    def empty_cache(self, rows: int, slots: int) -> KVCache:
        """The ids of up to `slots` tokens per row, in the place of keys."""
        # The shape of a Decoder's cache, so that samplers repeat and refill it alike.
        ids = jnp.zeros((1, rows, 1, slots, 1), jnp.int32)
        return KVCache(KeysValues(ids, ids), jnp.zeros(rows, jnp.int32), fresh=True)

    def _with_cache(self, tokens: Array, positions: Array, cache: KVCache) -> tuple[Array, KVCache]:
        ids = cache.kv.k[0, :, 0, :, 0]
        each = jnp.arange(ids.shape[0])[:, None]
        slots = jnp.where(positions < 0, ids.shape[1], positions)  # padding is dropped
        ids = ids.at[each, slots].set(tokens, mode="drop")
        # A prefill reads its own tokens only; a later token needs the row before it.
        read = ids[:, : tokens.shape[1]] if cache.fresh else ids
        states = self.hidden(self.module, read)
        if not cache.fresh:
            states = jnp.take_along_axis(states, jnp.maximum(positions, 0)[..., None], 1)
        stored = ids[None, :, None, :, None]
        return states, cache.filled(KeysValues(stored, cache.kv.v), positions)
