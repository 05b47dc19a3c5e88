"""Losses of pairs that depend on the batch (beta-DPO, AOT, BCO) or aim at a target distribution or
win rate (EXO, NCA, SPPO, DNO): by hand, golden values, identities, batch coupling.
"""

import inspect
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.losses.pairwise.aot import aot, aot_unpaired
from jalign.losses.pairwise.bco import bco_pair, bco_terms
from jalign.losses.pairwise.beta_dpo import beta_dpo
from jalign.losses.pairwise.dno import dno
from jalign.losses.pairwise.dpo import dpo
from jalign.losses.pairwise.exo import exo_pair
from jalign.losses.pairwise.nca import nca_pair
from jalign.losses.pairwise.sppo import sppo, sppo_hard

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
S = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
C, J, RC, RJ = A(-4.0), A(-9.5), A(-5.25), A(-8.0)  # one pair: d_w = 1.25, d_l = -1.5
NAN = math.nan
# Three pairs around an absent one: d_w = 1.25, 0.5, -0.5; d_l = -1.5, 0.75, 1.5.
C4, J4 = A(-4.0, NAN, -7.0, -3.5), A(-9.5, NAN, -6.0, -5.0)
RC4, RJ4 = A(-5.25, NAN, -7.5, -3.0), A(-8.0, NAN, -6.75, -6.5)
THERE = jnp.array([True, False, True, True])
HERE = np.asarray(THERE)


def sig(x):
    return 1 / (1 + math.exp(-x))


def nls(x):
    """-log sigmoid(x)"""
    return math.log1p(math.exp(-x))


def grads(fn, *args, **kw):
    """Of the summed loss, with respect to the four log-probabilities."""
    return jax.grad(lambda a: fn(*a, *args[4:], **kw)[0].sum())(args[:4])


def close(value, expected, rtol=1e-5):
    np.testing.assert_allclose(value, expected, rtol=rtol)


# By hand


def test_beta_dpo_value_and_gradient_by_hand():
    # D = 2.75, -0.25, -2; their mean is 1/6, and with ddof = 1
    spread = math.sqrt(((2.75 - 1 / 6) ** 2 + (-0.25 - 1 / 6) ** 2 + (-2 - 1 / 6) ** 2) / 2)
    mu, s = 0.75 * 0.4 + 0.25 / 6, 0.75 * 1.5 + 0.25 * spread
    score = [
        0.3 - ((2.75 - mu) / s) ** 2 / 2,
        -0.2 - ((-0.25 - mu) / s) ** 2 / 2,
        0.9 - ((-2 - mu) / s) ** 2 / 2,
    ]
    assert score[0] < score[1] < score[2]  # the noise alone would have left out the second
    beta_batch = 0.5 * (1 + 0.3 * ((-0.25 - 2) / 2 - mu))
    x = C4, J4, RC4, RJ4, THERE, A(0.3, NAN, -0.2, 0.9), S(0.4), S(1.5)
    kw = dict(beta=0.5, alpha=0.3, momentum=0.75, keep=0.7)  # floor(0.7 * 3) = 2 drawn
    loss, metrics = beta_dpo(*x, **kw)
    close(loss[HERE], [0, 1.5 * nls(-0.25 * beta_batch), 1.5 * nls(-2 * beta_batch)])
    close(metrics["beta_batch"], [beta_batch] * 4)
    close(metrics["gap_mean"], [mu] * 4)
    close(metrics["gap_std"], [s] * 4)
    close(metrics["chosen_rewards"][HERE], [0.625, 0.25, -0.25])
    close(metrics["rejected_rewards"][HERE], [-0.75, 0.375, 0.75])
    g = [1.5 * beta_batch * sig(-h * beta_batch) for h in (-0.25, -2)]
    expected = np.array([0, 0, g[0], g[1]])
    for got, sign in zip(grads(beta_dpo, *x, **kw), (-1, 1, 1, -1), strict=True):
        close(got, sign * expected)


def test_aot_value_and_gradient_by_hand():
    # policy margins u = 5.5, -1, 1.5; reference margins 2.75, -0.75, 3.5, sorted -0.75, 2.75, 3.5
    kw = dict(beta=0.5, label_smoothing=0.2)
    loss, metrics = aot(C4, J4, RC4, RJ4, THERE, **kw)
    h = [0.5 * (5.5 - 3.5), 0.5 * (-1 + 0.75), 0.5 * (1.5 - 2.75)]
    close(loss[HERE], [0.8 * nls(x) + 0.2 * nls(-x) for x in h])
    close(metrics["chosen_rewards"][HERE], [0.625, 0.25, -0.25])
    close(metrics["rejected_rewards"][HERE], [-0.75, 0.375, 0.75])
    slope = [0.5 * (0.8 * sig(-x) - 0.2 * sig(x)) for x in h]
    g = grads(aot, C4, J4, RC4, RJ4, THERE, **kw)
    close(g[0], [-slope[0], 0, -slope[1], -slope[2]])
    close(g[1], [slope[0], 0, slope[1], slope[2]])
    # the reference's margin 2.75 is the first pair's and meets u = 1.5 of the last, and so on
    close(g[2], [slope[2], 0, slope[1], slope[0]])
    close(g[3], [-slope[2], 0, -slope[1], -slope[0]])


def test_aot_unpaired_value_and_gradient_by_hand():
    # u = d_w = 1.25, 0.5, -0.5; v = d_l = -1.5, 0.75, 1.5: ranks 2, 1, 0 against 0, 1, 2
    kw = dict(beta=0.5, label_smoothing=0.2)
    loss, metrics = aot_unpaired(C4, J4, RC4, RJ4, THERE, **kw)
    h = [0.5 * (1.25 - 1.5), 0.5 * (0.5 - 0.75), 0.5 * (-0.5 + 1.5)]
    close(loss[HERE], [0.8 * nls(x) + 0.2 * nls(-x) for x in h])
    close(metrics["chosen_rewards"][HERE], [0.625, 0.25, -0.25])
    close(metrics["rejected_rewards"][HERE], [-0.75, 0.375, 0.75])
    slope = [0.5 * (0.8 * sig(-x) - 0.2 * sig(x)) for x in h]
    g = grads(aot_unpaired, C4, J4, RC4, RJ4, THERE, **kw)
    close(g[0], [-slope[0], 0, -slope[1], -slope[2]])
    close(g[1], [slope[2], 0, slope[1], slope[0]])  # through the sort of v
    close(g[2], [slope[0], 0, slope[1], slope[2]])
    close(g[3], [-slope[2], 0, -slope[1], -slope[0]])


def test_exo_pair_value_and_gradient_by_hand():
    h = 0.5 * (1.25 + 1.5)
    q = sig(h)
    loss, metrics = exo_pair(C, J, RC, RJ, beta=0.5, label_smoothing=0.05)
    close(loss, [q * math.log(q / 0.95) + (1 - q) * math.log((1 - q) / 0.05)])
    close(metrics["chosen_rewards"], [0.625])
    close(metrics["rejected_rewards"], [-0.75])
    slope = 0.5 * q * (1 - q) * (h - math.log(0.95 / 0.05))
    g = grads(exo_pair, C, J, RC, RJ, beta=0.5, label_smoothing=0.05)
    close([float(x[0]) for x in g], [slope, -slope, -slope, slope])


def test_nca_pair_value_and_gradient_by_hand():
    loss, metrics = nca_pair(C, J, RC, RJ, beta=0.5)
    close(loss, [nls(0.625) + 0.5 * nls(-0.625) + 0.5 * nls(0.75)])
    close(metrics["chosen_rewards"], [0.625])
    close(metrics["rejected_rewards"], [-0.75])
    w, r = 0.5 * (-sig(-0.625) + 0.5 * sig(0.625)), 0.5 * 0.5 * sig(-0.75)
    close([float(x[0]) for x in grads(nca_pair, C, J, RC, RJ, beta=0.5)], [w, r, -w, -r])


def test_bco_pair_value_and_gradient_by_hand():
    # rewards 0.625, 0.25, -0.25 (mean 5/24) and -0.75, 0.375, 0.75 (mean 1/8)
    delta = 0.75 * 0.3 + 0.25 * 0.5 * (5 / 24 + 1 / 8)
    x = C4, J4, RC4, RJ4, THERE, S(0.3)
    loss, metrics = bco_pair(*x, beta=0.5, momentum=0.75)
    chosen, rejected = (0.625, 0.25, -0.25), (-0.75, 0.375, 0.75)
    pairs = list(zip(chosen, rejected, strict=True))
    close(loss[HERE], [nls(w - delta) + nls(delta - r) for w, r in pairs])
    close(metrics["delta"], [delta] * 4)
    close(metrics["chosen_rewards"][HERE], chosen)
    close(metrics["rejected_rewards"][HERE], rejected)
    w = np.array([0.5 * sig(delta - v) for v in chosen])
    r = np.array([0.5 * sig(v - delta) for v in rejected])
    g = grads(bco_pair, *x, beta=0.5, momentum=0.75)  # none through delta
    for got, expected in zip(g, (-w, r, w, -r), strict=True):
        close(got[HERE], expected)


def test_sppo_value_and_gradient_by_hand():
    x = C, J, RC, RJ, A(0.8), A(0.35)
    loss, metrics = sppo(*x, beta=0.05)
    w, r = 1.25 - 20 * 0.3, -1.5 - 20 * -0.15
    close(loss, [0.5 * (w**2 + r**2)])
    close(metrics["chosen_rewards"], [0.0625])
    close(metrics["rejected_rewards"], [-0.075])
    close([float(v[0]) for v in grads(sppo, *x, beta=0.05)], [w, r, -w, -r])


def test_sppo_hard_value_and_gradient_by_hand():
    loss, metrics = sppo_hard(C, J, RC, RJ, beta=0.05)
    w, r = 1.25 - 10, -1.5 + 10
    close(loss, [w**2 + r**2])
    close(metrics["chosen_rewards"], [0.0625])
    close(metrics["rejected_rewards"], [-0.075])
    g = grads(sppo_hard, C, J, RC, RJ, beta=0.05)
    close([float(v[0]) for v in g], [2 * w, 2 * r, -2 * w, -2 * r])


def test_dno_value_and_gradient_by_hand():
    h = 0.5 * (1.25 + 1.5)
    loss, metrics = dno(C, J, RC, RJ, A(0.65), beta=0.5)
    close(loss, [0.65 * nls(h) + 0.35 * nls(-h)])
    close(metrics["chosen_rewards"], [0.625])
    close(metrics["rejected_rewards"], [-0.75])
    slope = 0.5 * (0.65 * sig(-h) - 0.35 * sig(h))
    g = grads(dno, C, J, RC, RJ, A(0.65), beta=0.5)
    close([float(v[0]) for v in g], [-slope, slope, slope, -slope])


# Golden values: computed once in float64 from the papers' formulas; batch means

PC, PR = A(-12, -20.5, -8.25, -31), A(-13.5, -18, -9, -29.5)
GC, GR = A(-12.5, -19, -9, -30), A(-12.75, -18.5, -8.5, -30.25)
GOLDEN, ALL = (PC, PR, GC, GR), jnp.ones(4, bool)


def golden(out, value):
    np.testing.assert_allclose(float(out[0].mean()), value, rtol=2e-6)


def test_golden_values_of_the_pair_losses():
    # momentum = 1 fixes the running values: mu = 0.1 for beta-DPO, delta = 0.3 for BCO
    fixed = beta_dpo(*GOLDEN, ALL, jnp.zeros(4), S(0.1), S(1.0), momentum=1.0, keep=1.0)
    golden(fixed, 0.706706)
    golden(aot(*GOLDEN, ALL, beta=0.1), 0.710899)
    golden(aot_unpaired(*GOLDEN, ALL, beta=0.1), 0.709026)
    golden(exo_pair(*GOLDEN, beta=0.1, label_smoothing=1e-3), 2.818023)
    golden(nca_pair(*GOLDEN, beta=0.1), 1.396264)
    # "concat" is a mean over 8 responses, the pair form has 4 pairs of two
    golden(bco_pair(*GOLDEN, ALL, S(0.3), beta=0.1, momentum=1.0), 2 * 0.714197)
    golden(sppo_hard(*GOLDEN, beta=0.1), 54.546875)
    golden(dno(*GOLDEN, jnp.ones(4), beta=0.1), 0.711952)  # at p = 1 that of DPO
    golden(dno(*GOLDEN, jnp.full(4, 0.8), beta=0.1), 0.705702)  # and that of cDPO, e = 0.2


# Identities

LOGP = st.floats(-30, 0, width=32)
NUMBER = st.floats(0.05, 0.5)
BATCH = st.lists(st.tuples(LOGP, LOGP, LOGP, LOGP), min_size=1, max_size=5)
few = settings(max_examples=30, deadline=None)


def columns(rows):
    return tuple(jnp.asarray(np.array(rows, np.float32).T[i]) for i in range(len(rows[0])))


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


@few
@given(BATCH, NUMBER)
def test_dpo_is_info_nca_written_out(rows, beta):
    x = columns(rows)
    c, r, rc, rr = (np.asarray(v, np.float64) for v in x)
    rho = np.stack([beta * (c - rc), beta * (r - rr)], axis=1)
    log_softmax = rho - np.log(np.exp(rho).sum(1, keepdims=True))
    target = np.array([1.0, 0.0])  # softmax of scores (s, 0) for s to infinity
    same(dpo(*x, beta=beta)[0], -(target * log_softmax).sum(1))


@few
@given(BATCH, NUMBER)
def test_spin_is_dpo_with_the_previous_policy_and_its_hinge_the_limit_of_steep_logistics(
    rows, beta
):
    chosen, rejected, old_chosen, old_rejected = x = columns(rows)
    d = beta * ((chosen - old_chosen) - (rejected - old_rejected))
    same(dpo(*x, beta=beta)[0], -jax.nn.log_sigmoid(d))
    # log(1 + exp(t * (1 - d))) / t lies between 0 and log(2) / t above relu(1 - d)
    for t in (1.0, 10.0, 1000.0):
        margin = old_chosen + 1 / beta
        steep = dpo(chosen, rejected, margin, old_rejected, beta=t * beta)[0] / t
        above = steep - jax.nn.relu(1 - d)
        assert (above >= -1e-5).all() and (above <= math.log(2) / t + 1e-5).all()


def test_the_sigmoid_norm_loss_of_rso_is_dpo_with_beta_one_twentieth():
    close(dpo(C, J, RC, RJ, beta=0.05)[0], [nls(0.05 * 2.75)])


@few
@given(BATCH, NUMBER, st.floats(-3, 3, width=32), st.floats(0, 1))
def test_beta_dpo_without_dynamics_is_dpo(rows, beta, noise, momentum):
    x = columns(rows)
    b = len(rows)
    out = beta_dpo(
        *x,
        jnp.ones(b, bool),
        noise * jnp.arange(b, dtype=jnp.float32),
        S(NAN),
        S(NAN),
        beta=beta,
        alpha=0.0,
        momentum=momentum,
        keep=1.0,
    )
    same(out[0], dpo(*x, beta=beta)[0])


@few
@given(BATCH, NUMBER, st.floats(0, 0.4))
def test_aot_is_the_loss_of_two_sorted_samples(rows, beta, e):
    x = columns(rows)
    c, r, rc, rr = (np.asarray(v, np.float64) for v in x)
    yes, kw = jnp.ones(len(rows), bool), dict(beta=beta, label_smoothing=e)

    def of(u, v):
        h = beta * (np.sort(u) - np.sort(v))
        return np.mean((1 - e) * np.logaddexp(0, -h) + e * np.logaddexp(0, h))

    same(aot(*x, yes, **kw)[0].mean(), of(c - r, rc - rr))
    same(aot_unpaired(*x, yes, **kw)[0].mean(), of(c - rc, r - rr))


@few
@given(BATCH, NUMBER, st.floats(0, 0.4))
def test_aot_of_one_pair_is_dpo(rows, beta, e):
    x = columns(rows[:1])
    for fn in (aot, aot_unpaired):
        out = fn(*x, jnp.ones(1, bool), beta=beta, label_smoothing=e)[0]
        same(out, dpo(*x, beta=beta, label_smoothing=e)[0])


@few
@given(BATCH, NUMBER)
def test_unpaired_aot_does_not_care_which_rejected_stands_beside_which_chosen(rows, beta):
    c, r, rc, rr = columns(rows)
    yes = jnp.ones(len(rows), bool)
    same(
        aot_unpaired(c, r, rc, rr, yes, beta=beta)[0],
        aot_unpaired(c, r[::-1], rc, rr[::-1], yes, beta=beta)[0],
    )


@few
@given(BATCH, NUMBER)
def test_bco_with_delta_zero_is_bco_pair_of_trl_1_16(rows, beta):
    x = columns(rows)
    c, r, rc, rr = (np.asarray(v, np.float64) for v in x)
    written_out = np.logaddexp(0, -beta * (c - rc)) + np.logaddexp(0, beta * (r - rr))
    out, m = bco_pair(*x, jnp.ones(len(rows), bool), S(0.0), beta=beta, momentum=1.0)
    same(out, written_out)
    same(bco_terms(m["chosen_rewards"], m["rejected_rewards"], S(0.0)), written_out)


@few
@given(BATCH, NUMBER)
def test_sppo_with_hard_win_rates_is_half_of_sppo_hard(rows, beta):
    x = columns(rows)
    one = jnp.ones(len(rows))
    same(2 * sppo(*x, one, 0 * one, beta=beta)[0], sppo_hard(*x, beta=beta)[0])


@few
@given(BATCH, NUMBER, st.floats(0.5625, 1, width=32))
def test_dno_is_dpo_with_soft_labels(rows, beta, p):
    x = columns(rows)
    same(
        dno(*x, jnp.full(len(rows), p, jnp.float32), beta=beta)[0],
        dpo(*x, beta=beta, label_smoothing=1 - p)[0],
    )


@few
@given(BATCH, NUMBER, st.floats(-8, 8, width=32))
def test_a_constant_added_to_both_log_ratios_of_a_pair_changes_nothing(rows, beta, shift):
    c, r, rc, rr = columns(rows)
    b = len(rows)
    yes, p, z = jnp.ones(b, bool), jnp.full(b, 0.7), jnp.zeros(b)
    for fn in (
        lambda *x: exo_pair(*x, beta=beta),
        lambda *x: dno(*x, p, beta=beta),
        lambda *x: aot(*x, yes, beta=beta),
        lambda *x: beta_dpo(*x, yes, z, S(0.5), S(2.0), beta=beta, keep=1.0),
    ):
        a, moved = fn(c, r, rc, rr)[0], fn(c, r, rc + shift, rr + shift)[0]
        np.testing.assert_allclose(a, moved, rtol=1e-4, atol=1e-4)  # rounding of 30 + 8, times beta


def test_exo_is_zero_where_the_policy_says_what_the_label_says():
    h = math.log(0.95 / 0.05)
    out = exo_pair(A(h), A(0.0), A(0.0), A(0.0), beta=1.0, label_smoothing=0.05)
    np.testing.assert_allclose(out[0], [0.0], atol=1e-6)


def test_nca_draws_the_chosen_reward_to_log_2():
    g = grads(nca_pair, A(math.log(2)), J, A(0.0), RJ, beta=1.0)
    np.testing.assert_allclose(g[0], [0.0], atol=1e-6)


# Running values


def beta_dpo_of(c, j, rc, rj, mean=NAN, std=NAN, noise=None, **kw):
    noise = jnp.zeros(len(c)) if noise is None else noise
    return beta_dpo(c, j, rc, rj, jnp.ones(len(c), bool), noise, S(mean), S(std), **kw)


def test_running_values_start_from_the_batch():
    metrics = beta_dpo_of(*GOLDEN)[1]  # D = 1.25, -2, 1.25, -1.75
    gap = np.array([1.25, -2, 1.25, -1.75])
    close(metrics["gap_mean"][0], gap.mean())
    close(metrics["gap_std"][0], gap.std(ddof=1))
    delta = bco_pair(*GOLDEN, ALL, S(NAN), beta=0.1)[1]["delta"]
    close(delta, [0.05 * (np.mean([0.5, -1.5, 0.75, -1]) + np.mean([-0.75, 0.5, -0.5, 0.75]))] * 4)


def test_a_spread_of_zero_counts_as_not_started():
    """At step 0 the policy is the reference; a tenth of the spread afterwards would be far off."""
    first = beta_dpo_of(GC, GR, GC, GR)[1]
    assert float(first["gap_std"][0]) == 0
    second = beta_dpo_of(*GOLDEN, mean=first["gap_mean"][0], std=first["gap_std"][0])[1]
    close(second["gap_std"][0], np.std([1.25, -2, 1.25, -1.75], ddof=1))


def test_one_pair_has_no_spread_and_is_always_drawn():
    loss, metrics = beta_dpo_of(C, J, RC, RJ, mean=2.0, std=1.5, alpha=0.5)
    mu = 0.9 * 2 + 0.1 * 2.75
    close(metrics["gap_std"], [1.5])
    close(loss, [nls(0.1 * (1 + 0.5 * (2.75 - mu)) * 2.75)])
    loss, metrics = beta_dpo_of(C, J, RC, RJ)
    assert float(metrics["gap_std"][0]) == 0
    close(loss, [nls(0.1 * 2.75)])


def test_beta_dpo_has_a_floor_for_beta():
    out, metrics = beta_dpo_of(C, J, RC, RJ, mean=500.0, std=1.0)
    close(metrics["beta_batch"], [1e-3])
    close(out, [nls(1e-3 * 2.75)])


def test_a_batch_without_a_pair_leaves_the_running_values():
    no = jnp.zeros(4, bool)
    m = beta_dpo(*GOLDEN, no, jnp.zeros(4), S(0.4), S(1.5))
    assert float(m[1]["gap_mean"][0]) == float(S(0.4)) and float(m[1]["gap_std"][0]) == 1.5
    assert (m[0] == 0).all()
    assert float(bco_pair(*GOLDEN, no, S(0.3))[1]["delta"][0]) == float(S(0.3))


# Drawing pairs


def test_beta_dpo_draws_the_floor_of_keep_times_the_pairs_present():
    draw = jax.jit(beta_dpo, static_argnames="keep")
    noise = jnp.asarray(np.random.default_rng(0).gumbel(size=150), jnp.float32)
    gap = jnp.linspace(-2.0, 3.0, 150)
    zero = jnp.zeros(150)
    for percent in (1, 29, 42, 80, 100):  # 0.42 * 150 is 62.999... in float32
        for present in (1, 5, 10, 100, 149, 150):
            yes = jnp.arange(150) < present
            loss = draw(gap, zero, zero, zero, yes, noise, S(0.1), S(1.0), keep=percent / 100)[0]
            assert int((loss > 0).sum()) == max(1, percent * present // 100)


def test_the_mean_over_pairs_present_is_the_mean_over_pairs_drawn():
    rng = np.random.default_rng(3)
    x = [jnp.asarray(-20 * rng.random(11), jnp.float32) for _ in range(4)]
    yes = jnp.asarray(np.arange(11) != 4)
    noise = jnp.asarray(rng.gumbel(size=11), jnp.float32)
    loss, m = beta_dpo(*x, yes, noise, S(NAN), S(NAN), keep=0.75)
    drawn = np.asarray(loss) > 0
    assert drawn.sum() == 7 and not drawn[4]
    plain = dpo(*x, beta=float(m["beta_batch"][0]))[0]
    close(loss[np.asarray(yes)].mean(), plain[drawn].mean())


def test_pairs_are_drawn_in_proportion_to_their_weight():
    gap = np.array([0.5, -1.0, 2.5])
    w = np.exp(-0.5 * ((gap - 0.2) / 1.3) ** 2)
    noise = jax.random.gumbel(jax.random.key(0), (20000, 3))

    def one(noise):  # floor(0.4 * 3) = 1 pair
        zero = jnp.zeros(3)
        x = jnp.asarray(gap, jnp.float32), zero, zero, zero, jnp.ones(3, bool)
        return beta_dpo(*x, noise, S(0.2), S(1.3), momentum=1.0, keep=0.4)[0] > 0

    seen = np.asarray(jax.vmap(one)(noise)).mean(0)
    np.testing.assert_allclose(seen, w / w.sum(), atol=0.015)  # four standard errors


def test_noise_still_decides_between_equal_outliers():
    """Far from the mean log w is so large that float32 would swallow the noise."""
    gap, zero = A(400.0, 400.0, 400.0, 400.0), jnp.zeros(4)
    for best in range(4):
        noise = zero.at[best].set(1.0)
        out = beta_dpo_of(
            gap, zero, zero, zero, 0.0, 0.05, noise, momentum=1.0, keep=0.25, alpha=0.0, beta=0.001
        )
        assert int(jnp.argmax(out[0])) == best and int((out[0] > 0).sum()) == 1


# What holds for all of them

LOSSES = {
    "beta_dpo": (beta_dpo, ("present", "gumbel", "mean", "std")),
    "aot": (aot, ("present",)),
    "aot_unpaired": (aot_unpaired, ("present",)),
    "exo_pair": (exo_pair, ()),
    "nca_pair": (nca_pair, ()),
    "bco_pair": (bco_pair, ("present", "mean")),
    "sppo": (sppo, ("p", "q")),
    "sppo_hard": (sppo_hard, ()),
    "dno": (dno, ("p",)),
}
COUPLED = ["beta_dpo", "aot", "aot_unpaired", "bco_pair"]


def draw(name, seed=0, b=6):
    rng = np.random.default_rng(seed)
    f = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    logps = [f(-0.1 - 8 * rng.random(b)) for _ in range(4)]
    other = {
        "present": jnp.ones(b, bool),
        "gumbel": f(rng.gumbel(size=b)),
        "mean": f(0.3),
        "std": f(2.0),
        "p": f(rng.random(b)),
        "q": f(rng.random(b)),
    }
    return [*logps, *(other[n] for n in LOSSES[name][1])]


def rows_of(x, index):
    return [v if v.ndim == 0 else v[index] for v in x]


@pytest.mark.parametrize("name", LOSSES)
def test_permuting_the_batch_permutes_the_loss(name):
    fn, x = LOSSES[name][0], draw(name)
    order = np.random.default_rng(1).permutation(6)
    close(fn(*x)[0][order], fn(*rows_of(x, order))[0])


@pytest.mark.parametrize("name", LOSSES)
def test_only_coupled_losses_depend_on_the_other_examples(name):
    fn, x = LOSSES[name][0], draw(name)
    alone = fn(*rows_of(x, slice(2)))[0]
    assert np.allclose(alone, fn(*x)[0][:2], rtol=1e-5) != (name in COUPLED)


@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("absent", [[0], [1, 4], [5], [0, 1, 2, 3, 4]])
def test_absent_examples_do_not_matter_even_where_nan_stands(name, absent):
    fn, x = LOSSES[name][0], draw(name)
    keep = ~np.isin(np.arange(6), absent)
    x[4] = jnp.asarray(keep)
    noisy = [jnp.where(keep, v, jnp.nan) if v.ndim and v.dtype == jnp.float32 else v for v in x]
    short = rows_of(x, keep)

    def value(logps, rest):
        loss, metrics = fn(*logps, *rest)
        return jnp.where(rest[0], loss, 0.0).sum(), (loss, metrics)

    of = jax.value_and_grad(value, has_aux=True)
    (_, (a, ma)), ga = of(noisy[:4], noisy[4:])
    (_, (b, mb)), gb = of(short[:4], short[4:])
    close(a[keep], b)
    for n in ma:
        close(ma[n][keep], mb[n])
    for full, part in zip(ga, gb, strict=True):
        np.testing.assert_allclose(full[keep], part, rtol=1e-5, atol=1e-7)
        assert (full[~keep] == 0).all()
    assert np.isfinite(fn(*x)[0]).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("carry", [NAN, 0.0, -2000.0, 2000.0])
def test_extreme_inputs_stay_finite_in_value_and_gradient(name, carry):
    fn = LOSSES[name][0]
    far = A(-2400.0, -1e-7, -300.0, -1e-7, -2400.0, -1.0)
    orders = np.array([[0, 1, 2, 3, 4, 5], [1, 0, 3, 4, 5, 2], [3, 1, 0, 4, 2, 5]])
    for i, j, k in ((0, 1, 2), (1, 2, 0), (0, 0, 1), (2, 2, 2)):
        x = draw(name)
        x[:4] = far[orders[i]], far[orders[j]], far[orders[k]], far[orders[i][::-1]]
        for at, n in enumerate(LOSSES[name][1]):
            if n in ("mean", "std"):
                x[4 + at] = S(abs(carry) if n == "std" else carry)
        loss, metrics = fn(*x)
        assert np.isfinite(loss).all()
        assert all(np.isfinite(m).all() and m.shape == loss.shape for m in metrics.values())
        assert all(np.isfinite(g).all() for g in grads(fn, *x))


@pytest.mark.parametrize("name", LOSSES)
def test_jit_equals_eager_and_bfloat16_is_computed_in_float32(name):
    fn, x = LOSSES[name][0], draw(name)
    np.testing.assert_allclose(jax.jit(fn)(*x)[0], fn(*x)[0], rtol=1e-5)
    low = [v.astype(jnp.bfloat16) if v.dtype == jnp.float32 else v for v in x]
    high = [v.astype(jnp.float32) if v.dtype == jnp.bfloat16 else v for v in low]
    assert fn(*low)[0].dtype == jnp.float32
    np.testing.assert_array_equal(fn(*low)[0], fn(*high)[0])


@pytest.mark.parametrize("name", LOSSES)
def test_numbers_may_be_traced(name):
    fn, x = LOSSES[name][0], draw(name)
    defaults = inspect.signature(fn).parameters.values()
    numbers = {p.name: p.default for p in defaults if p.kind is p.KEYWORD_ONLY}
    plain = fn(*x)[0]
    jaxtyping.config.update("jaxtyping_disable", True)  # the annotation says float
    try:
        traced = jax.jit(lambda numbers: fn(*x, **numbers)[0])(numbers)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    close(traced, plain)


@pytest.mark.parametrize("name", LOSSES)
def test_every_array_matters(name):
    fn = LOSSES[name][0]
    for at in range(len(draw(name))):
        moved = False
        for seed in range(4):
            x = draw(name, seed)
            changed = list(x)
            if x[at].dtype == bool:
                changed[at] = x[at].at[2].set(False)
            else:
                noise = np.random.default_rng(seed + 9).normal(size=x[at].shape)
                changed[at] = x[at] + S(1 + abs(noise))
            moved |= not np.allclose(fn(*x)[0], fn(*changed)[0], rtol=1e-5)
        assert moved, f"array {at} changes nothing"


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("beta_dpo", {"beta": 0.0}),
        ("beta_dpo", {"alpha": -0.1}),
        ("beta_dpo", {"momentum": 1.1}),
        ("beta_dpo", {"momentum": -0.1}),
        ("beta_dpo", {"keep": 0.0}),
        ("beta_dpo", {"keep": 1.1}),
        ("aot", {"beta": 0.0}),
        ("aot", {"label_smoothing": 0.5}),
        ("aot_unpaired", {"beta": -1.0}),
        ("aot_unpaired", {"label_smoothing": -0.1}),
        ("exo_pair", {"beta": 0.0}),
        ("exo_pair", {"label_smoothing": 0.0}),
        ("exo_pair", {"label_smoothing": 0.5}),
        ("nca_pair", {"beta": 0.0}),
        ("bco_pair", {"beta": 0.0}),
        ("bco_pair", {"momentum": 1.5}),
        ("sppo", {"beta": 0.0}),
        ("sppo_hard", {"beta": 0.0}),
        ("dno", {"beta": 0.0}),
    ],
)
def test_numbers_out_of_range_are_refused(name, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LOSSES[name][0](*draw(name), **wrong)
