"""Sweeps over a head's vocabulary in blocks, so that no [tokens, vocabulary] array ever exists.

The logits are z = cap(scale * h W) / temperature, with cap(x) = softcap * tanh(x / softcap). This
file cuts tokens and vocabulary into blocks, multiplies and joins them; `jalign.models.logprobs`
and `jalign.models.divergence` compute values from the logits.

Shape letters: S streams (may be sharded), Q tokens per stream, D width, V vocabulary; n = S * q
tokens of a token block, b vocabulary entries of a vocabulary block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PyTree, Shaped

from jalign.kernels import devices
from jalign.parallel.axes import TENSOR, TOKEN_AXES

TOKENS = 2048  # per block and device at most
VOCABULARY = 4096  # per block and device at most
# Logits per block and device, about: 8 MiB stay in a CPU's cache; accelerators want products that
# fill them.
LOGITS = {"cpu": 2**21}
LOGITS_ELSEWHERE = 2**23

Carry = TypeVar("Carry")


@dataclass(frozen=True)
class Head:
    """How a head turns hidden states into logits, and how the work is cut. Fixed at trace time.

    Attributes:
      vocab_axis: which axis of the weight is the vocabulary: 0 for [V, D], 1 for [D, V].
      tokens, vocabulary: size of a block, per stream and per shard.
      shards: parts into which the vocabulary axis is split over devices.
    """

    vocab_axis: int
    softcap: float | None
    scale: float
    temperature: float
    tokens: int
    vocabulary: int
    shards: int

    @classmethod
    def of(
        cls,
        hidden: Array,
        weight: Array,
        *,
        vocab_axis: int,
        softcap: float | None = None,
        scale: float = 1.0,
        temperature: float = 1.0,
        block: tuple[int, int] | None = None,
    ) -> Head:
        """For hidden [S, Q, D]; `block` is (tokens, vocabulary entries) per block, None chooses by
        size.

        Raises:
          ValueError: for shapes that do not fit each other.
        """
        if weight.ndim != 2 or vocab_axis not in (0, 1):
            raise ValueError(
                f"vocab_axis is 0 or 1 of a 2-D weight, got {vocab_axis} of {weight.shape}"
            )
        if weight.shape[1 - vocab_axis] != hidden.shape[-1]:
            raise ValueError(
                f"hidden states {hidden.shape} do not fit a head {weight.shape} "
                f"whose vocabulary is axis {vocab_axis}"
            )
        mesh = jax.sharding.get_abstract_mesh()
        size = dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True))
        shards = size.get(TENSOR, 1)
        shards = 1 if weight.shape[vocab_axis] % shards else shards
        streams, tokens = hidden.shape[0], hidden.shape[1]
        replicas = math.prod(size.get(a, 1) for a in TOKEN_AXES)
        streams = max(1, streams // replicas) if streams % replicas == 0 else streams
        entries = weight.shape[vocab_axis] // shards
        if block is None:
            q = -(-tokens // max(1, -(-streams * tokens // TOKENS))) if tokens else 1
            logits = LOGITS.get(devices.platform(), LOGITS_ELSEWHERE)
            most = min(VOCABULARY, max(512, logits // (streams * q)))
            # Equal blocks, in steps of 128 for the sake of matrix units.
            block = q, -(-entries // -(-entries // most) // 128) * 128
        q, v = max(1, min(block[0], tokens)), max(1, min(block[1], entries))
        return cls(vocab_axis, softcap, scale, temperature, q, v, shards)

    # -- logits

    def logits(self, product: Array) -> Array:
        """z from x = h W."""
        x = product * self.scale if self.scale != 1 else product
        x = x if self.softcap is None else self.softcap * jnp.tanh(x / self.softcap)
        return x / self.temperature if self.temperature != 1 else x

    def slope(self, z: Array) -> Array | float:
        """dz / dx at z."""
        slope = self.scale / self.temperature
        if self.softcap is None:
            return slope
        return slope * (1 - jnp.square(z * self.temperature / self.softcap))

    def own(self, weight: Array, ids: Int[Array, " n"]) -> Float[Array, "n D"]:
        """The weights of these entries, float32."""
        w = jnp.take(weight, ids, axis=self.vocab_axis)
        return (w if self.vocab_axis == 0 else w.T).astype(jnp.float32)

    # -- products with a block of the weight, [b, D] or [D, b]; sums are float32

    def times(self, h: Float[Array, "n D"], block: Array) -> Float[Array, "n b"]:
        return _dot(h, block.T if self.vocab_axis == 0 else block)

    def back(self, dx: Float[Array, "n b"], block: Array) -> Float[Array, "n D"]:
        """dx times the block's transpose."""
        return _dot(dx.astype(block.dtype), block if self.vocab_axis == 0 else block.T)

    def outer(self, h: Float[Array, "n D"], dx: Float[Array, "n b"]) -> Array:
        """The gradient of the block."""
        dx = dx.astype(h.dtype)
        return _dot(dx.T, h) if self.vocab_axis == 0 else _dot(h.T, dx)

    # -- the vocabulary

    def parts(self, weight: Array) -> Array:
        """The weight with its vocabulary axis as [shards, V / shards]: free, and slices of the
        second part stay on each device.
        """
        v, d = weight.shape[self.vocab_axis], weight.shape[1 - self.vocab_axis]
        parts = (self.shards, v // self.shards)
        return weight.reshape((*parts, d) if self.vocab_axis == 0 else (d, *parts))

    def write(self, dw: Array, first: Array | int, block: Array) -> Array:
        """Put the gradient of a block into `dw`, shaped as `parts`."""
        axis = self.vocab_axis + 1
        shape = [-1 if i == axis else n for i, n in enumerate(dw.shape)]
        return jax.lax.dynamic_update_slice_in_dim(
            dw, block.reshape(shape).astype(dw.dtype), first, axis
        )

    def ids(self, weight: Array, first: Array | int, size: int) -> Int[Array, " b"]:
        """Vocabulary ids of a block of `size` entries."""
        part = weight.shape[self.vocab_axis] // self.shards
        shards = jnp.arange(self.shards)[:, None] * part
        return (shards + first + jnp.arange(size // self.shards)).reshape(-1)

    # -- the tokens

    def cut(self, x: Array) -> Array:
        """[S, Q, ...] -> [token blocks, n, ...], zeros behind Q. S stays the major axis of n, so
        that it stays sharded.
        """
        s, q = x.shape[:2]
        count = max(1, -(-q // self.tokens))
        if count == 1:
            return x.reshape(1, s * q, *x.shape[2:])
        x = jnp.pad(x, ((0, 0), (0, count * self.tokens - q)) + ((0, 0),) * (x.ndim - 2))
        x = x.reshape(s, count, self.tokens, *x.shape[2:]).swapaxes(0, 1)
        return x.reshape(count, s * self.tokens, *x.shape[3:])

    def join(self, x: Array, s: int, q: int) -> Array:
        """The inverse of `cut`."""
        if x.shape[0] == 1:
            return x.reshape(s, q, *x.shape[2:])
        x = x.reshape(x.shape[0], s, self.tokens, *x.shape[2:]).swapaxes(0, 1)
        return x.reshape(s, -1, *x.shape[3:])[:, :q]


Side = tuple[Head, Array]  # a head and its weight


def sweep(sides: Sequence[Side], body: Callable[..., Carry], carry: Carry) -> Carry:
    """carry = body(carry, first, block of each side) over all blocks; the shorter remainder block
    is processed first.

    A block holds entries first, first + 1, ... of every shard, [b, D] or [D, b]. All heads have the
    same vocabulary and cut it alike.
    """
    size = sides[0][0].vocabulary
    entries = sides[0][1].shape[sides[0][0].vocab_axis] // sides[0][0].shards

    def blocks(first: Any, size: int) -> list[Array]:
        cuts = []
        for head, weight in sides:
            shape = (-1, weight.shape[1]) if head.vocab_axis == 0 else (weight.shape[0], -1)
            cut = jax.lax.dynamic_slice_in_dim(head.parts(weight), first, size, head.vocab_axis + 1)
            cuts.append(cut.reshape(shape))
        return cuts

    full, rest = divmod(entries, size)

    def step(i: Any, carry: Carry) -> Carry:
        return body(carry, i * size, *blocks(i * size, size))

    # Not padded: logits of padding would count in the logsumexp (elsewhere up to 1.5 nat wrong).
    # First, since the loop's result is written in place and what follows a loop copies it.
    if rest:
        carry = body(carry, full * size, *blocks(full * size, rest))
    return jax.lax.fori_loop(0, full, step, carry) if full > 1 else step(0, carry)


def over_blocks(run: Callable[[PyTree], PyTree], blocks: PyTree) -> PyTree:
    """`run` on every token block (leading axis of the leaves), one after another."""
    if jax.tree.leaves(blocks)[0].shape[0] > 1:
        return jax.lax.map(run, blocks)
    one = run(jax.tree.map(lambda x: x[0], blocks))
    return jax.tree.map(lambda x: x[None], one)


def gradients(
    sides: Sequence[Side],
    h: Sequence[Float[Array, "blocks n _"]],
    tokens: dict[str, Shaped[Array, "blocks n"]],
    dz: Callable[..., Float[Array, "n b"]],
    *,
    to_weight: bool,
) -> tuple[Float[Array, "blocks n D"], Array | None]:
    """(dh, dW) of the first side; `dz(tokens [n, 1], first, size, logits of each side)` is the
    gradient by its logits in a block.

    The vocabulary is the outer loop, so each part of dW is made in float32 and written once; dh is
    summed in float32.

    Args:
      h: hidden states of each side, cut into token blocks, like `tokens`, what else `dz` reads.
    """
    head, weight = sides[0]

    def body(carry, first, *blocks):
        dh, dw = carry

        def one(part, both):
            h, tokens, dh = both
            products = zip(sides, h, blocks, strict=True)
            z = [side.logits(side.times(x, block)) for (side, _), x, block in products]
            columns = {name: x[:, None] for name, x in tokens.items()}
            dx = dz(columns, first, z[0].shape[1], *z) * head.slope(z[0])
            part = part + head.outer(h[0], dx) if to_weight else part
            return part, dh + head.back(dx, blocks[0])

        part = jnp.zeros(blocks[0].shape if to_weight else (), jnp.float32)
        if dh.shape[0] > 1:
            part, dh = jax.lax.scan(one, part, (tuple(h), tokens, dh))
        else:
            part, dh = one(part, jax.tree.map(lambda x: x[0], (tuple(h), tokens, dh)))
            dh = dh[None]
        return dh, (head.write(dw, first, part) if to_weight else dw)

    dw = jnp.zeros_like(head.parts(weight)) if to_weight else jnp.zeros(())
    dh, dw = sweep(sides, body, (jnp.zeros(h[0].shape, jnp.float32), dw))
    return dh, (dw.reshape(weight.shape) if to_weight else None)


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)
