"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864), plain or with fixed
rescaled frequencies. Context extensions: `jalign.models.rope_stretched`.

The first half of the rotated features is rotated against the second, or with `interleaved` every
feature against its neighbor.
Angles are float32 whatever the compute dtype: bfloat16 cannot count beyond 256.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jalign.layout import Inverse
from jalign.models.fields import LATER, StableRepr
from jalign.models.rotate import Turn, rotate


@dataclass(frozen=True)
class Llama3Stretch:
    """Llama 3.1's rescaling: long wavelengths are divided by `factor`, short ones kept, those
    between interpolated.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_tokens: int

    def __call__(self, freqs: np.ndarray) -> np.ndarray:
        turns = self.original_tokens * freqs / (2 * math.pi)  # within the original context
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return freqs * (kept + (1.0 - kept) / self.factor)


@dataclass(frozen=True)
class QueryGrowth:
    """Queries at position p are multiplied by 1 + beta * log(1 + floor(p / tokens)), so that
    attention does not flatten in long rows (Llama 4 and Ministral 3; Nakanishi 2025,
    https://arxiv.org/abs/2501.19399, has the idea).
    """

    beta: float
    tokens: int

    def __call__(self, positions: Int[Array, "*P"]) -> Float[Array, "*P"]:
        # Padding has negative positions.
        steps = jnp.maximum(positions, 0) // self.tokens
        return 1.0 + self.beta * jnp.log1p(steps.astype(jnp.float32))


class Rotation(NamedTuple):
    """A rotary embedding at some positions.

    Attributes:
      cos, sin: float32 [*P, d / 2].
      query_scale: factor of queries, float32 [*P, 1], or None.
    """

    cos: Array
    sin: Array
    query_scale: Array | None


@dataclass(frozen=True, repr=False)
class Rope(StableRepr):
    """Frequencies base ** (-2 i / d) of the d = fraction * C rotated features.

    Attributes:
      base: called rope_theta in checkpoints.
      fraction: share of a head's features that turn (Phi-3's partial_rotary_factor).
      linear: every frequency is divided by this (Gemma 3's global layers).
      llama3: Llama 3.1's rescaling, or None.
      interleaved: features 2 i and 2 i + 1 turn together (Cohere, GLM), not i and i + d / 2.
      query_growth: a factor of queries that grows with the position, or None.
    """

    by_length: ClassVar[bool] = False  # whether angles depend on the length of the row

    base: float = 10000.0
    fraction: float = 1.0
    linear: float = 1.0
    llama3: Llama3Stretch | None = None
    interleaved: bool = field(default=False, metadata=LATER)
    query_growth: QueryGrowth | None = field(default=None, metadata=LATER)

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Radians per position, [d / 2]."""
        d = int(head_dim * self.fraction)
        freqs = self.base ** (-np.arange(0, d, 2, dtype=np.float64) / d) / self.linear
        return freqs if self.llama3 is None else self.llama3(freqs)

    @property
    def scale(self) -> float:
        """Factor of cosines and sines: its square is one of the attention logits."""
        return 1.0

    def frequencies_at(self, lengths: Int[Array, "*#P"] | None, head_dim: int) -> Array:
        """Radians per position in rows of `lengths` tokens, float32 [d / 2] or [*#P, d / 2]."""
        del lengths
        return jnp.asarray(self.frequencies(head_dim), jnp.float32)

    def table(
        self, positions: Int[Array, "*P"], head_dim: int, lengths: Int[Array, "*#P"] | None = None
    ) -> tuple[Array, Array]:
        """Cosines and sines, float32 [*P, d / 2].

        Args:
          lengths: tokens of the row that each token is in, where angles depend on it; None: short.
        """
        angles = positions[..., None].astype(jnp.float32) * self.frequencies_at(lengths, head_dim)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        return (cos, sin) if self.scale == 1.0 else (self.scale * cos, self.scale * sin)

    def rotation(
        self, positions: Int[Array, "*P"], head_dim: int, lengths: Int[Array, "*#P"] | None = None
    ) -> Rotation:
        """All that attention needs at these positions; arguments as of `table`."""
        growth = self.query_growth
        scale = None if growth is None else growth(positions)[..., None]
        return Rotation(*self.table(positions, head_dim, lengths), scale)

    def rotate(
        self,
        q: Float[Array, "S N H C"],
        k: Float[Array, "S N G C"],
        at: Rotation,
        turn: Turn = rotate,
    ) -> tuple[Float[Array, "S N H C"], Float[Array, "S N G C"]]:
        """Queries and keys, rotated by the `turn` of `jalign.models.rotate` for how they are
        stored.
        """
        q, k = (turn(x, (at.cos, at.sin), interleaved=self.interleaved) for x in (q, k))
        if at.query_scale is not None:
            q = (q * at.query_scale[:, :, None]).astype(q.dtype)
        return q, k


def row_lengths(
    positions: Int[Array, "S N"],
    rows: Int[Array, "S M T"] | None,
    inverse: Inverse | None,
) -> Int[Array, "S #N"]:
    """The length of each token's row. Rows that share their first token belong to one prompt and
    count as long as the longest of them.
    """
    if rows is None or inverse is None:
        return positions.max(-1, keepdims=True) + 1
    s, m, t = rows.shape
    flat = rows.reshape(s, m * t)
    own = jnp.take_along_axis(positions, flat, axis=1).reshape(s, m, t).max(-1) + 1
    first = rows[:, :, 0]
    stream = jnp.arange(s)[:, None]
    longest = jnp.zeros_like(positions).at[stream, first].max(own)
    # Tokens in no row (the dummy) have an inverse past the end.
    row = jnp.minimum(inverse.first // t, m - 1)
    return jnp.take_along_axis(longest, jnp.take_along_axis(first, row, axis=1), axis=1)
