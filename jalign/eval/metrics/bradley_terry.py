"""Bradley-Terry ratings of any set of models, with intervals.

P(a beats b) = sigmoid(r_a - r_b). Bradley and Terry 1952, Biometrika 39; Chiang et al. 2024
(Chatbot Arena), https://arxiv.org/abs/2403.04132, section 5 and appendix A for the sandwich
interval. All resamples of the bootstrap are weighted fits of one program: jitted, vmapped over
matrices of wins.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike
from scipy import sparse, special
from scipy.sparse.csgraph import connected_components

from jalign.eval.metrics._arrays import in_range, indices, vector, vectors
from jalign.eval.metrics.bootstrap import resample
from jalign.eval.metrics.estimate import normal_interval, percentiles

ELO = 400 / math.log(10)
"""Elo points per unit of log-odds."""
_START = 1000.0


class Ratings(NamedTuple):
    """Ratings of M models.

    Attributes:
      elo: [M] Elo points; 1000 is the anchor, or the mean without one.
      sandwich_low, sandwich_high: [M] interval of the same quantity from the sandwich covariance.
      bootstrap_low, bootstrap_high: [M] interval from resamples; NaN without them.
      logits: [M] r, log-odds, of mean 0.
      covariance: [M, M] of `logits`.
      resamples: those that had a finite fit and make up the bootstrap interval.
    """

    elo: np.ndarray
    sandwich_low: np.ndarray
    sandwich_high: np.ndarray
    bootstrap_low: np.ndarray
    bootstrap_high: np.ndarray
    logits: np.ndarray
    covariance: np.ndarray
    resamples: int


def bradley_terry(
    a: ArrayLike,
    b: ArrayLike,
    outcome: ArrayLike,
    *,
    models: int | None = None,
    weight: ArrayLike | None = None,
    prompt: ArrayLike | None = None,
    anchor: int | None = None,
    prior: float = 0.0,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Ratings:
    """Maximum likelihood: r that maximizes sum w [y d - softplus(d)] - prior / 2 |r|^2, with
    d = r_a - r_b, and Elo = 1000 + 400 / ln 10 (r - r_anchor).

    Sandwich: V = H+ G H+, with H = sum w p (1 - p) x x^T + prior I, x = e_a - e_b, and G the sum
    over prompts of the outer product of the prompt's scores w (y - p) x; it does not assume that
    the model holds. Bootstrap: percentiles over multinomial counts of prompts.

    Args:
      a, b: [g] indices of the two models of each game.
      outcome: [g] y in [0, 1]: 1 where a wins, 1/2 for a tie, or a probability.
      models: M; None: the largest index + 1.
      weight: [g] w >= 0; None: 1.
      prompt: [g] index of the prompt, whose games are resampled together and may depend on each
        other; None: every game on its own.
      anchor: model whose rating is 1000, and whose interval is empty; None: the mean is.
      prior: precision of a Gaussian prior on r, >= 0.
      samples: of the bootstrap; 0 leaves it out.
      confidence, seed: of the intervals.

    Raises:
      ValueError: empty or other shapes, NaN, numbers out of range, a model against itself; or,
        without a prior, models that no chain of games connects, or some that never lose to the
        others: their rating is infinite.

    Deviations: arena-rank adds 1e-5 g to the diagonal of H, this takes the pseudo-inverse. A
      resample without a finite fit is left out (`resamples` counts the others).
    """
    games = _games(a, b, outcome, models, weight)
    if prior < 0:
        raise ValueError(f"prior must be >= 0, got {prior}")
    if anchor is not None and not 0 <= anchor < games.models:
        raise ValueError(f"anchor must be a model in [0, {games.models}), got {anchor}")
    group = np.arange(len(games.a)) if prompt is None else indices("prompt", prompt)
    if group.shape != games.a.shape:
        raise ValueError(f"prompt must be {games.a.shape}, got {group.shape}")
    _, group = np.unique(group, return_inverse=True)
    wins = _wins_by_group(games, group)
    total = np.asarray(wins.sum(0)).reshape(1, games.models, games.models)
    if not prior:
        _check_finite(total[0])
    resamples, finite = _resampled(wins, total, prior, samples, seed)
    # the fit of all games and those of the resamples are one call
    fits = _fit(jnp.asarray(np.concatenate([total, resamples]), jnp.float32), prior)
    logits, *draws = np.asarray(fits, np.float64)
    draws = np.array(draws)[finite]
    logits, covariance = _polished(games, group, logits, prior)
    to_anchor = np.eye(games.models) - (0 if anchor is None else np.eye(games.models)[anchor])
    errors = np.sqrt(np.einsum("ij,jk,ik->i", to_anchor, covariance, to_anchor).clip(0))
    half = normal_interval(0.0, 1.0, confidence).high * errors
    # ends of the same quantity that is reported: the anchor's own noise is in all others
    relative = to_anchor @ logits
    ends = np.full((2, games.models), np.nan)
    if len(draws):
        ends = np.stack(percentiles(draws @ to_anchor.T, confidence))
    elo = [_START + ELO * r for r in (relative, relative - half, relative + half, *ends)]
    return Ratings(*elo, logits=logits, covariance=covariance, resamples=len(draws))


def win_probabilities(logits: ArrayLike) -> np.ndarray:
    """[M, M] sigmoid(r_i - r_j): probability that model i beats model j."""
    r = vector("logits", logits)
    return special.expit(r[:, None] - r)


class _Games(NamedTuple):
    a: np.ndarray
    b: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    models: int


def _games(
    a: ArrayLike, b: ArrayLike, outcome: ArrayLike, models: int | None, weight: ArrayLike | None
) -> _Games:
    i, j = indices("a", a, models), indices("b", b, models)
    y, w = vectors(outcome=outcome, weight=np.ones(len(i)) if weight is None else weight, low=0)
    in_range("outcome", y, 0, 1)
    if not i.shape == j.shape == y.shape:
        raise ValueError(f"a, b and outcome must be [g], got {i.shape}, {j.shape}, {y.shape}")
    if (i == j).any():
        raise ValueError(f"game {int(np.argmax(i == j))} is of a model against itself")
    return _Games(i, j, y, w, models or int(max(i.max(), j.max())) + 1)


def _wins_by_group(games: _Games, group: np.ndarray) -> sparse.csr_array:
    """[groups, M * M] weighted wins of i over j at i * M + j."""
    m = games.models
    values = np.concatenate([games.weight * games.outcome, games.weight * (1 - games.outcome)])
    cells = np.concatenate([games.a * m + games.b, games.b * m + games.a])
    shape = (int(group.max()) + 1, m * m)
    return sparse.coo_array((values, (np.tile(group, 2), cells)), shape).tocsr()


def _check_finite(wins: np.ndarray) -> None:
    """Ford 1957: the fit is finite where every model beats every other through a chain of wins."""
    parts, label = connected_components(wins + wins.T, directed=False)
    if parts > 1:
        groups = [np.flatnonzero(label == i).tolist() for i in range(parts)]
        raise ValueError(f"no games connect the models {groups}: compare them, or give prior > 0")
    parts, label = connected_components(wins, connection="strong")
    if parts > 1:
        # the groups that no other group ever beats
        lost = {int(label[j]) for i, j in np.argwhere(wins) if label[i] != label[j]}
        best = [np.flatnonzero(label == k).tolist() for k in range(parts) if k not in lost]
        raise ValueError(
            f"the models {best[0]} never lose to the others, so that their rating is infinite: "
            "give prior > 0, or more games"
        )


@jax.jit
def _fit(wins: Array, prior: float) -> Array:
    """[S, M, M] weighted wins -> [S, M] logits of mean 0, by Newton's method in float32."""
    return jax.vmap(_newton, (0, None))(wins, prior)


def _newton(wins: Array, prior: float) -> Array:
    m = len(wins)
    games = wins + wins.T
    # scaled: H of thousands of games and the 1 of its null space have one size
    scale = jnp.maximum(games.sum(-1).max(), 1e-30)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        r, _, count = state
        p = jax.nn.sigmoid(r[:, None] - r)
        gradient = (games * p - wins).sum(-1) / scale + prior / scale * r
        curvature = games * p * (1 - p) / scale
        hessian = jnp.diag(curvature.sum(-1) + prior / scale) - curvature + 1 / m
        delta = jnp.linalg.solve(hessian, gradient)
        # far from the optimum a full step overshoots
        delta = delta / jnp.maximum(1.0, jnp.abs(delta).max())
        r = r - delta
        return r - r.mean(), jnp.abs(delta).max(), count + 1

    start = (jnp.zeros(m), jnp.array(jnp.inf), jnp.array(0))
    return jax.lax.while_loop(lambda s: (s[1] > 1e-5) & (s[2] < 100), step, start)[0]


def _polished(
    games: _Games, group: np.ndarray, logits: np.ndarray, prior: float
) -> tuple[np.ndarray, np.ndarray]:
    """Two Newton steps in float64, which square the error of the float32 fit, and the sandwich."""
    x = np.zeros((len(games.a), games.models))
    rows = np.arange(len(games.a))
    x[rows, games.a], x[rows, games.b] = 1.0, -1.0
    scores, inverse = _scores(games, x, logits, prior)
    logits = logits + inverse @ (scores.sum(0) - prior * logits)
    scores, inverse = _scores(games, x, logits, prior)
    logits = logits + inverse @ (scores.sum(0) - prior * logits)
    # summed within a prompt: its games are not independent observations
    by_group = np.zeros((int(group.max()) + 1, games.models))
    np.add.at(by_group, group, scores)
    return logits - logits.mean(), inverse @ (by_group.T @ by_group) @ inverse


def _scores(
    games: _Games, x: np.ndarray, logits: np.ndarray, prior: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the games [g, M], and the pseudo-inverse of H."""
    p = special.expit(x @ logits)
    hessian = (x.T * (games.weight * p * (1 - p))) @ x + prior * np.eye(games.models)
    # the rating of all models together is free, so H has a null space
    inverse = np.linalg.pinv(hessian, hermitian=True)
    return (games.weight * (games.outcome - p))[:, None] * x, inverse


def _resampled(
    wins: sparse.csr_array, total: np.ndarray, prior: float, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Wins [S, M, M] of resamples, and which of them have a finite fit, [S]; those without one are
    replaced by all games, so that every call has one shape.
    """
    if samples == 0:
        return total[:0], np.zeros(0, bool)
    groups = int(wins.shape[0])  # type: ignore[index]
    drawn = np.concatenate([counts @ wins for counts in resample(groups, samples, seed)])
    matrices = drawn.reshape(-1, *total.shape[1:])
    if prior:
        return matrices, np.ones(samples, bool)
    finite = np.array([connected_components(x, connection="strong")[0] == 1 for x in matrices])
    if finite.sum() < samples / 2:
        raise ValueError(
            f"only {finite.sum()} of {samples} resamples have finite ratings: there are too few "
            "games; give prior > 0, or samples=0"
        )
    return np.where(finite[:, None, None], matrices, total), finite
