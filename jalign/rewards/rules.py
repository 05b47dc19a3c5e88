"""Rewards that a rule computes from the text alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


@cache
def _vader() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


def sentiment(texts: Sequence[str]) -> list[float]:
    """How positive each text sounds, in [-1, 1]: VADER's compound score.

    A lexicon of 7,500 words and a few rules; deterministic. Hutto and Gilbert 2014, ICWSM. An empty
    text scores 0.

    >>> bad, none, good = sentiment(["a sad, terrible day", "", "a happy, wonderful day"])
    >>> bad < none == 0.0 < good
    True
    """
    return [float(_vader().polarity_scores(text)["compound"]) for text in texts]
