"""DPO's relatives with a reference: each loss and its gradient by hand, and the golden values.

Robust DPO, DPOP, R-DPO, LD-DPO, length-normalized DPO, GPO, f-DPO, WPO, TDPO, APO, DiscoPOP.
Identities, extreme inputs and refusals: test_dpo_variants_identities.py.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jalign.losses.pairwise.apo import apo_down, apo_zero
from jalign.losses.pairwise.discopop import discopop
from jalign.losses.pairwise.dpop import dpop
from jalign.losses.pairwise.f_dpo import f_dpo_alpha, f_dpo_forward_kl, f_dpo_js
from jalign.losses.pairwise.gpo import (
    gpo_exponential,
    gpo_hinge,
    gpo_savage,
    gpo_squared,
    gpo_truncated_quadratic,
)
from jalign.losses.pairwise.ld_dpo import ld_dpo
from jalign.losses.pairwise.norm import dpo_norm
from jalign.losses.pairwise.r_dpo import r_dpo
from jalign.losses.pairwise.robust import robust_dpo
from jalign.losses.pairwise.tdpo import tdpo1, tdpo2
from jalign.losses.pairwise.wpo import wpo

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
# Two pairs: d_w = 1.25, -0.5 and d_l = -1.5, 0.75, so D = 2.75, -1.25.
C, J, RC, RJ = A(-4.0, -7.5), A(-9.5, -6.0), A(-5.25, -7.0), A(-8.0, -6.75)
FOUR = (C, J, RC, RJ)
NC, NJ = A(4.0, 5.0), A(3.0, 7.0)
W, L = (1.25, -0.5), (-1.5, 0.75)


def sig(x):
    return 1 / (1 + math.exp(-x))


def nls(x):
    """-log sigmoid(x)"""
    return math.log1p(math.exp(-x))


def grads(fn, *args, **kw):
    """Of the summed loss, with respect to every array that is a number."""
    return jax.grad(lambda a: fn(*a, **kw)[0].sum())(args)


def close(value, expected, rtol=1e-5):
    np.testing.assert_allclose(value, expected, rtol=rtol)


def slopes_are(g, chosen, rejected):
    """By a log-ratio: the reference's slope is the policy's with the other sign."""
    chosen, rejected = np.array(chosen), np.array(rejected)
    for got, expected in zip(g, (chosen, rejected, -chosen, -rejected), strict=False):
        close(got, expected)


def rewards_are(metrics, chosen, rejected):
    close(metrics["chosen_rewards"], chosen)
    close(metrics["rejected_rewards"], rejected)


# By hand


def test_robust_dpo_value_and_gradient_by_hand():
    kw = dict(beta=0.5, label_smoothing=0.2)
    loss, metrics = robust_dpo(*FOUR, **kw)
    h = [0.5 * 2.75, 0.5 * -1.25]
    close(loss, [(0.8 * nls(x) - 0.2 * nls(-x)) / 0.6 for x in h])
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    # d nls(h) = -sigmoid(-h), d nls(-h) = sigmoid(h)
    slope = [0.5 * (-0.8 * sig(-x) - 0.2 * sig(x)) / 0.6 for x in h]
    slopes_are(grads(robust_dpo, *FOUR, **kw), slope, [-s for s in slope])


def test_dpop_value_and_gradient_by_hand():
    kw = dict(beta=0.5, lam=3.0)
    loss, metrics = dpop(*FOUR, **kw)
    h = [0.5 * 2.75, 0.5 * (-1.25 - 3 * 0.5)]  # only the second chosen response has lost
    close(loss, [nls(x) for x in h])
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    pull = [0.5 * sig(-x) for x in h]
    slopes_are(grads(dpop, *FOUR, **kw), [-pull[0], -pull[1] * (1 + 3)], pull)


def test_r_dpo_value_and_gradient_by_hand():
    kw = dict(beta=0.5, alpha=0.3)
    loss, metrics = r_dpo(*FOUR, NC, NJ, **kw)
    h = [0.5 * 2.75 + 0.3 * (4 - 3), 0.5 * -1.25 + 0.3 * (5 - 7)]
    close(loss, [nls(x) for x in h])
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    pull = np.array([0.5 * sig(-x) for x in h])
    g = grads(r_dpo, *FOUR, NC, NJ, **kw)
    slopes_are(g, -pull, pull)
    close(g[4], [-0.3 * sig(-x) for x in h])  # a longer chosen response lowers the loss


def test_dpo_norm_value_and_gradient_by_hand():
    loss, metrics = dpo_norm(*FOUR, NC, NJ, beta=2.5)
    w, r = [2.5 * 1.25 / 4, 2.5 * -0.5 / 5], [2.5 * -1.5 / 3, 2.5 * 0.75 / 7]
    h = [w[0] - r[0], w[1] - r[1]]
    close(loss, [nls(x) for x in h])
    rewards_are(metrics, w, r)
    chosen = [-2.5 / n * sig(-x) for n, x in zip((4, 5), h, strict=True)]
    rejected = [2.5 / n * sig(-x) for n, x in zip((3, 7), h, strict=True)]
    slopes_are(grads(dpo_norm, *FOUR, NC, NJ, beta=2.5), chosen, rejected)


# Of the first pair the chosen response is the longer one, of the second the rejected one. What
# stands at masked places must not be looked at.
NAN = math.nan
TOKENS = (
    jnp.array([[-1.0, -2.0, -0.5, -3.0], [-1.5, 1e30, NAN, NAN]]),
    jnp.array([[-2.5, -0.75, NAN, 7.0], [-0.25, -1.0, -2.0, NAN]]),
    jnp.array([[-1.5, -1.25, -2.0, -2.75], [-1.0, NAN, 4.0, NAN]]),
    jnp.array([[-1.0, -1.75, 5.0, NAN], [-1.5, -0.5, -4.0, NAN]]),
)
MASKS = (
    jnp.array([[True, True, True, True], [True, False, False, False]]),
    jnp.array([[True, True, False, False], [True, True, True, False]]),
)


def test_ld_dpo_value_and_gradient_by_hand():
    kw = dict(beta=0.5, alpha=0.3)
    loss, metrics = ld_dpo(*TOKENS, *MASKS, **kw)
    w = [(0.5 - 0.75) + 0.3 * (1.5 - 0.25), -0.5]
    r = [-1.5 + 1.0, 1.25 + 0.3 * (-0.5 + 2.0)]
    h = [0.5 * (w[0] - r[0]), 0.5 * (w[1] - r[1])]
    close(loss, [nls(x) for x in h])
    rewards_are(metrics, [0.5 * x for x in w], [0.5 * x for x in r])
    p, q = (0.5 * sig(-x) for x in h)
    g = jax.grad(lambda a: ld_dpo(*a, *MASKS, **kw)[0].sum())(TOKENS)
    chosen = np.array([[-p, -p, -0.3 * p, -0.3 * p], [-q, 0, 0, 0]])
    rejected = np.array([[p, p, 0, 0], [q, 0.3 * q, 0.3 * q, 0]])
    slopes_are(g, chosen, rejected)


def test_ld_dpo_counts_positions_among_scored_tokens():
    """A mask with a hole in front weighs as the same tokens without the hole."""
    hole = jnp.array([[False, True, True, True]])
    front = jnp.array([[True, True, True, False]])
    one = jnp.array([[True, False, False, False]])
    x, zero = jnp.array([[0.5, -0.25, 2.0, 9.0]]), jnp.zeros((1, 4))
    shifted = jnp.roll(x, 1, axis=1)
    a = ld_dpo(x, zero, zero, zero, front, one, beta=0.5, alpha=0.3)[1]["chosen_rewards"]
    b = ld_dpo(shifted, zero, zero, zero, hole, one, beta=0.5, alpha=0.3)[1]["chosen_rewards"]
    close(a, [0.5 * (0.5 + 0.3 * (-0.25 + 2.0))])
    close(b, a)


def test_gpo_hinge_value_and_gradient_by_hand():
    loss, metrics = gpo_hinge(*FOUR, beta=0.5)  # x = 1.375, -0.625
    np.testing.assert_allclose(loss, [0, 1.625])
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    slopes_are(grads(gpo_hinge, *FOUR, beta=0.5), [0, -0.5], [0, 0.5])


def test_gpo_squared_value_and_gradient_by_hand():
    loss, metrics = gpo_squared(*FOUR, beta=0.5)
    close(loss, [0.375**2, 1.625**2])
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    slope = [0.5 * 2 * 0.375, 0.5 * 2 * -1.625]  # the first pair is pulled back
    slopes_are(grads(gpo_squared, *FOUR, beta=0.5), slope, [-s for s in slope])


def test_gpo_exponential_value_and_gradient_by_hand():
    loss, metrics = gpo_exponential(*FOUR, beta=0.5)
    close(loss, [math.exp(-1.375), math.exp(0.625)])
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    slope = [-0.5 * math.exp(-1.375), -0.5 * math.exp(0.625)]
    slopes_are(grads(gpo_exponential, *FOUR, beta=0.5), slope, [-s for s in slope])


def test_gpo_exponential_is_constant_below_minus_20():
    x = A(-19.5, -20.5), A(0.0, 0.0), A(0.0, 0.0), A(0.0, 0.0)
    close(gpo_exponential(*x, beta=1.0)[0], [math.exp(19.5), math.exp(20)])
    close(grads(gpo_exponential, *x, beta=1.0)[0], [-math.exp(19.5), 0])


def test_gpo_truncated_quadratic_value_and_gradient_by_hand():
    loss, metrics = gpo_truncated_quadratic(*FOUR, beta=0.5)
    close(loss, [0, 1.625**2])  # x = 1.375 > 1 is left alone, where the squared loss is 0.140625
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    g = grads(gpo_truncated_quadratic, *FOUR, beta=0.5)
    slopes_are(g, [0, 0.5 * 2 * -1.625], [0, 0.5 * 2 * 1.625])


def test_gpo_savage_value_and_gradient_by_hand():
    loss, metrics = gpo_savage(*FOUR, beta=0.5)
    close(loss, [1 / (1 + math.exp(1.375)) ** 2, 1 / (1 + math.exp(-0.625)) ** 2])
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    slope = [-0.5 * 2 * sig(-x) ** 2 * sig(x) for x in (1.375, -0.625)]
    slopes_are(grads(gpo_savage, *FOUR, beta=0.5), slope, [-s for s in slope])


def f_dpo_is(fn, value, derivative, **kw):
    """-log sigmoid(0.5 * (g(d_w) - g(d_l))), its gradient and its rewards, from g and g'."""
    loss, metrics = fn(*FOUR, beta=0.5, **kw)
    h = [0.5 * (value(w) - value(r)) for w, r in zip(W, L, strict=True)]
    close(loss, [nls(x) for x in h])
    rewards_are(metrics, [0.5 * value(w) for w in W], [0.5 * value(r) for r in L])
    chosen = [-0.5 * derivative(w) * sig(-x) for w, x in zip(W, h, strict=True)]
    rejected = [0.5 * derivative(r) * sig(-x) for r, x in zip(L, h, strict=True)]
    slopes_are(grads(fn, *FOUR, beta=0.5, **kw), chosen, rejected)


def test_f_dpo_forward_kl_value_and_gradient_by_hand():
    f_dpo_is(f_dpo_forward_kl, lambda d: 1 - math.exp(-d), lambda d: math.exp(-d))


def test_f_dpo_js_value_and_gradient_by_hand():
    f_dpo_is(f_dpo_js, lambda d: math.log(2 / (1 + math.exp(-d))), lambda d: 1 / (1 + math.exp(d)))


def test_f_dpo_alpha_value_and_gradient_by_hand():
    f_dpo_is(
        f_dpo_alpha,
        lambda d: (1 - math.exp(-0.3 * d)) / 0.3,
        lambda d: math.exp(-0.3 * d),
        alpha=0.3,
    )


def test_f_dpo_clamps_its_exponents_at_80():
    x = A(-79.0, -81.0), A(0.0, 0.0), A(0.0, 0.0), A(0.0, 0.0)
    reward = f_dpo_forward_kl(*x, beta=0.5)[1]["chosen_rewards"]
    close(reward, [-0.5 * math.exp(79), -0.5 * math.exp(80)])
    assert grads(f_dpo_forward_kl, *x, beta=0.5)[0].tolist()[1] == 0
    x = A(-316.0, -324.0), *x[1:]
    reward = f_dpo_alpha(*x, beta=0.5, alpha=0.25)[1]["chosen_rewards"]
    close(reward, [-0.5 * 4 * math.exp(79), -0.5 * 4 * math.exp(80)])
    assert grads(f_dpo_alpha, *x, beta=0.5, alpha=0.25)[0].tolist()[1] == 0


# sum of log sum p^2: chosen -3, -6; rejected -5.5, -5.5
WPO = (*FOUR, A(-3.0, -6.0), A(-5.5, -5.5), NC, NJ)


def test_wpo_value_and_gradient_by_hand():
    loss, metrics = wpo(*WPO, beta=0.5)
    weight = [
        math.exp((-4 + 3) / 4 + (-9.5 + 5.5) / 3),
        math.exp((-7.5 + 6) / 5 + (-6 + 5.5) / 7),
    ]
    h = [0.5 * 2.75, 0.5 * -1.25]
    close(loss, [w * nls(x) for w, x in zip(weight, h, strict=True)])
    rewards_are(metrics, [0.625, -0.25], [-0.75, 0.375])
    close(metrics["weight"], weight)
    pull = np.array([0.5 * w * sig(-x) for w, x in zip(weight, h, strict=True)])
    g = grads(wpo, *WPO, beta=0.5)
    slopes_are(g, -pull, pull)  # as of a constant weight
    for through_the_weight in g[4:]:
        np.testing.assert_array_equal(through_the_weight, [0, 0])


def test_wpo_clamps_the_product_of_both_weights_at_1():
    # mean a of chosen and rejected: 0.5 and -0.75 of the first pair, 0.5 and -0.25 of the second
    usual = A(-4.0 - 4 * 0.5, -7.5 - 5 * 0.5), A(-9.5 + 3 * 0.75, -6.0 + 7 * 0.25)
    loss, metrics = wpo(*FOUR, *usual, NC, NJ, beta=0.5)
    close(metrics["weight"], [math.exp(-0.25), 1.0])
    close(loss, [math.exp(-0.25) * nls(0.5 * 2.75), nls(0.5 * -1.25)])


KL = (A(0.5, 1.75), A(1.25, 0.25))  # S_w, S_l


def test_tdpo1_value_and_gradient_by_hand():
    loss, metrics = tdpo1(*FOUR, *KL, beta=0.5)
    h = [0.5 * (2.75 - (1.25 - 0.5)), 0.5 * (-1.25 - (0.25 - 1.75))]
    close(loss, [nls(x) for x in h])
    rewards_are(metrics, [0.5 * 1.75, 0.5 * 1.25], [0.5 * -0.25, 0.5 * 1.0])
    pull = np.array([0.5 * sig(-x) for x in h])
    g = grads(tdpo1, *FOUR, *KL, beta=0.5)
    slopes_are(g, -pull, pull)
    close(g[4], -pull)
    close(g[5], pull)


def test_tdpo2_value_and_gradient_by_hand():
    kw = dict(beta=0.5, alpha=0.3)
    loss, metrics = tdpo2(*FOUR, *KL, **kw)
    h = [0.5 * (2.75 - 0.3 * (1.25 - 0.5)), 0.5 * (-1.25 - 0.3 * (0.25 - 1.75))]
    close(loss, [nls(x) for x in h])
    rewards_are(metrics, [0.5 * 1.75, 0.5 * 1.25], [0.5 * -0.25, 0.5 * 1.0])
    pull = np.array([0.5 * sig(-x) for x in h])
    g = grads(tdpo2, *FOUR, *KL, **kw)
    slopes_are(g, -pull, pull)
    np.testing.assert_array_equal(g[4], [0, 0])
    close(g[5], 0.3 * pull)


def test_apo_zero_value_and_gradient_by_hand():
    loss, metrics = apo_zero(*FOUR, beta=0.5)
    w, r = (0.625, -0.25), (-0.75, 0.375)
    close(loss, [1 - sig(a) + sig(b) for a, b in zip(w, r, strict=True)])
    rewards_are(metrics, w, r)
    chosen = [-0.5 * sig(a) * sig(-a) for a in w]
    rejected = [0.5 * sig(b) * sig(-b) for b in r]
    slopes_are(grads(apo_zero, *FOUR, beta=0.5), chosen, rejected)


def test_apo_down_value_and_gradient_by_hand():
    loss, metrics = apo_down(*FOUR, beta=0.5)
    w, h = (0.625, -0.25), (1.375, -0.625)
    close(loss, [sig(a) + 1 - sig(x) for a, x in zip(w, h, strict=True)])
    rewards_are(metrics, w, (-0.75, 0.375))
    margin = [0.5 * sig(x) * sig(-x) for x in h]
    chosen = [0.5 * sig(a) * sig(-a) - m for a, m in zip(w, margin, strict=True)]
    slopes_are(grads(apo_down, *FOUR, beta=0.5), chosen, margin)


def test_discopop_value_and_gradient_by_hand():
    kw = dict(beta=0.2, tau=0.4)
    loss, metrics = discopop(*FOUR, **kw)
    h = [0.2 * 2.75, 0.2 * -1.25]
    m = [sig(x / 0.4) for x in h]
    close(loss, [(1 - b) * nls(x) + b * math.exp(-x) for b, x in zip(m, h, strict=True)])
    rewards_are(metrics, [0.25, -0.1], [-0.3, 0.15])
    slope = [
        0.2
        * (
            -b * (1 - b) / 0.4 * nls(x)
            - (1 - b) * sig(-x)
            + b * (1 - b) / 0.4 * math.exp(-x)
            - b * math.exp(-x)
        )
        for b, x in zip(m, h, strict=True)
    ]
    slopes_are(grads(discopop, *FOUR, **kw), slope, [-s for s in slope])


# Golden values: computed once in float64 from the papers' formulas; batch means

PC, PR = A(-12, -20.5, -8.25, -31), A(-13.5, -18, -9, -29.5)
GC, GR = A(-12.5, -19, -9, -30), A(-12.75, -18.5, -8.5, -30.25)
GOLDEN = (PC, PR, GC, GR)
LW, LL = A(10, 16, 6, 25), A(12, 14, 7, 22)
SW, SL = A(1, 2, 0.5, 0.7), A(0.8, 2.5, 0.6, 1.1)


def golden(out, value):
    np.testing.assert_allclose(float(out[0].mean()), value, rtol=2e-6)


def test_golden_values_of_the_variants_of_dpo():
    golden(robust_dpo(*GOLDEN, beta=0.1, label_smoothing=0.1), 0.715858)
    golden(dpop(*GOLDEN, beta=0.3, lam=5.0), 1.525365)
    golden(r_dpo(*GOLDEN, LW, LL, beta=0.1, alpha=0.05), 0.696799)
    golden(tdpo1(*GOLDEN, SW, SL, beta=0.1), 0.723232)
    golden(tdpo2(*GOLDEN, SW, SL, beta=0.1, alpha=0.5), 0.717556)
    golden(apo_zero(*GOLDEN, beta=0.1), 1.007793)
    golden(apo_down(*GOLDEN, beta=0.1), 0.999971)


def test_golden_values_of_gpo():
    golden(gpo_hinge(*GOLDEN, beta=0.1), 1.031250)
    golden(gpo_squared(*GOLDEN, beta=0.1), 1.087969)
    golden(gpo_exponential(*GOLDEN, beta=0.1), 1.044411)
    golden(gpo_truncated_quadratic(*GOLDEN, beta=0.1), 1.087969)
    golden(gpo_savage(*GOLDEN, beta=0.1), 0.259347)


def test_gpo_truncated_quadratic_differs_from_the_square_where_x_exceeds_1():
    # x = 1.25, -2, 1.25, -1.75 at beta = 1: in the golden values above every x is below 1
    golden(gpo_truncated_quadratic(*GOLDEN, beta=1.0), (3**2 + 2.75**2) / 4)
    golden(gpo_squared(*GOLDEN, beta=1.0), (2 * 0.25**2 + 3**2 + 2.75**2) / 4)


def test_golden_values_of_f_dpo():
    golden(f_dpo_forward_kl(*GOLDEN, beta=0.1), 0.743456)
    golden(f_dpo_js(*GOLDEN, beta=0.1), 0.705427)
    golden(f_dpo_alpha(*GOLDEN, beta=0.1, alpha=0.3), 0.717926)
