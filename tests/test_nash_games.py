"""Rows of preference games on an exact game, through the training step: configs/real/nash_games.py.

The expected values are those of the closed-form updates of the papers.
"""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.losses import nash_mp

PATH = Path(__file__).parent.parent / "configs" / "real" / "nash_games.py"
spec = importlib.util.spec_from_file_location("nash_games", PATH)
games = sys.modules["nash_games"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(games)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def closed_form(update, updates=400):
    """Duality gaps of `theta <- update(t, theta)` on logits, in float64."""
    theta, found = games.CYCLE_START, []
    for t in range(updates):
        theta = update(t, theta)
        p = softmax(theta)
        found.append((games.CYCLE @ p).max() - (p @ games.CYCLE).min())
    return np.array(found)


def regularized(every=0):
    """Mirror descent with a pull to a reference that becomes the policy every so many steps."""
    magnet = games.CYCLE_START
    share = games.ETA * games.TAU

    def update(t, theta):
        nonlocal magnet
        if every and t and t % every == 0:
            magnet = np.log(softmax(theta))
        pulled = (1 - share) * theta + share * magnet
        return pulled + games.ETA * games.CYCLE @ softmax(theta)

    return update


def optimistic():
    before = softmax(games.CYCLE_START)

    def update(t, theta):
        nonlocal before
        p, last = softmax(theta), before
        before = p
        return theta + games.ETA * games.CYCLE @ (2 * p - last)

    return update


def extragradient(t, theta):
    share = games.ETA * games.TAU
    pulled = (1 - share) * theta + share * games.CYCLE_START
    half = softmax(pulled + games.ETA * games.CYCLE @ softmax(theta))
    return pulled + games.ETA * games.CYCLE @ half


CLOSED = {
    "plain self-play": lambda t, theta: theta + games.ETA * games.CYCLE @ softmax(theta),
    "INPO": regularized(),
    "COMAL, reset every 40": regularized(40),
    "MPO, magnet every 40": regularized(40),
    "OMWU": optimistic(),
    "EGPO": extragradient,
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_row_trained_by_the_step_follows_the_update_of_its_paper(name):
    """Losses, moving references, their synchronization and the two-call step are all in it."""
    found = games.cyclic(games.METHODS[name], 130)
    np.testing.assert_allclose(found, closed_form(CLOSED[name], 130), rtol=2e-3, atol=2e-5)


def test_plain_self_play_diverges_regularized_rows_are_biased_and_the_magnet_converges():
    last = {name: games.cyclic(games.METHODS[name])[-1] for name in ("plain self-play", "INPO")}
    assert last["plain self-play"] > 0.5
    assert 0.15 < last["INPO"] < 0.25
    assert games.cyclic(games.METHODS["MPO, magnet every 40"])[-1] < 1e-4


def test_a_magnet_solves_most_of_fifty_random_games_where_regularization_alone_solves_none():
    fifty = games.random_games(50)
    names = ("plain self-play", "INPO", "MPO, magnet every 40")
    found = [games.solved(games.METHODS[name], fifty) for name in names]
    np.testing.assert_allclose(found, [0.2, 0.0, 0.68], atol=0.021)  # a game is 0.02


BETA, STEP = 0.1, 2.0
"""Weight of the KL and size of the proximal step at which mirror prox has the rate of Nash-MP."""


def proximal(opponent, anchor):
    """log of the policy that maximizes P(p > opponent) - BETA KL(p || ref) - KL(p || anchor) /
    STEP, up to a constant: the derivative of each response is the same.
    """
    pull = BETA * games.CYCLE_START + anchor / STEP
    return (pull + games.CYCLE @ softmax(opponent)) / (BETA + 1 / STEP)


def equilibrium():
    """log-probs of the policy that is its own best response in the regularized game."""
    theta = games.CYCLE_START
    for _ in range(2000):
        theta = proximal(proximal(theta, theta), theta)
    return np.log(softmax(theta))


def kl_from(target, theta):
    return (np.exp(target) * (target - np.log(softmax(theta)))).sum()


def test_a_step_of_nash_mp_is_the_proximal_step_against_its_target():
    """The target is both opponent and anchor, as in the first of the two steps of mirror prox."""
    hyper = {"beta": BETA, "eta": STEP, "last_mixup_alpha": 1.0}
    method = games.Method("nash_mp", hyper, 1 / (BETA + 1 / STEP), "regularized")
    found = games.cyclic(method, 30)
    expected = closed_form(lambda t, theta: proximal(theta, theta), 30)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-5)


def test_the_loss_of_nash_mp_makes_both_steps_of_mirror_prox_at_the_papers_rate():
    """KL(equilibrium || policy) falls by (1 + 2 beta)^(-1/2) with each query of preferences."""
    solution, theta = equilibrium(), games.CYCLE_START

    def step(opponent, anchor):
        """From the anchor, by the exact expected gradient of the loss over the policy."""
        logps = [jnp.log(softmax(x))[:, None] for x in (anchor, games.CYCLE_START, anchor)]
        rest = (jnp.asarray(games.CYCLE @ softmax(opponent)), jnp.ones((3, 1), bool))

        def loss(x):
            return nash_mp(x, *logps[1:], *rest, beta=BETA, eta=STEP)[0].sum()

        weights = -jax.grad(loss)(logps[0])
        return anchor + np.asarray(weights)[:, 0] / (BETA + 1 / STEP)

    first = last = kl_from(solution, theta)
    for k in range(1, 25):
        theta = step(step(theta, theta), theta)
        assert kl_from(solution, theta) < last
        last = kl_from(solution, theta)
        assert last <= first * (1 + 2 * BETA) ** -k
    # and they are the closed forms
    np.testing.assert_allclose(
        softmax(step(step(theta, theta), theta)),
        softmax(proximal(proximal(theta, theta), theta)),
        rtol=1e-4,
    )


def test_nash_mp_with_a_slow_target_ends_at_the_equilibrium_of_mirror_prox():
    gap = games.cyclic(games.METHODS["Nash-MP"], 1500)[-1]
    p = softmax(equilibrium())
    assert gap == pytest.approx((games.CYCLE @ p).max() - (p @ games.CYCLE).min(), rel=1e-3)


def test_an_extragradient_without_a_half_step_is_online_ipo():
    """Two calls then move the policy as far as one step against its own samples."""
    method = games.METHODS["EGPO"]
    without = method._replace(hyper=method.hyper | {"half_step": 0.0})
    share = games.ETA * games.TAU

    def online_ipo(t, theta):
        pulled = (1 - share) * theta + share * games.CYCLE_START
        return pulled + games.ETA * games.CYCLE @ softmax(theta)

    found = games.cyclic(without, 100)
    np.testing.assert_allclose(found, closed_form(online_ipo, 100), rtol=2e-3, atol=2e-5)
    assert abs(games.cyclic(method, 100) - found).max() > 0.01
