"""Noise and unbalanced binary feedback in rows of pairs; `jalign.data.noise` draws the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jalign.data.noise import inverted

Row = dict[str, Any]


def noisy(
    rows: Sequence[Row], margins: Sequence[float], kind: str, share: float, seed: int
) -> list[Row]:
    """The pairs, with chosen and rejected exchanged where `inverted` says so."""
    flips = inverted(margins, kind, share, seed)
    return [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if flip else row
        for row, flip in zip(rows, flips, strict=True)
    ]


def binary(rows: Sequence[Row], desirable_share: float, seed: int) -> list[Row]:
    """Both responses of each pair as rows with a label; of the less wanted label so many are left
    out, at random, that `desirable_share` of the rest are desirable.

    Args:
      desirable_share: in (0, 1).
    """
    rng = np.random.default_rng((seed, 2))
    good = [{"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in rows]
    bad = [{"prompt": r["prompt"], "completion": r["rejected"], "label": False} for r in rows]
    ratio = desirable_share / (1 - desirable_share)
    n_good, n_bad = min(len(good), round(len(bad) * ratio)), min(len(bad), round(len(good) / ratio))
    kept = [good[i] for i in sorted(rng.permutation(len(good))[:n_good])]
    kept += [bad[i] for i in sorted(rng.permutation(len(bad))[:n_bad])]
    return [kept[i] for i in rng.permutation(len(kept))]
