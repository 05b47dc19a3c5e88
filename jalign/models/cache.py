"""Keys and values of the tokens a rollout has seen.

The cache of all layers is one array that the scan over layers carries and updates in place; passed
as scanned input and output all of it would be copied for every token. The heads axis precedes the
slots, so that the keys of one head are contiguous.

Shape letters: L layers, B rows, S slots, N new tokens, G key/value heads, C head dim.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, PyTree

from jalign.models.delta.net import DeltaState
from jalign.models.spec import Spec


class KeysValues(NamedTuple):
    """The arrays of a cache, [L, B, G, S, C] each."""

    k: Array
    v: Array


class Memory(NamedTuple):
    """The cache of a model with gated delta nets: keys and values of the layers with attention, the
    states of the others. Of one layer alone, one of them is None.
    """

    attn: KeysValues | None
    delta: DeltaState | None


@struct.dataclass
class KVCache:
    """Slot s of a row holds the key and value of the row's token at position s.

    Attributes:
      kv: the arrays: `KeysValues` or `Memory`, or a tuple of them, one per layer
        (`jalign.rollout.unrolled`).
      lengths: [B] int32 tokens a row holds.
      fresh: nothing has been written, so tokens given now attend to themselves only (static: such
        a call is a prefill and runs the training kernels instead of attention to the whole cache).
    """

    kv: Any
    lengths: Int[Array, " B"]
    fresh: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def empty(cls, spec: Spec, rows: int, slots: int, dtype: DTypeLike) -> KVCache:
        """A cache for `rows` rows of up to `slots` tokens."""
        # Heads before slots: sampling on CPU is 1.6 times as fast as with slots before heads.
        layers = len(spec.layers_of("attn"))
        shape = (layers, rows, spec.kv_heads, slots, spec.head_dim)
        kv: Any = KeysValues(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
        if spec.delta is not None:
            layers = len(spec.layers_of("delta"))
            kv = Memory(kv, DeltaState.empty(spec.delta, layers, rows, dtype))
        return cls(kv, jnp.zeros(rows, jnp.int32), fresh=True)

    @property
    def slots(self) -> int:
        is_one = lambda x: isinstance(x, KeysValues)  # noqa: E731
        arrays = (x for x in jax.tree.leaves(self.kv, is_leaf=is_one) if is_one(x))
        return next(arrays).k.shape[3]

    def filled(self, kv: PyTree, positions: Int[Array, "B N"]) -> KVCache:
        """The cache after tokens at `positions` were written; a row with only negative positions
        keeps its length.
        """
        lengths = jnp.where(positions.max(-1) < 0, self.lengths, positions.max(-1) + 1)
        return KVCache(kv, lengths.astype(jnp.int32), fresh=False)


def write(
    kv: KeysValues,
    layer: Array | int,
    k: Float[Array, "B N G C"],
    v: Float[Array, "B N G C"],
    positions: Int[Array, "B N"],
    fresh: bool,
) -> KeysValues:
    """Write new keys and values at `positions` of a layer; negative positions and those past the
    end are dropped.
    """
    if fresh:  # positions are 0..N-1; what padding writes is overwritten before anything sees it
        start = (layer, 0, 0, 0, 0)
        new = (x.swapaxes(1, 2)[None].astype(kv.k.dtype) for x in (k, v))
        return KeysValues(*map(lambda a, b: jax.lax.dynamic_update_slice(a, b, start), kv, new))
    rows = jnp.arange(k.shape[0])[:, None]
    # A negative index would count from the end; one past the end is dropped.
    slots = jnp.where(positions < 0, kv.k.shape[3], positions)
    new = (x.astype(kv.k.dtype) for x in (k, v))
    return KeysValues(*map(lambda a, b: a.at[layer, rows, :, slots].set(b, mode="drop"), kv, new))
