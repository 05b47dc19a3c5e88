"""Losses of preference games on sampled responses: Nash-MD, SPPO on samples, XPO."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.losses.games.inpo import inpo
from jalign.losses.games.nash_md import nash_md, nash_md_token
from jalign.losses.games.nash_mp import nash_mp
from jalign.losses.games.sppo_samples import sppo_samples
from jalign.losses.games.win_rates import egpo, omwu
from jalign.losses.pairwise.dpo import dpo
from jalign.losses.pairwise.ipo import ipo_sum
from jalign.losses.pairwise.sppo import sppo
from jalign.losses.pairwise.xpo import xpo

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = math.nan

MASK = jnp.array([[True, True, False], [True, True, True]])
LOGPS = A([-1.5, -0.5, NAN], [-2.0, -0.75, -1.0])  # sums -2, -3.75
REF = A([-1.0, -0.25, NAN], [-2.5, -2.0, -0.5])  # d: -0.5, -0.25 | 0.5, 1.25, -0.5
WIN = A(0.9, 0.35)
TAU = 0.2


def sig(x):
    return 1 / (1 + math.exp(-x))


def slope(fn, *arrays, of=0, **kw):
    at = lambda x: fn(*arrays[:of], x, *arrays[of + 1 :], **kw)[0].sum()  # noqa: E731
    return np.asarray(jax.grad(at)(arrays[of]))


def close(found, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


# ---- Nash-MD


def test_nash_md_value_and_gradient():
    out, metrics = nash_md(LOGPS, REF, WIN, MASK, tau=TAU)
    lead = [0.4 - TAU * -0.75, -0.15 - TAU * 1.25]
    close(out, [lead[0] * 2.0, lead[1] * 3.75])
    close(metrics["kl_k1"], [-0.75, 1.25])
    close(metrics["win_prob"], WIN)
    # every token answers for the log-ratio of the whole response, and nothing flows through that
    grad = slope(nash_md, LOGPS, REF, WIN, MASK, tau=TAU)
    close(grad, [[-lead[0], -lead[0], 0], [-lead[1]] * 3])
    assert not slope(nash_md, LOGPS, REF, WIN, MASK, of=2).any()


def test_nash_md_token_value_and_gradient():
    out, metrics = nash_md_token(LOGPS, REF, WIN, MASK, tau=TAU)
    # the gradient at a token: tau * its own log-ratio - (P - 1/2)
    grad = [[TAU * -0.5 - 0.4, TAU * -0.25 - 0.4, 0], [TAU * x + 0.15 for x in (0.5, 1.25, -0.5)]]
    close(slope(nash_md_token, LOGPS, REF, WIN, MASK, tau=TAU), grad)
    expected = np.array(grad) * np.where(MASK, LOGPS, 0)
    close(out, expected.sum(-1))
    close(metrics["kl_k1"], [-0.75, 1.25])


def test_nash_md_and_its_token_form_agree_on_responses_of_one_token():
    one = MASK & (jnp.arange(3) == 0)
    x = (LOGPS, REF, WIN, one)
    close(nash_md(*x, tau=TAU)[0], nash_md_token(*x, tau=TAU)[0])
    close(slope(nash_md, *x, tau=TAU), slope(nash_md_token, *x, tau=TAU))


# Two tokens in a row, each one of two, as exact sums over the four responses. The second token's
# distribution depends on the first.
THETA = A(0.4, -0.7, 0.9)
LOG_REF = jnp.log(A([0.3, 0.7], [0.6, 0.4], [0.2, 0.8]))


def _responses(theta):
    """[4, 2] log-probs of policy and reference of the tokens of each response."""
    logps = jnp.stack([jax.nn.log_sigmoid(theta), jax.nn.log_sigmoid(-theta)], -1)
    rows = [
        (table[0, a], table[1 + a, b]) for table in (logps, LOG_REF) for a in (0, 1) for b in (0, 1)
    ]
    rows = jnp.stack([jnp.stack(row) for row in rows])
    return rows[:4], rows[4:]


def _expected_gradient(fn, win):
    def loss(theta):
        logps, ref = _responses(theta)
        weights = jax.lax.stop_gradient(jnp.exp(logps.sum(-1)))
        return (weights * fn(logps, ref, win, jnp.ones((4, 2), bool), tau=TAU)[0]).sum()

    return jax.grad(loss)(THETA)


def test_the_expected_gradient_of_nash_md_is_that_of_the_regularised_preference():
    win = A(0.9, 0.2, 0.6, 0.35)

    def objective(theta):
        logps, ref = _responses(theta)
        p, d = jnp.exp(logps.sum(-1)), (logps - ref).sum(-1)
        return -(p * win).sum() + TAU * (p * d).sum()

    expected = jax.grad(objective)(THETA)
    close(_expected_gradient(nash_md, win), expected)
    biased = _expected_gradient(nash_md_token, win)
    assert abs(biased[0] - expected[0]) > 1e-3  # the first token does not see the second's KL
    close(biased[1:], expected[1:])


# ---- SPPO on samples


def test_sppo_samples_value_and_gradient():
    out, metrics = sppo_samples(LOGPS, REF, WIN, MASK, beta=0.25)
    away = [-0.75 - 0.4 / 0.25, 1.25 + 0.15 / 0.25]
    close(out, [x**2 for x in away])
    close(metrics["rewards"], [0.25 * -0.75, 0.25 * 1.25])
    grad = slope(sppo_samples, LOGPS, REF, WIN, MASK, beta=0.25)
    close(grad, [[2 * away[0], 2 * away[0], 0], [2 * away[1]] * 3])
    assert not slope(sppo_samples, LOGPS, REF, WIN, MASK, of=2, beta=0.25).any()


def test_the_mean_of_sppo_samples_over_a_pair_is_sppo():
    sums = [jnp.where(MASK, x, 0).sum(-1) for x in (LOGPS, REF)]
    pair = [x[i : i + 1] for x in sums for i in (0, 1)]
    both = sppo(*pair, WIN[:1], WIN[1:], beta=0.25)[0]
    close(sppo_samples(LOGPS, REF, WIN, MASK, beta=0.25)[0].mean(), both[0])


# ---- Nash-MP

LAST = A([-1.25, -0.75, NAN], [-1.5, -1.25, -0.75])  # d: -0.25, 0.25 | -0.5, 0.5, -0.25


def test_nash_mp_value_and_gradient():
    x = (LOGPS, REF, LAST, WIN, MASK)
    out, metrics = nash_mp(*x, beta=TAU, eta=4.0)
    weight = [0.4 - TAU * -0.75 - 0, -0.15 - TAU * 1.25 + 0.25 / 4]
    close(out, [weight[0] * 2.0, weight[1] * 3.75])
    close(metrics["kl_k1"], [-0.75, 1.25])
    close(metrics["kl_to_last"], [0, -0.25])
    grad = slope(nash_mp, *x, beta=TAU, eta=4.0)
    close(grad, [[-weight[0], -weight[0], 0], [-weight[1]] * 3])
    assert not slope(nash_mp, *x, of=3).any()


def test_nash_mp_far_from_its_target_is_nash_md():
    out = nash_mp(LOGPS, REF, LAST, WIN, MASK, beta=TAU, eta=1e9)[0]
    close(out, nash_md(LOGPS, REF, WIN, MASK, tau=TAU)[0])


# ---- XPO

PC, PR, RC, RR = A(-12, -20.5), A(-13.5, -18), A(-12.5, -19), A(-12.75, -18.5)
FROM_REF = A(1, 0)  # the chosen response of the first pair, the rejected one of the second


def test_xpo_value_and_gradient():
    out, metrics = xpo(PC, PR, RC, RR, FROM_REF, beta=0.5, alpha=0.03)
    h = [0.5 * (0.5 + 0.75), 0.5 * (-1.5 - 0.5)]
    close(out, [-math.log(sig(h[0])) - 0.03 * 12, -math.log(sig(h[1])) - 0.03 * 18])
    close(metrics["ref_response_logps"], [-12, -18])
    close(metrics["chosen_rewards"], [0.25, -0.75])
    close(metrics["rejected_rewards"], [-0.375, 0.25])
    push = [0.5 * sig(-x) for x in h]
    x = (PC, PR, RC, RR, FROM_REF)
    close(slope(xpo, *x, beta=0.5, alpha=0.03), [-push[0] + 0.03, -push[1]])
    close(slope(xpo, *x, of=1, beta=0.5, alpha=0.03), [push[0], push[1] + 0.03])


# ---- INPO, EGPO, OMWU

LC, LR = A(-12.25, -19.5), A(-13, -17.75)
PAIR = (PC, PR, RC, RR)


def test_inpo_value_and_gradient():
    x = (*PAIR, LC, LR)
    out, metrics = inpo(*x, eta=0.25, tau_ratio=0.25)
    chosen = [-12 + 0.25 * 12.5 + 0.75 * 12.25, -20.5 + 0.25 * 19 + 0.75 * 19.5]
    rejected = [-13.5 + 0.25 * 12.75 + 0.75 * 13, -18 + 0.25 * 18.5 + 0.75 * 17.75]
    away = [c - r - 2 for c, r in zip(chosen, rejected, strict=True)]
    close(out, [a**2 for a in away])
    close(metrics["chosen_rewards"], [0.25 * c for c in chosen])
    close(metrics["rejected_rewards"], [0.25 * r for r in rejected])
    close(slope(inpo, *x, eta=0.25, tau_ratio=0.25), [2 * a for a in away])
    close(slope(inpo, *x, of=1, eta=0.25, tau_ratio=0.25), [-2 * a for a in away])


def test_inpo_is_the_loss_of_comals_code():
    """Values of its `nash_loss` on these inputs, eta 0.3 and a ratio of 0.4."""
    found = inpo(*PAIR, LC, LR, eta=0.3, tau_ratio=0.4)[0]
    close(found, [0.51361132, 8.50693798])


def test_inpo_that_pulls_to_the_reference_only_is_ipo():
    close(inpo(*PAIR, LC, LR, eta=0.4, tau_ratio=1.0)[0], ipo_sum(*PAIR, tau=0.4)[0])


RATES = A(0.75, 0.3), A(0.2, 0.45)


def test_egpo_value_and_gradient():
    out, metrics = egpo(*PAIR, *RATES, beta=0.25)
    away = [0.5 + 0.75 - 0.55 / 0.25, -1.5 - 0.5 + 0.15 / 0.25]
    close(out, [a**2 for a in away])
    close(metrics["chosen_rewards"], [0.125, -0.375])
    close(slope(egpo, *PAIR, *RATES, beta=0.25), [2 * a for a in away])
    close(slope(egpo, *PAIR, *RATES, of=1, beta=0.25), [-2 * a for a in away])
    assert not slope(egpo, *PAIR, *RATES, of=4).any()


def test_egpo_over_all_pairs_is_the_loss_of_the_authors_code():
    """Value and gradient of their `online_ipo_1` for this game, with beta 0.3."""
    prefer = A([0.5, 0.7, 0.2], [0.3, 0.5, 0.85], [0.8, 0.15, 0.5])
    ref, (i, j) = jax.nn.log_softmax(A(-0.2, 0.6, 0.1)), jnp.divmod(jnp.arange(9), 3)

    def loss(logits):
        logps, rates = jax.nn.log_softmax(logits), prefer @ jax.nn.softmax(logits)
        arrays = (x[n] for x in (logps, ref, rates) for n in (i, j))
        return egpo(*arrays, beta=0.3)[0].mean()

    value, gradient = jax.value_and_grad(loss)(A(0.3, -0.4, 0.9))
    close(value, 2.27728105)
    close(gradient, [1.18444586, -2.00083590, 0.81639004])


def test_which_response_of_a_pair_is_called_chosen_does_not_matter_to_egpo():
    other = (PR, PC, RR, RC, *RATES[::-1])
    close(egpo(*PAIR, *RATES, beta=0.25)[0], egpo(*other, beta=0.25)[0])


def test_omwu_value_and_gradient():
    out, metrics = omwu(*PAIR, *RATES, eta=2.0)
    away = [1.25 - 2 * 0.55, -2 + 2 * 0.15]
    close(out, [a**2 for a in away])
    close(metrics["rejected_rewards"], [-0.375, 0.25])
    close(slope(omwu, *PAIR, *RATES, eta=2.0), [2 * a for a in away])


def test_xpo_without_exploration_is_dpo():
    for origin in (FROM_REF, 1 - FROM_REF):
        x = (PC, PR, RC, RR)
        close(xpo(*x, origin, beta=0.3, alpha=0.0)[0], dpo(*x, beta=0.3)[0])
        close(slope(xpo, *x, origin, beta=0.3, alpha=0.0), slope(dpo, *x, beta=0.3))


# ---- all of them


@pytest.mark.parametrize("fn", [nash_md, nash_md_token, sppo_samples])
def test_what_stands_at_unscored_places_or_without_a_response_does_not_matter(fn):
    def everything(logps, ref, win, mask):
        return fn(logps, ref, win, mask), slope(fn, logps, ref, win, mask)

    found = everything(LOGPS, REF, WIN, MASK)
    other = everything(*(jnp.where(MASK, x, 1e9) for x in (LOGPS, REF)), WIN, MASK)
    chex.assert_trees_all_equal(found, other)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    (loss, metrics), grad = everything(LOGPS, REF, A(NAN, 0.35), MASK.at[0].set(False))
    assert loss[0] == 0 and not grad[0].any() and np.isfinite(loss).all()
    assert all(m.shape == (2,) and np.isfinite(m).all() for m in metrics.values())


@pytest.mark.parametrize("fn", [nash_md, nash_md_token, sppo_samples])
def test_extreme_log_probabilities_stay_finite(fn):
    far = (A([-2400.0, -1e-7, -9.0]), A([-1e-7, -2400.0, -800.0]))
    for x in (far, far[::-1]):
        arrays = (*x, A(1.0), MASK[1:])
        assert np.isfinite(fn(*arrays)[0]).all() and np.isfinite(slope(fn, *arrays)).all()


@pytest.mark.parametrize(
    ("fn", "arrays", "numbers"),
    [
        (nash_md, (LOGPS, REF, WIN, MASK), {"tau": 0.0}),
        (nash_md_token, (LOGPS, REF, WIN, MASK), {"tau": -0.1}),
        (sppo_samples, (LOGPS, REF, WIN, MASK), {"beta": 0.0}),
        (nash_mp, (LOGPS, REF, LAST, WIN, MASK), {"beta": 0.0}),
        (nash_mp, (LOGPS, REF, LAST, WIN, MASK), {"eta": -1.0}),
        (inpo, (*PAIR, LC, LR), {"eta": 0.0}),
        (inpo, (*PAIR, LC, LR), {"tau_ratio": 1.5}),
        (egpo, (*PAIR, *RATES), {"beta": 0.0}),
        (omwu, (*PAIR, *RATES), {"eta": 0.0}),
        (xpo, (PC, PR, RC, RR, FROM_REF), {"beta": 0.0}),
        (xpo, (PC, PR, RC, RR, FROM_REF), {"alpha": -1e-5}),
    ],
)
def test_numbers_out_of_range_are_refused(fn, arrays, numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        fn(*arrays, **numbers)
