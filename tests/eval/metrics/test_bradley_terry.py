"""Bradley-Terry ratings and their intervals."""

import jax.numpy as jnp
import numpy as np
import pytest

from jalign.eval import metrics
from jalign.eval.metrics.bradley_terry import _fit
from tests.eval.metrics._oracles import ORACLES, STATISTICS

ARENA, CHOIX = ORACLES["arena_rank"], STATISTICS["choix"]
GAMES = [np.array(ARENA[name]) for name in ("a", "b", "outcome")]


@pytest.fixture(scope="module")
def ratings():
    return metrics.bradley_terry(*GAMES)


def test_ratings_and_sandwich_intervals_equal_arena_ranks(ratings):
    np.testing.assert_allclose(ratings.elo, ARENA["ratings"], atol=1e-6)
    # arena-rank's diagonal term was 1e-6 per game
    np.testing.assert_allclose(ratings.sandwich_low, ARENA["rating_lower"], atol=2e-3)
    np.testing.assert_allclose(ratings.sandwich_high, ARENA["rating_upper"], atol=2e-3)


def test_the_bootstrap_agrees_with_the_sandwich(ratings):
    assert ratings.resamples == 1000
    half = (ratings.sandwich_high - ratings.sandwich_low) / 2
    np.testing.assert_allclose(ratings.bootstrap_low, ratings.sandwich_low, atol=0.25 * half.max())
    np.testing.assert_allclose(
        ratings.bootstrap_high, ratings.sandwich_high, atol=0.25 * half.max()
    )


def test_ratings_equal_those_of_choix_with_and_without_a_prior():
    games = [np.array(CHOIX[name]) for name in ("a", "b", "outcome")]
    plain = metrics.bradley_terry(*games, samples=0)
    np.testing.assert_allclose(
        plain.logits, np.subtract(CHOIX["0.0"], np.mean(CHOIX["0.0"])), atol=1e-6
    )
    # choix has every game twice here, and its penalty is alpha |r|^2: a precision of 2 alpha
    prior = metrics.bradley_terry(*games, samples=0, weight=np.full(90, 2.0), prior=3.0)
    np.testing.assert_allclose(prior.logits, CHOIX["1.5"], atol=1e-6)
    assert np.isnan(plain.bootstrap_low).all() and plain.resamples == 0


def test_two_models_by_hand():
    # 3 wins, 1 loss and a tie: 3.5 of 5
    outcome = np.array([1, 1, 1, 0, 0.5])
    result = metrics.bradley_terry(np.zeros(5, int), np.ones(5, int), outcome, anchor=1, samples=0)
    logit = np.log(3.5 / 1.5)
    np.testing.assert_allclose(result.elo, [1000 + 400 / np.log(10) * logit, 1000], rtol=1e-9)
    # V of the difference: sum (y - p)^2 / (n p (1 - p))^2
    error = np.sqrt(((outcome - 0.7) ** 2).sum()) / (5 * 0.7 * 0.3)
    low = 1000 + 400 / np.log(10) * (logit - 1.959963984540054 * error)
    np.testing.assert_allclose(result.sandwich_low, [low, 1000], rtol=1e-9)
    np.testing.assert_allclose(metrics.win_probabilities(result.logits), [[0.5, 0.7], [0.3, 0.5]])


def test_the_anchor_moves_all_ratings_together(ratings):
    anchored = metrics.bradley_terry(*GAMES, anchor=2, samples=200)
    np.testing.assert_allclose(anchored.elo - anchored.elo[0], ratings.elo - ratings.elo[0])
    assert anchored.elo[2] == anchored.sandwich_low[2] == anchored.bootstrap_high[2] == 1000
    assert (anchored.bootstrap_low[[0, 1, 3, 4]] < anchored.elo[[0, 1, 3, 4]]).all()


def test_the_side_and_the_names_of_models_do_not_matter(ratings):
    a, b, outcome = GAMES
    swapped = metrics.bradley_terry(b, a, 1 - outcome, samples=0)
    np.testing.assert_allclose(swapped.elo, ratings.elo, rtol=1e-9)
    order = np.array([3, 0, 4, 1, 2])
    renamed = metrics.bradley_terry(order[a], order[b], outcome, samples=0)
    np.testing.assert_allclose(renamed.elo[order], ratings.elo, rtol=1e-9)
    np.testing.assert_allclose(renamed.sandwich_low[order], ratings.sandwich_low, rtol=1e-9)


def test_a_weight_is_a_number_of_games():
    a, b, outcome = GAMES
    weight = np.arange(140) % 3 + 1
    weighted = metrics.bradley_terry(a, b, outcome, weight=weight, samples=0)
    repeated = metrics.bradley_terry(*(np.repeat(x, weight) for x in GAMES), samples=0)
    np.testing.assert_allclose(weighted.elo, repeated.elo, rtol=1e-9)


def test_every_resample_is_the_fit_of_its_counts():
    counts = np.random.default_rng(0).multinomial(140, np.full(140, 1 / 140), 3).astype(float)
    wins = np.zeros((3, 5, 5), np.float32)
    for s, row in enumerate(counts):
        np.add.at(wins[s], (GAMES[0], GAMES[1]), row * GAMES[2])
        np.add.at(wins[s], (GAMES[1], GAMES[0]), row * (1 - GAMES[2]))
    together = np.asarray(_fit(jnp.asarray(wins), 0.0))
    alone = [metrics.bradley_terry(*GAMES, weight=row, samples=0).logits for row in counts]
    np.testing.assert_allclose(together, alone, atol=2e-5)


def test_games_of_one_prompt_count_as_one_observation():
    """Each game four times is no more information where the four share a prompt."""
    four = [np.repeat(x, 4) for x in GAMES]
    once = metrics.bradley_terry(*GAMES, samples=0)
    shared = metrics.bradley_terry(*four, prompt=np.repeat(np.arange(140), 4), samples=0)
    apart = metrics.bradley_terry(*four, samples=0)
    np.testing.assert_allclose(shared.covariance, once.covariance, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(apart.covariance, once.covariance / 4, rtol=1e-6, atol=1e-12)


def test_a_prior_makes_a_model_that_always_wins_finite():
    a, b = np.array([0, 0, 1]), np.array([1, 1, 2])
    outcome = np.array([1.0, 1.0, 0.5])
    with pytest.raises(ValueError, match=r"models \[0\] never lose to the others"):
        metrics.bradley_terry(a, b, outcome)
    result = metrics.bradley_terry(a, b, outcome, prior=0.1, samples=50)
    assert result.elo[0] > result.elo[1] > result.elo[2] - 400 and result.resamples == 50
    # the gradient at the optimum: 2 (1 - p) = prior * r
    p = metrics.win_probabilities(result.logits)
    np.testing.assert_allclose(2 * (1 - p[0, 1]), 0.1 * result.logits[0], rtol=1e-6)


def test_resamples_without_a_finite_fit_are_counted_or_refused():
    a, b = np.zeros(12, int), np.ones(12, int)
    few = np.array([0.0] * 2 + [1.0] * 10)
    result = metrics.bradley_terry(a, b, few)
    assert 800 < result.resamples < 950  # (10 / 12)^12 = 0.11 have no loss
    with pytest.raises(ValueError, match="resamples have finite ratings"):
        # a chain of four models, one win each way: all six games are needed
        metrics.bradley_terry([0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 3, 3], [0.0, 1.0] * 3)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.bradley_terry([], [], []), "a must be"),
        (lambda: metrics.bradley_terry([0], [1], [2.0]), "outcome must be in"),
        (lambda: metrics.bradley_terry([0], [1], [np.nan]), "not finite"),
        (lambda: metrics.bradley_terry([0, 1], [1, 1], [1.0, 0.0]), "game 1 is of a model against"),
        (lambda: metrics.bradley_terry([0, 1], [1, 0], [1.0]), "n >= 1"),
        (lambda: metrics.bradley_terry([0], [3], [0.5], models=3), "b must be >= 0 and < 3"),
        (lambda: metrics.bradley_terry([0.0], [1.0], [0.5]), "integers"),
        (lambda: metrics.bradley_terry([0], [1], [0.5], weight=[-1.0]), "weight must be in"),
        (lambda: metrics.bradley_terry([0], [1], [0.5], prior=-1.0), "prior"),
        (lambda: metrics.bradley_terry([0], [1], [0.5], anchor=2), "anchor"),
        (
            lambda: metrics.bradley_terry([0, 2], [1, 3], [0.5, 0.5]),
            r"no games connect the models \[\[0, 1\], \[2, 3\]\]",
        ),
        (lambda: metrics.bradley_terry([0], [1], [0.5], models=3), r"\[\[0, 1\], \[2\]\]"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
