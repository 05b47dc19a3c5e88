"""Diversity of responses.

distinct-n: Li et al. 2016, https://arxiv.org/abs/1510.03055. Self-BLEU: Zhu et al. 2018 (Texygen),
https://arxiv.org/abs/1802.01886, of the BLEU of Papineni et al. 2002. All of them change with the
number and the length of responses: compare equal numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import in_range
from jalign.eval.metrics.bootstrap import bootstrap_ratio
from jalign.eval.metrics.estimate import Estimate

Tokens = Sequence[Hashable]
"""A response as words or token ids."""


def distinct_n(responses: Sequence[Tokens], *, n: int = 2) -> float:
    """Distinct n-grams over all n-grams of all responses, in (0, 1]; 0 without n-grams.

    Args:
      responses: [k] lists of words or token ids.
      n: >= 1.

    Raises:
      ValueError: no responses, or n < 1.

    >>> distinct_n(["a b c".split(), "a b".split()])  # (a, b) twice and (b, c)
    0.6666666666666666
    """
    _check(responses, 1, n)
    from jalign.train.online_metrics import distinct  # the metric that runs log

    return distinct(responses, n)


def self_bleu(responses: Sequence[Tokens], *, n: int = 4) -> float:
    """Mean over responses of BLEU with all others as references, in [0, 1]; 1 is no diversity.

    BLEU = brevity penalty * exp(mean over orders 1 .. n of log clipped precision). An order without
    a match has 0.1 matches (method 1 of Chen and Cherry 2014), and one without n-grams a
    denominator of 1, as in nltk; a response without a common word has BLEU 0.

    Args:
      responses: [k] lists of words or token ids, k >= 2.
      n: largest order, >= 1.

    Raises:
      ValueError: fewer than 2 responses, or n < 1.
    """
    _check(responses, 2, n)
    # counts of all responses once: the references of each are all others, n^2 pairs in all
    tables = [[_grams(response, order) for response in responses] for order in range(1, n + 1)]
    limits = [_two_largest(table) for table in tables]
    lengths = [len(response) for response in responses]
    scores = [
        _bleu([table[i] for table in tables], limits, lengths, i) for i in range(len(responses))
    ]
    return math.fsum(scores) / len(scores)


def mean_pairwise_distance(embeddings: ArrayLike) -> float:
    """Mean cosine distance, 1 - cos, of all pairs of responses, in [0, 2].

    Args:
      embeddings: [k, d], k >= 2, no row of zeros.

    Raises:
      ValueError: another shape, a row of zeros, or numbers that are not finite.
    """
    x = np.asarray(embeddings, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"embeddings must be [k, d] with k >= 2, got {x.shape}")
    in_range("embeddings", x)
    norms = np.linalg.norm(x, axis=-1)
    if not norms.all():
        raise ValueError(f"embedding {int(np.argmin(norms))} is 0 and has no direction")
    k = len(x)
    # |sum of units|^2 is the sum of all cosines, the k diagonal ones included
    total = ((x / norms[:, None]).sum(0) ** 2).sum()
    return float(1 - (total - k) / (k * (k - 1)))


def token_entropy(
    logps: ArrayLike,
    mask: ArrayLike,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Entropy in nats per token: -sum(log p) / sum(tokens) of the policy's own samples, at
    temperature 1.

    Args:
      logps: [k, t] log-probs of sampled tokens under the policy, <= 0 where `mask`.
      mask: [k, t] where there are tokens.
      samples, confidence, seed: of the bootstrap over responses.

    Raises:
      ValueError: other shapes, no tokens, or log-probs > 0 or not finite.
    """
    x, m = np.asarray(logps, np.float64), np.asarray(mask, bool)
    if x.ndim != 2 or x.shape != m.shape or not m.any():
        raise ValueError(f"logps and mask must be [k, t] with tokens, got {x.shape}, {m.shape}")
    in_range("logps", x[m], high=0)
    nats = -np.where(m, x, 0).sum(-1)
    options = {"samples": samples, "seed": seed}
    return bootstrap_ratio(nats, m.sum(-1), confidence=confidence, **options)


def _check(responses: Sequence[Tokens], least: int, n: int) -> None:
    if len(responses) < least or n < 1:
        raise ValueError(f"needs {least} responses and n >= 1, got {len(responses)} and n={n}")
    if any(isinstance(response, str) for response in responses):
        raise ValueError("responses must be lists of words or token ids, got a text")


def _grams(response: Tokens, n: int) -> Counter:
    return Counter(zip(*(response[i:] for i in range(n)), strict=False))


def _two_largest(table: Sequence[Counter]) -> dict[tuple, tuple[int, int, int]]:
    """n-gram -> (its largest count, in which response, the largest of the others)."""
    largest: dict[tuple, tuple[int, int, int]] = {}
    for i, grams in enumerate(table):
        for gram, count in grams.items():
            top, where, second = largest.get(gram, (0, -1, 0))
            if count > top:
                largest[gram] = (count, i, top)
            elif count > second:
                largest[gram] = (top, where, count)
    return largest


def _bleu(
    grams: Sequence[Counter],
    limits: Sequence[dict[tuple, tuple[int, int, int]]],
    lengths: Sequence[int],
    i: int,
) -> float:
    logs = []
    for order, (own, limit) in enumerate(zip(grams, limits, strict=True), 1):
        matches = 0.0
        for gram, count in own.items():
            top, where, second = limit[gram]
            matches += min(count, second if where == i else top)
        if order == 1 and not matches:
            return 0.0
        logs.append(math.log((matches or 0.1) / max(own.total(), 1)))
    length = lengths[i]
    others = (x for j, x in enumerate(lengths) if j != i)
    closest = min(others, key=lambda x: (abs(x - length), x))
    penalty = 1.0 if length > closest else math.exp(1 - closest / length)
    return penalty * math.exp(math.fsum(logs) / len(logs))
