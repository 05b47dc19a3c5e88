"""Wrong labels of three kinds, to test with: uniform, by annotator, and at the clearest pairs.

Uniform noise inverts labels at random (the model of robust DPO, arXiv 2403.00409). Noise by
annotator inverts every label of some annotators. The tail inverts the clearest pairs, those with
the largest margins: the worst case for a loss that trusts large differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jalign.data.examples import Report
from jalign.data.kinds import ANNOTATOR
from jalign.data.records import Record

KINDS = ("uniform", "annotator", "tail")
ANNOTATORS = 20  # to whom labels without annotators are assigned


class Flip(NamedTuple):
    """Labels to invert.

    Attributes:
      kind: one of `KINDS`.
      share: of the labels, in [0, 1).
      seed: of the draw; the tail draws nothing.
    """

    kind: str
    share: float
    seed: int = 0


def inverted(
    margins: Sequence[float],
    kind: str,
    share: float,
    seed: int,
    annotators: Sequence[int] | None = None,
) -> np.ndarray:
    """[n] bool, which labels are inverted: round(share * n) of them for uniform and tail, those of
    round(share * annotators) of the annotators otherwise.

    Args:
      margins: [n] how clear each pair is; read for "tail" alone.
      kind: none, uniform, annotator or tail ("clearest" in a leaderboard's file).
      share: of the labels, in [0, 1).
      seed: of the draw; "tail" draws nothing.
      annotators: [n] who gave each label, in [0, number of annotators); None: `assigned`.
    """
    n, rng = len(margins), _generator(seed)
    flips = np.zeros(n, bool)
    if kind == "uniform":
        flips[rng.permutation(n)[: round(share * n)]] = True
    elif kind == "annotator":
        count = ANNOTATORS if annotators is None else max(annotators, default=-1) + 1
        wrong = rng.permutation(count)[: round(share * count)]
        flips = np.isin(assigned(n, seed) if annotators is None else annotators, wrong)
    elif kind in ("tail", "clearest"):
        order = np.argsort(-np.abs(np.asarray(margins, float)), kind="stable")
        flips[order[: round(share * n)]] = True
    elif kind != "none":
        raise ValueError(f"kind must be none, uniform, annotator, tail or clearest, got {kind!r}")
    return flips


def assigned(n: int, seed: int) -> np.ndarray:
    """[n] the annotator of each label, of 20, drawn with the noise of the same seed."""
    rng = _generator(seed)
    rng.permutation(ANNOTATORS)  # `inverted` draws first which of them are wrong
    return rng.integers(ANNOTATORS, size=n)


def flip(records: list[Record], noise: Flip, named: bool, report: Report) -> list[Record]:
    """Pairs with their responses exchanged, and labels inverted, where the noise says so; what is
    claimed of a pair (margin, probability) stays. The report counts them.

    Args:
      named: whether annotators are read: "annotator" then gives them to labels without any.

    Raises:
      ValueError: records of another kind, a tail without margins, or an annotator that only some
        records have.
    """
    for record in records:
        if "label" not in record.extras and len(record.responses) != 2:
            raise ValueError(f"flip inverts pairs and labels; {record.where} is neither")
        if noise.kind == "tail" and "margin" not in record.extras:
            raise ValueError(
                f"flip tail inverts the clearest pairs, by the column margin (or score_chosen and "
                f"score_rejected), and {record.where} has none"
            )
    # the order of the rows decides who is inverted, so that a resumed run inverts the same
    margins = [record.extras.get("margin", 0.0) for record in records]
    own = [record.extras.get(ANNOTATOR) for record in records]
    names = sorted(set(own) - {None})
    if noise.kind == "annotator" and names and None in own:
        without = records[own.index(None)].where
        raise ValueError(f"flip annotator: {without} has no annotator, which other records have")
    who = [names.index(name) for name in own] if noise.kind == "annotator" and names else None
    flips = inverted(margins, noise.kind, noise.share, noise.seed, who)
    if noise.kind == "annotator" and who is None and named:
        drawn = assigned(len(records), noise.seed)
        records = [
            r._replace(extras=r.extras | {ANNOTATOR: f"annotator {i:02}"})
            for r, i in zip(records, drawn, strict=True)
        ]
    report.flipped = int(flips.sum())
    if noise.share and not report.flipped:
        what = "annotators" if noise.kind == "annotator" else "labels"
        report.warnings.append(f"flip inverts nothing: {noise.share} of the {what} rounds to 0")
    return [_inverted(r) if wrong else r for r, wrong in zip(records, flips, strict=True)]


def _inverted(record: Record) -> Record:
    if "label" in record.extras:
        return record._replace(extras=record.extras | {"label": 1.0 - record.extras["label"]})
    return record._replace(responses=record.responses[::-1])


def _generator(seed: int) -> np.random.Generator:
    # numbers of its own: pairs in the order of the same draw would be read inverted first
    return np.random.default_rng((seed, 1))
