"""The sizes of a gated delta net."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeltaNet:
    """Sizes of a gated delta net (`jalign.models.delta.net`).

    Attributes:
      key_heads, value_heads: G and H; each head of queries and keys serves H / G of values.
      key_dim, value_dim: K and V, the widths of their heads.
      conv: tokens that the convolution before it sees, the current one included.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int

    def __post_init__(self):
        if self.value_heads % self.key_heads:
            raise ValueError(
                f"{self.value_heads} heads of values do not divide into {self.key_heads} of keys"
            )

    @property
    def key_width(self) -> int:
        """G K."""
        return self.key_heads * self.key_dim

    @property
    def value_width(self) -> int:
        """H V."""
        return self.value_heads * self.value_dim

    @property
    def conv_width(self) -> int:
        """Features of the convolution: queries, keys and values."""
        return 2 * self.key_width + self.value_width
