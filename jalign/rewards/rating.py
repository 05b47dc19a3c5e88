"""Ratings of single responses by a language model.

`direct_score` is direct RLAIF: Lee et al. 2023, https://arxiv.org/abs/2309.00267, section 2.2.
`additive_ratings` is the judge of self-rewarding models: Yuan et al. 2024,
https://arxiv.org/abs/2401.10020, section 2.2 and figure 2. Wording is our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jalign.rewards.judge import Judge, choose
from jalign.rewards.template import load

MOST_POINTS = 5
_SCORE = re.compile(
    r"(?<![^\W_])score[\s*_]{0,4}:[\s*_<(\[]{0,4}(\d+(?:\.\d+)?)(?!\d|\.\d|\s?/\s?(?!5\b)\d)",
    re.IGNORECASE,
)  # perhaps in bold, or as "4/5"


def direct_score(
    judge: Judge,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    template: str | Path = "rate",
    low: int = 1,
    high: int = 10,
) -> list[float | None]:
    """2 (s - low) / (high - low) - 1 in [-1, 1], with s = SUM_i i P(i) over i = low..high.

    P is the softmax over the log-probabilities of the numbers, each with and without a leading
    space. The paper scales s to [-1, 1] without a formula; the affine map is ours. A 10 of two
    tokens is handled exactly (`jalign.rewards.options`), but a server may not report enough
    alternatives for it: a scale of one digit (low=0, high=9) avoids that.

    Args:
      template: with the fields prompt and response, and perhaps low and high.

    Returns:
      One number per response; None without an answer of the judge.
    """
    if not 0 <= low < high:
        raise ValueError(f"a scale goes from low >= 0 to a higher number, got {low} to {high}")
    text = load(template, ("prompt", "response"), ("low", "high"))
    scale = {n: str(x) for n, x in (("low", low), ("high", high)) if n in text.fields}
    rows = zip(prompts, responses, strict=True)
    requests = [text.fill(prompt=p, response=r, **scale) for p, r in rows]
    grades = range(low, high + 1)
    # Both spellings: whether a number comes with a space depends on tokenizer and template.
    probs = choose(judge, requests, [(f" {i}", f"{i}") for i in grades])
    expected = [None if p is None else float(np.dot(p, grades)) for p in probs]
    return [None if s is None else 2 * (s - low) / (high - low) - 1 for s in expected]


class Ratings(NamedTuple):
    """Ratings of n responses.

    Attributes:
      scores: mean points in [0, 5] of the judgments that name any; None without one.
      unparsable: judgments, of all responses together, that name none.
    """

    scores: list[float | None]
    unparsable: int


def additive_ratings(
    judge: Judge,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    template: str | Path = "additive",
    samples: int = 3,
    temperature: float = 0.7,
    max_tokens: int = 256,
) -> Ratings:
    """Points in [0, 5], each for a quality the response has: the mean of several judgments.

    A judgment is free text that ends in "Score: N". One without a score, or with more than 5, is
    counted and excluded, never taken as 0.

    Args:
      template: with the fields prompt and response.
      samples: judgments per response. A single one gives integers, which tie too often to form
        pairs.
      temperature, max_tokens: of the judgments (not from the paper).
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if samples > 1 and temperature == 0:
        raise ValueError("at temperature 0 all samples of a judgment are the same: use samples=1")
    text = load(template, ("prompt", "response"))
    requests = [text.fill(prompt=p, response=r) for p, r in zip(prompts, responses, strict=True)]
    each = [prompt for prompt in requests for _ in range(samples)]
    # One call for all samples: a server works on them together.
    written = judge.complete(each, max_tokens=max_tokens, temperature=temperature)
    points = [points_in(judgment) for judgment in written]
    scores: list[float | None] = []
    for i in range(len(requests)):
        known = [p for p in points[i * samples : (i + 1) * samples] if p is not None]
        scores.append(sum(known) / len(known) if known else None)
    return Ratings(scores, points.count(None))


def self_reward(
    judge: Judge, prompts: Sequence[str], responses: Sequence[str], **options: object
) -> list[float | None]:
    """The scores of `additive_ratings`, as a reward function."""
    return additive_ratings(judge, prompts, responses, **options).scores  # type: ignore[arg-type]


def points_in(judgment: str | None) -> float | None:
    """The number behind the last "Score:", in [0, 5]; None without one.

    >>> points_in("Clear and to the point.\\n**Score:** 4"), points_in("Score: 50"), points_in("4")
    (4.0, None, None)
    """
    matches = _SCORE.findall(judgment or "")
    points = float(matches[-1]) if matches else None
    return points if points is not None and points <= MOST_POINTS else None
