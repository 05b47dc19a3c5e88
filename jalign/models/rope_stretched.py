"""Rotary embeddings stretched beyond the context they were trained in: YaRN, LongRoPE, dynamic NTK.

As in transformers, with one difference: which length decides the angles of LongRoPE and dynamic
NTK. In transformers it is the longest row of a batch, and cached keys keep their angles. Here it is
each row's own length (the longest of the responses that share a prompt), so that a row has the same
angles in every batch; with a cache it is the number of slots, prompt and new tokens together, so
that no row changes its angles while it is sampled.

Letter: d rotated features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from jalign.models.rope import Rope


@dataclass(frozen=True, repr=False)
class Yarn(Rope):
    """Peng et al. 2023, https://arxiv.org/abs/2309.00071: high frequencies are kept, low ones
    divided by `factor`, those between interpolated, and cosines and sines multiplied.

    Attributes:
      factor: how much longer the context is.
      original_tokens: the context it was trained in.
      fast, slow: turns within that context above which a frequency is kept, below which divided.
      multiplier: of cosines and sines, as `scale` here.
      truncate: round the borders to whole features.
    """

    factor: float = 1.0
    original_tokens: int = 1
    fast: float = 32.0
    slow: float = 1.0
    multiplier: float = 1.0
    truncate: bool = True

    @property
    def scale(self) -> float:
        return self.multiplier

    def frequencies(self, head_dim: int) -> np.ndarray:
        freqs = super().frequencies(head_dim)
        d = 2 * len(freqs)

        def feature(turns: float) -> float:
            return d * math.log(self.original_tokens / (turns * 2 * math.pi)) / 2

        low, high = (feature(turns) / math.log(self.base) for turns in (self.fast, self.slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, d - 1)
        # As transformers: the ramp would divide by 0.
        high = high + 0.001 if low == high else high
        divided = np.clip((np.arange(len(freqs)) - low) / (high - low), 0.0, 1.0)
        return freqs / self.factor * divided + freqs * (1.0 - divided)


def yarn_multiplier(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    """YaRN's default multiplier of cosines and sines."""

    def of(m: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    return of(mscale) / of(mscale_all_dim) if mscale and mscale_all_dim else of(1.0)


@dataclass(frozen=True, repr=False)
class LongRope(Rope):
    """Ding et al. 2024, https://arxiv.org/abs/2402.13753 (Phi-3 128k, Phi-4 mini): a divisor of
    each frequency, other ones in rows beyond the original context.

    Attributes:
      short, long: d / 2 divisors, within and beyond `original_tokens`.
      original_tokens: the context it was trained in.
      multiplier: of cosines and sines, as `scale` here.
    """

    by_length: ClassVar[bool] = True
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    original_tokens: int = 1
    multiplier: float = 1.0

    @property
    def scale(self) -> float:
        return self.multiplier

    def frequencies_at(self, lengths: Array | None, head_dim: int) -> Array:
        freqs = self.frequencies(head_dim)
        for divisors in (self.short, self.long):
            if len(divisors) != len(freqs):
                raise ValueError(
                    f"longrope has {len(divisors)} factors, but a head turns {len(freqs)} pairs of "
                    "features"
                )
        short, long = (jnp.asarray(freqs / x, jnp.float32) for x in (self.short, self.long))
        if lengths is None:
            return short
        return jnp.where((lengths > self.original_tokens)[..., None], long, short)


def longrope_multiplier(factor: float, original_tokens: int) -> float:
    """LongRoPE's default multiplier of cosines and sines."""
    if factor <= 1.0:
        return 1.0
    return math.sqrt(1 + math.log(factor) / math.log(original_tokens))


@dataclass(frozen=True, repr=False)
class DynamicNTK(Rope):
    """The base grows with the length of a row that is beyond the original context.

    base' = base * (factor * n / original_tokens - (factor - 1)) ** (d / (d - 2)) for n tokens.
    """

    by_length: ClassVar[bool] = True
    factor: float = 1.0
    original_tokens: int = 1

    def frequencies_at(self, lengths: Array | None, head_dim: int) -> Array:
        freqs = self.frequencies(head_dim)
        if lengths is None:
            return jnp.asarray(freqs, jnp.float32)
        d = 2 * len(freqs)
        # Within the original context growth is 1: the plain base.
        tokens = jnp.maximum(lengths, self.original_tokens).astype(jnp.float32)
        growth = self.factor * tokens / self.original_tokens - (self.factor - 1)
        power = jnp.asarray(-np.arange(0, d, 2) / (d - 2), jnp.float32)
        return jnp.asarray(freqs, jnp.float32) * growth[..., None] ** power
