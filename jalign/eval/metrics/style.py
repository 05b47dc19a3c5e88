"""Features of style: length and Markdown, as differences between two responses.

Li et al. 2024, "Does Style Matter? Disentangling style and substance in Chatbot Arena" (LMSYS), and
the code of Arena-Hard v2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import in_range, vector

FEATURES = ("length", "headers", "lists", "bold")
_CODE = re.compile(r"```[^`]*```")
_MARKS = (
    re.compile(r"^#{1,6}\s", re.MULTILINE),
    re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE),
    re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
)


def style_counts(texts: Sequence[str], tokens: ArrayLike) -> np.ndarray:
    """[n, 4] tokens, headers, list items and bold spans of each text; code blocks are left out.

    Args:
      texts: [n] responses.
      tokens: [n] their lengths in tokens, >= 0.

    Raises:
      ValueError: not as many tokens as texts.

    >>> style_counts(["# A\\n- **b** c\\n```\\n# not\\n```"], [9]).tolist()
    [[9.0, 1.0, 1.0, 1.0]]
    """
    length = vector("tokens", tokens, 0)
    if len(length) != len(texts):
        raise ValueError(f"{len(texts)} texts, {len(length)} tokens")
    # a comment in code is no header
    plain = [_CODE.sub("", text) for text in texts]
    counts = [[len(mark.findall(text)) for mark in _MARKS] for text in plain]
    return np.concatenate([length[:, None], np.array(counts, np.float64)], -1)


def style_features(
    model: ArrayLike, baseline: ArrayLike, *, weight: ArrayLike | None = None
) -> np.ndarray:
    """[m, 4] differences in style, standardized over games.

    Length: (l_a - l_b) / (l_a + l_b). Others: (d_a - d_b) / (d_a + d_b + 1) of the densities
    d = count / (l + 1). A feature that is the same in all games becomes 0.

    Args:
      model, baseline: [m, 4] of `style_counts`.
      weight: [m] how often a game counts; None: once.

    Raises:
      ValueError: other shapes, negative or not finite counts, or two empty responses.
    """
    a, b = np.asarray(model, np.float64), np.asarray(baseline, np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != len(FEATURES) or not len(a):
        raise ValueError(f"model and baseline must be [m, 4], got {a.shape} and {b.shape}")
    in_range("model", a, low=0)
    in_range("baseline", b, low=0)
    lengths = a[:, 0] + b[:, 0]
    if not lengths.all():
        raise ValueError(f"game {int(np.argmin(lengths))}: both responses have no tokens")
    density_a, density_b = a[:, 1:] / (a[:, :1] + 1), b[:, 1:] / (b[:, :1] + 1)
    length = (a[:, 0] - b[:, 0]) / lengths
    marks = (density_a - density_b) / (density_a + density_b + 1)
    x = np.concatenate([length[:, None], marks], -1)
    w = vector("weight", np.ones(len(x)) if weight is None else weight, 0)
    if w.shape != (len(x),) or w.sum() <= 1:
        raise ValueError(f"weight must be [{len(x)}] with a sum > 1, got {w.shape}, {w.sum():g}")
    mean = w @ x / w.sum()
    spread = np.sqrt(w @ (x - mean) ** 2 / (w.sum() - 1))
    return np.divide(x - mean, spread, out=np.zeros_like(x), where=spread > 1e-12)
