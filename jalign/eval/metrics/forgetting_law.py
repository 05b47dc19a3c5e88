"""The KL to the start on new data, which predicts what a model forgets of the rest.

Shenfeld, Pari and Agrawal 2025, "RL's Razor: Why Online Reinforcement Learning Forgets Less".
https://arxiv.org/abs/2509.04259. What is really lost is measured by `forgetting.nll_change` and
`score_change`, on the data that should be kept; the KL needs none of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import in_range, indices, vector, vectors
from jalign.eval.metrics.bootstrap import bootstrap_ratio
from jalign.eval.metrics.estimate import Estimate


class ForgettingFit(NamedTuple):
    """forgotten = linear * KL + quadratic * KL^2, fitted to several models.

    Attributes:
      linear, quadratic: in what is forgotten per nat, and per nat squared.
      r_squared: share of the variance over the models that the fit explains, at most 1.
      ordered: share of the pairs of models that the KL orders as what they forgot, a tie half; 1/2
        by chance.
    """

    linear: float
    quadratic: float
    r_squared: float
    ordered: float


def new_task_kl(
    start_logps: ArrayLike,
    logps: ArrayLike,
    examples: ArrayLike,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """KL(start || trained) in nats per token of the NEW task: the mean over its tokens of sum_v
    p_start(v) (log p_start(v) - log p(v)), resampled over examples.

    The direction is the paper's: the start weighs what the trained model no longer expects. `jalign
    eval` logs the other one, `kl_to_start`; the loss of the row `gkd_forward` with the start as
    teacher is this one.

    Args:
      start_logps, logps: [n, V] log-probs of the whole vocabulary at each token, of the start and
        of the trained model. -inf is a probability of 0.
      examples: [n] the example that each token belongs to, in [0, number of examples).
      samples, confidence, seed: of the bootstrap.
    Raises:
      ValueError: other shapes, NaN, rows that are no distributions, or a token that the start can
        write and the trained model cannot: the KL is infinite.
    """
    p, q = (np.asarray(x, np.float64) for x in (start_logps, logps))
    who = indices("examples", examples)
    if p.ndim != 2 or p.shape != q.shape or len(p) != len(who):
        raise ValueError(
            f"start_logps and logps must be [n, V] and examples [n], got {p.shape}, {q.shape} and "
            f"{who.shape}"
        )
    for name, x in (("start_logps", p), ("logps", q)):
        # float32 log-probs of 100,000 entries sum to 1 within about 1e-4
        if not np.allclose(np.exp(x).sum(-1), 1, atol=1e-3):
            raise ValueError(f"{name} must be log-probs over the whole vocabulary, each row sum 1")
    written = np.isfinite(p)
    with np.errstate(invalid="ignore"):  # -inf - -inf, which `where` leaves out
        each = np.where(written, np.exp(p) * (p - q), 0.0).sum(-1)
    in_range("KL", each)
    sums, tokens = (np.bincount(who, x) for x in (each, np.ones(len(who))))
    return bootstrap_ratio(sums, tokens, samples=samples, confidence=confidence, seed=seed)


def fit_forgetting(kl: ArrayLike, forgotten: ArrayLike) -> ForgettingFit:
    """Least squares of what models of one start forgot on their KL on the new task, without a
    constant: the start itself has neither.

    Args:
      kl: [n] nats per token (`new_task_kl`), >= 0, of at least three different models.
      forgotten: [n] what each lost, such as `nll_change(..).change.value`.
    Raises:
      ValueError: empty or other shapes, NaN, a KL < 0, fewer than three different KLs, or models
        that forgot all the same.
    """
    x, y = vectors(kl=kl, forgotten=forgotten)
    in_range("kl", x, 0)
    if len(np.unique(x)) < 3:
        raise ValueError("two parameters and a share of variance need at least 3 different KLs")
    spread = float(((y - y.mean()) ** 2).sum())
    if not spread:
        raise ValueError("all models forgot the same: there is nothing to explain")
    design = np.stack([x, x**2], -1)
    linear, quadratic = np.linalg.lstsq(design, y, rcond=None)[0]
    residual = float(((y - design @ [linear, quadratic]) ** 2).sum())
    first, second = np.triu_indices(len(x), 1)
    alike = np.sign(x[first] - x[second]) * np.sign(y[first] - y[second])
    return ForgettingFit(
        float(linear), float(quadratic), 1 - residual / spread, float((1 + alike).mean() / 2)
    )


def predict_forgetting(fit: ForgettingFit, kl: ArrayLike) -> np.ndarray:
    """[n] what models at each KL are expected to forget; 0 at KL 0.

    >>> predict_forgetting(ForgettingFit(0.5, 0.25, 1.0, 1.0), [0.0, 2.0]).tolist()
    [0.0, 2.0]
    """
    x = vector("kl", kl, 0)
    return fit.linear * x + fit.quadratic * x**2
