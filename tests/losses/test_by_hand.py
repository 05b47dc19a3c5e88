"""Each loss and its gradient by hand: all inputs differ and nothing cancels, so that a dropped
or swapped term shows.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jalign import losses
from jalign.losses._math import log1mexp

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
C, J, RC, RJ, NC, NJ = A(-4.0), A(-9.5), A(-5.25), A(-8.0), A(4.0), A(3.0)


def sig(x):
    return 1 / (1 + math.exp(-x))


def grads(fn, *args, **kw):
    """Gradients with respect to every array that is a log-probability or a score."""
    return jax.grad(lambda a: fn(*a, **kw)[0].sum())(args)


def test_dpo_value_and_gradient_are_eq_7():
    h = 0.5 * ((-4 + 5.25) - (-9.5 + 8))
    np.testing.assert_allclose(
        losses.dpo(C, J, RC, RJ, beta=0.5)[0], [-math.log(sig(h))], rtol=1e-6
    )
    g = grads(losses.dpo, C, J, RC, RJ, beta=0.5)
    slope = 0.5 * sig(-h)
    np.testing.assert_allclose([float(x[0]) for x in g], [-slope, slope, slope, -slope], rtol=1e-5)


def test_cdpo_value_and_gradient():
    h = 0.5 * ((-4 + 5.25) - (-9.5 + 8))
    value = -0.8 * math.log(sig(h)) - 0.2 * math.log(sig(-h))
    out = losses.dpo(C, J, RC, RJ, beta=0.5, label_smoothing=0.2)[0]
    np.testing.assert_allclose(out, [value], rtol=1e-6)
    g = grads(losses.dpo, C, J, RC, RJ, beta=0.5, label_smoothing=0.2)
    np.testing.assert_allclose(g[0], [0.5 * (-0.8 * sig(-h) + 0.2 * sig(h))], rtol=1e-5)


def test_dpo_is_log_2_where_policy_and_reference_are_equal():
    np.testing.assert_allclose(losses.dpo(C, J, C, J)[0], [math.log(2)], rtol=1e-6)


def test_dpo_reports_the_implicit_rewards():
    metrics = losses.dpo(C, J, RC, RJ, beta=0.5)[1]
    np.testing.assert_allclose(metrics["chosen_rewards"], [0.5 * 1.25])
    np.testing.assert_allclose(metrics["rejected_rewards"], [0.5 * -1.5])


def test_ipo_value_and_gradient_are_eq_17_with_token_means():
    h = (-4 + 5.25) / 4 - (-9.5 + 8) / 3
    out = losses.ipo(C, J, RC, RJ, NC, NJ, tau=0.2)[0]
    np.testing.assert_allclose(out, [(h - 2.5) ** 2], rtol=1e-6)
    g = grads(losses.ipo, C, J, RC, RJ, NC, NJ, tau=0.2)
    np.testing.assert_allclose(g[0], [2 * (h - 2.5) / 4], rtol=1e-5)
    np.testing.assert_allclose(g[1], [-2 * (h - 2.5) / 3], rtol=1e-5)


def test_ipo_sum_value_and_gradient_are_eq_17():
    h = (-4 + 5.25) - (-9.5 + 8)
    out = losses.ipo_sum(C, J, RC, RJ, tau=0.2)[0]
    np.testing.assert_allclose(out, [(h - 2.5) ** 2], rtol=1e-5)
    g = grads(losses.ipo_sum, C, J, RC, RJ, tau=0.2)
    np.testing.assert_allclose(g[0], [2 * (h - 2.5)], rtol=1e-5)


def test_simpo_gradient_is_eq_6_differentiated():
    h = 2.0 * (-4 / 4 - -9.5 / 3) - 0.7
    out = losses.simpo(C, J, NC, NJ, beta=2.0, gamma=0.7)[0]
    np.testing.assert_allclose(out, [-math.log(sig(h))], rtol=1e-5)
    g = grads(losses.simpo, C, J, NC, NJ, beta=2.0, gamma=0.7)
    np.testing.assert_allclose(g[0], [-2.0 / 4 * sig(-h)], rtol=1e-5)
    np.testing.assert_allclose(g[1], [2.0 / 3 * sig(-h)], rtol=1e-5)


def test_orpo_value_and_gradient():
    a, b = -4 / 4, -9.5 / 3
    odds = (a - b) - (math.log(1 - math.exp(a)) - math.log(1 - math.exp(b)))
    out, metrics = losses.orpo(C, J, NC, NJ, beta=0.25)
    np.testing.assert_allclose(out, [-0.25 * math.log(sig(odds))], rtol=1e-5)
    np.testing.assert_allclose(metrics["log_odds_chosen"], [odds], rtol=1e-5)
    g = grads(losses.orpo, C, J, NC, NJ, beta=0.25)
    # d log odds / d mean log p = 1 / (1 - p)
    np.testing.assert_allclose(g[0], [-0.25 * sig(-odds) / (1 - math.exp(a)) / 4], rtol=1e-5)
    np.testing.assert_allclose(g[1], [0.25 * sig(-odds) / (1 - math.exp(b)) / 3], rtol=1e-5)


def test_orpo_stays_finite_where_the_model_is_certain():
    """The peers' log(1 - p) gave NaN there."""
    value, grad = jax.value_and_grad(lambda c: losses.orpo(c, J, NC, NJ)[0].sum())(A(0.0))
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_nll_value_and_gradient():
    np.testing.assert_allclose(losses.nll(C, NC)[0], [1.0])
    np.testing.assert_allclose(grads(losses.nll, C, NC)[0], [-0.25])


def test_sft_value_and_gradient():
    x = A(-1.5, -0.25)[None]
    np.testing.assert_allclose(losses.sft(x)[0], [[1.5, 0.25]])
    np.testing.assert_allclose(grads(losses.sft, x)[0], [[-1.0, -1.0]])


def test_kto_value_and_gradient_of_both_labels():
    logps, ref = A(-4.0, -9.5, -2.0), A(-5.25, -8.0, -2.5)
    kl, ref_kl = A(-6.0, -7.0, -3.0), A(-7.5, -7.25, -9.0)
    there, yes = jnp.array([True, True, False]), jnp.ones(3, bool)  # the third has no mismatch
    label = jnp.array([True, False, True])
    z0 = (1.5 + 0.25) / 2
    kw = dict(beta=0.5, desirable_weight=1.2, undesirable_weight=0.7)
    out = losses.kto(logps, ref, kl, ref_kl, there, yes, label, **kw)[0]
    ratio = [1.25, -1.5, 0.5]
    expected = [
        1.2 * (1 - sig(0.5 * (ratio[0] - z0))),
        0.7 * (1 - sig(0.5 * (z0 - ratio[1]))),
        1.2 * (1 - sig(0.5 * (ratio[2] - z0))),
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-5)

    def of(logps, kl):
        return losses.kto(logps, ref, kl, ref_kl, there, yes, label, **kw)[0].sum()

    g, g_kl = jax.grad(of, argnums=(0, 1))(logps, kl)
    s = [sig(0.5 * (ratio[0] - z0)), sig(0.5 * (z0 - ratio[1])), sig(0.5 * (ratio[2] - z0))]
    slopes = [x * (1 - x) * 0.5 for x in s]
    np.testing.assert_allclose(g, [-1.2 * slopes[0], 0.7 * slopes[1], -1.2 * slopes[2]], rtol=1e-4)
    np.testing.assert_array_equal(g_kl, [0, 0, 0])  # no gradient through z0


def test_kto_clamps_a_negative_kl_to_zero():
    yes = jnp.ones(1, bool)
    out, metrics = losses.kto(C, RC, A(-9.0), A(-2.0), yes, yes, yes, beta=0.5)
    np.testing.assert_allclose(metrics["kl"], [0.0])
    np.testing.assert_allclose(out, [1 - sig(0.5 * 1.25)], rtol=1e-6)


def test_bradley_terry_value_and_gradient():
    chosen, rejected = A(1.5), A(0.25)
    np.testing.assert_allclose(
        losses.bradley_terry(chosen, rejected)[0], [-math.log(sig(1.25))], rtol=1e-6
    )
    g = grads(losses.bradley_terry, chosen, rejected)
    np.testing.assert_allclose([float(x[0]) for x in g], [-sig(-1.25), sig(-1.25)], rtol=1e-6)


def test_reward_centering_is_the_square_of_the_sum():
    np.testing.assert_allclose(losses.reward_centering(A(1.5), A(0.25))[0], [1.75**2])
    np.testing.assert_allclose(grads(losses.reward_centering, A(1.5), A(0.25))[1], [3.5])


def test_log1mexp_is_exact_near_zero_and_far_below():
    x = np.array([-1e-7, -1e-3, -0.5, -0.6931, -0.6932, -5.0, -50.0])
    exact = np.where(x > -1, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
    np.testing.assert_allclose(log1mexp(jnp.asarray(x, jnp.float32)), exact, rtol=2e-6)
    assert np.isfinite(jax.vmap(jax.grad(log1mexp))(jnp.asarray(x, jnp.float32))).all()
