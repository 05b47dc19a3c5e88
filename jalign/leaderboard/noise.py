"""Wrong preference labels of three kinds, and unbalanced binary feedback.

Uniform noise inverts pairs at random (the model of robust DPO, arXiv 2403.00409). Noise by
annotator inverts every label of some annotators, to whom pairs are assigned at random. The
clearest pairs inverted, those with the largest margin, is the worst case for a loss that trusts
large differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
ANNOTATORS = 20


def inverted(margins: Sequence[float], kind: str, share: float, seed: int) -> np.ndarray:
    """[n] bool, which labels are inverted: round(share * n) of them for uniform and clearest, those
    of round(share * 20) of 20 annotators otherwise.

    Args:
      margins: [n] how clear each pair is; read for "clearest" alone.
      kind: none, uniform, annotator or clearest.
      share: of the labels, in [0, 1).
      seed: of the draw; "clearest" draws nothing.
    """
    # numbers of its own: pairs in the order of the same draw would be read inverted first
    n, rng = len(margins), np.random.default_rng((seed, 1))
    flips = np.zeros(n, bool)
    if kind == "uniform":
        flips[rng.permutation(n)[: round(share * n)]] = True
    elif kind == "annotator":
        wrong = rng.permutation(ANNOTATORS)[: round(share * ANNOTATORS)]
        flips = np.isin(rng.integers(ANNOTATORS, size=n), wrong)
    elif kind == "clearest":
        order = np.argsort(-np.abs(np.asarray(margins, float)), kind="stable")
        flips[order[: round(share * n)]] = True
    elif kind != "none":
        raise ValueError(f"kind must be none, uniform, annotator or clearest, got {kind!r}")
    return flips


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
