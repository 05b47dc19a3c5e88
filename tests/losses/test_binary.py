"""Losses of single responses with a label or a rating: BCO, APO-zero, DRO-V."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.losses.binary.apo import apo_zero_unpaired
from jalign.losses.binary.bco import bco, bco_udm
from jalign.losses.binary.dro_v import dro_v, dro_v_joint
from jalign.losses.binary.kto import kto

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
PC, PR = A(-12, -20.5, -8.25, -31), A(-13.5, -18, -9, -29.5)
RC, RR = A(-12.5, -19, -9, -30), A(-12.75, -18.5, -8.5, -30.25)
BOTH, REF, GOOD = jnp.concatenate([PC, PR]), jnp.concatenate([RC, RR]), jnp.arange(8) < 4
HERE, NEW = jnp.ones(8, bool), jnp.array(jnp.nan)

# Three responses whose log-ratios are 1.25, -1.5 and 0.75.
LOGPS, REFS = A(-4.0, -9.5, -2.0), A(-5.25, -8.0, -2.75)
LABEL, YES = jnp.array([True, False, True]), jnp.ones(3, bool)
SHIFT = 0.5 * (0.5 * (1.25 + 0.75) / 2 + 0.5 * -1.5)  # half the class means, beta 0.5

ratios = st.floats(-30, 30, width=32)
few = settings(max_examples=20, deadline=None)


def sig(x):
    return 1 / (1 + math.exp(-x))


def nll(x):
    """-log sigmoid(x)"""
    return math.log1p(math.exp(-x))


# ---- BCO


def test_bco_value_and_gradient_with_the_shift_of_the_first_batch():
    out, metrics = bco(LOGPS, REFS, LABEL, YES, NEW, beta=0.5)
    logits = [0.5 * 1.25 - SHIFT, -(0.5 * -1.5 - SHIFT), 0.5 * 0.75 - SHIFT]
    np.testing.assert_allclose(out, [nll(x) for x in logits], rtol=1e-6)
    np.testing.assert_allclose(metrics["delta"], [SHIFT] * 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["rewards"], [0.625, -0.75, 0.375])
    g = jax.grad(lambda x: bco(x, REFS, LABEL, YES, NEW, beta=0.5)[0].sum())(LOGPS)
    # Only through r: the shift is held constant.
    slopes = [-0.5 * sig(-logits[0]), 0.5 * sig(-logits[1]), -0.5 * sig(-logits[2])]
    np.testing.assert_allclose(g, slopes, rtol=1e-5)


def test_bco_moves_its_shift_before_using_it():
    out, metrics = bco(LOGPS, REFS, LABEL, YES, jnp.array(0.4), beta=0.5, momentum=0.8)
    shift = 0.8 * 0.4 + 0.2 * SHIFT
    np.testing.assert_allclose(metrics["delta"], [shift] * 3, rtol=1e-6)
    expected = [nll(0.625 - shift), nll(0.75 + shift), nll(0.375 - shift)]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize("label", [True, False])
def test_bco_takes_the_only_class_there_is_for_both(label):
    metrics = bco(LOGPS, REFS, jnp.full(3, label), YES, NEW, beta=0.5)[1]
    np.testing.assert_allclose(metrics["delta"], [0.5 * (1.25 - 1.5 + 0.75) / 3] * 3, rtol=1e-6)


def test_bco_of_a_batch_without_examples_keeps_its_shift():
    metrics = bco(LOGPS, REFS, LABEL, ~YES, jnp.array(0.4))[1]
    np.testing.assert_allclose(metrics["delta"], [0.4] * 3)


def test_bco_golden_with_a_shift_of_three_tenths():
    half_sum = 0.5 * 0.1 * float((PC - RC).mean() + (PR - RR).mean())
    before = jnp.array((0.3 - 0.1 * half_sum) / 0.9)
    out, metrics = bco(BOTH, REF, GOOD, HERE, before, beta=0.1, momentum=0.9)
    np.testing.assert_allclose(metrics["delta"], [0.3] * 8, rtol=1e-6)
    np.testing.assert_allclose(out.mean(), 0.714197, rtol=2e-6)


@few
@given(st.lists(ratios, min_size=4, max_size=4), st.floats(0.01, 2))
def test_bco_with_a_shift_of_zero_is_the_bco_pair_of_trl(d, beta):
    """-log sigmoid(r_w) - log sigmoid(-r_l), the shift kept at 0 by momentum 1."""
    logps, ref, zero = A(*d) - 40, A(0, 0, 0, 0) - 40, jnp.array(0.0)
    label, here = jnp.array([True, True, False, False]), jnp.ones(4, bool)
    out = bco(logps, ref, label, here, zero, beta=beta, momentum=1.0)[0]
    r = beta * (np.asarray(logps, np.float64) + 40)
    pair = [np.logaddexp(0, -r[i]) + np.logaddexp(0, r[i + 2]) for i in (0, 1)]
    np.testing.assert_allclose(out[:2] + out[2:], pair, rtol=1e-5, atol=1e-6)


def test_bco_labels_may_be_numbers():
    numbers = bco(LOGPS, REFS, LABEL.astype(jnp.float32), YES, NEW)[0]
    np.testing.assert_array_equal(numbers, bco(LOGPS, REFS, LABEL, YES, NEW)[0])


def test_bco_udm_value_and_gradient_weigh_the_undesirable_alone():
    label, ratio = jnp.array([True, False, False]), A(7.0, 3.0, 0.01)
    shift = 0.5 * (0.625 + 0.5 * (-1.5 + 0.75) / 2)
    out, metrics = bco_udm(LOGPS, REFS, label, YES, ratio, NEW, beta=0.5)
    logits = [0.625 - shift, 0.75 + shift, shift - 0.375]
    weights = [1.0, 3.0, 0.5]  # the third is clipped from below
    expected = np.multiply(weights, [nll(x) for x in logits])
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["delta"], [shift] * 3, rtol=1e-6)
    g = jax.grad(lambda x: bco_udm(x, REFS, label, YES, ratio, NEW, beta=0.5)[0].sum())(LOGPS)
    slopes = [-0.5 * sig(-logits[0]), 1.5 * sig(-logits[1]), 0.25 * sig(-logits[2])]
    np.testing.assert_allclose(g, slopes, rtol=1e-5)


def test_bco_udm_clips_from_above_too():
    ratio = A(7.0, 300.0, 7.0)
    plain = bco(LOGPS, REFS, LABEL, YES, NEW)[0]
    weighted = bco_udm(LOGPS, REFS, LABEL, YES, ratio, NEW, max_ratio=20.0)[0]
    np.testing.assert_allclose(weighted, plain * A(1, 20, 1), rtol=1e-6)


@few
@given(st.lists(ratios, min_size=5, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_bco_udm_with_a_ratio_of_one_is_bco(d, labels):
    logps, ref, here = A(*d) - 40, A(-41, -38, -40, -43, -39), jnp.ones(5, bool)
    label, ones, delta = jnp.array(labels), jnp.ones(5), jnp.array(0.2)
    np.testing.assert_array_equal(
        bco_udm(logps, ref, label, here, ones, delta)[0], bco(logps, ref, label, here, delta)[0]
    )


@pytest.mark.parametrize("garbage", [jnp.nan, 1e9])
def test_absent_examples_change_neither_bco_nor_its_gradient(garbage):
    def reduced(logps, ref, label, here, ratio):
        out, metrics = bco_udm(logps, ref, label, here, ratio, NEW)
        return jnp.where(here, out, 0.0).sum(), metrics["delta"][0]

    here = jnp.arange(4) < 3
    ratio = A(7.0, 3.0, 2.0)
    alone = jax.value_and_grad(reduced, has_aux=True)(LOGPS, REFS, LABEL, YES, ratio)
    longer = [jnp.append(x, garbage) for x in (LOGPS, REFS)]
    label, more = jnp.append(LABEL, False), jnp.append(ratio, garbage)
    padded = jax.value_and_grad(reduced, has_aux=True)(*longer, label, here, more)
    np.testing.assert_allclose(padded[0], alone[0], rtol=1e-6)
    np.testing.assert_allclose(padded[1], jnp.append(alone[1], 0.0), rtol=1e-6)


# ---- APO-zero


def test_apo_zero_unpaired_value_and_gradient_of_both_labels():
    out, metrics = apo_zero_unpaired(LOGPS, REFS, LABEL, beta=0.5)
    expected = [1 - sig(0.625), sig(-0.75), 1 - sig(0.375)]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["rewards"], [0.625, -0.75, 0.375])
    g = jax.grad(lambda x: apo_zero_unpaired(x, REFS, LABEL, beta=0.5)[0].sum())(LOGPS)
    slopes = [0.5 * x * (1 - x) for x in expected]
    np.testing.assert_allclose(g, [-slopes[0], slopes[1], -slopes[2]], rtol=1e-5)


def test_apo_zero_unpaired_adds_up_to_the_golden_apo_zero_of_pairs():
    out = apo_zero_unpaired(BOTH, REF, GOOD, beta=0.1)[0]
    np.testing.assert_allclose(out[:4].mean() + out[4:].mean(), 1.007793, rtol=2e-6)


@few
@given(st.lists(ratios, min_size=3, max_size=3), st.floats(0.01, 2))
def test_apo_zero_unpaired_is_kto_with_z0_of_zero(d, beta):
    logps, ref = A(*d) - 40, A(-40, -41, -38)
    np.testing.assert_allclose(
        apo_zero_unpaired(logps, ref, LABEL, beta=beta)[0],
        kto(logps, ref, ref, ref, YES, YES, LABEL, beta=beta)[0],
        rtol=1e-6,
    )


# ---- DRO-V

RATING = A(1.0, -0.5, 0.25)
VALUES = jnp.array([[0.5, -0.25, 0.3], [0.1, jnp.nan, jnp.nan], [0.4, 0.9, jnp.nan]])
MASK = jnp.array([[True, True, True], [True, False, False], [True, True, False]])
V = np.array([(0.5 - 0.25 + 0.3) / 3, 0.1, (0.4 + 0.9) / 2])
D = np.array([1.25, -1.5, 0.75])
R = np.array([1.0, -0.5, 0.25])
ERROR, TARGET = R - V - 0.5 * D, R - 0.5 * D  # tau 0.5


def test_dro_v_value_and_its_parts_are_algorithm_1():
    out, metrics = dro_v(LOGPS, REFS, RATING, VALUES, MASK, tau=0.5)
    policy = -(np.array([-4.0, -9.5, -2.0]) * (R - V) - 0.25 * D**2)
    critic = np.array(
        [
            ((0.5 - TARGET[0]) ** 2 + (-0.25 - TARGET[0]) ** 2 + (0.3 - TARGET[0]) ** 2) / 6,
            (0.1 - TARGET[1]) ** 2 / 2,
            ((0.4 - TARGET[2]) ** 2 + (0.9 - TARGET[2]) ** 2) / 4,
        ]
    )
    np.testing.assert_allclose(metrics["policy_loss"], policy, rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], critic, rtol=1e-5)
    np.testing.assert_allclose(out, policy + critic, rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards"], 0.5 * D, rtol=1e-6)
    np.testing.assert_allclose(metrics["joint"], ERROR**2 / 2, rtol=1e-5)


def test_dro_v_gradients_of_policy_and_critic_do_not_mix():
    def of(logps, values):
        return dro_v(logps, REFS, RATING, values, MASK, tau=0.5)[0].sum()

    to_policy, to_critic = jax.grad(of, argnums=(0, 1))(LOGPS, VALUES)
    np.testing.assert_allclose(to_policy, -ERROR, rtol=1e-5)
    expected = [
        [(0.5 - TARGET[0]) / 3, (-0.25 - TARGET[0]) / 3, (0.3 - TARGET[0]) / 3],
        [0.1 - TARGET[1], 0, 0],
        [(0.4 - TARGET[2]) / 2, (0.9 - TARGET[2]) / 2, 0],
    ]
    np.testing.assert_allclose(to_critic, expected, rtol=1e-5, atol=1e-7)


def test_dro_v_joint_value_and_gradient():
    out, metrics = dro_v_joint(LOGPS, REFS, RATING, VALUES, MASK, tau=0.5)
    np.testing.assert_allclose(out, ERROR**2 / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards"], 0.5 * D, rtol=1e-6)

    def of(logps, values):
        return dro_v_joint(logps, REFS, RATING, values, MASK, tau=0.5)[0].sum()

    to_policy, to_critic = jax.grad(of, argnums=(0, 1))(LOGPS, VALUES)
    np.testing.assert_allclose(to_policy, -0.5 * ERROR, rtol=1e-5)
    each = -ERROR / [3, 1, 2]
    np.testing.assert_allclose(to_critic, each[:, None] * np.array(MASK), rtol=1e-5)


def test_dro_v_joint_golden():
    rating, value = A(1, -0.5, 0.25, 0), A(0.2, 0.1, 0, -0.3)
    values = jnp.stack([value - 0.5, value + 0.5, jnp.full(4, jnp.nan)], 1)
    mask = jnp.array([True, True, False]) & jnp.ones((4, 1), bool)
    out = dro_v_joint(PC, RC, rating, values, mask, tau=0.5)[0]
    np.testing.assert_allclose(out.mean(), 0.122578, rtol=2e-6)


@few
@given(st.lists(ratios, min_size=3, max_size=3), st.floats(0.05, 5))
def test_algorithm_1_has_the_joint_gradient_over_tau(d, tau):
    logps, ref = A(*d) - 40, A(-40, -41, -38)
    g, g_joint = (
        jax.grad(lambda x, fn=fn: fn(x, ref, RATING, VALUES, MASK, tau=tau)[0].sum())(logps)
        for fn in (dro_v, dro_v_joint)
    )
    np.testing.assert_allclose(tau * g, g_joint, rtol=1e-4, atol=1e-5)


# ---- all of them


def far(fn, *more, **numbers):
    """Value and gradient finite where the log-ratios are +-2000."""
    logps, ref = A(-2400, -1e-7, -400), A(-400, -2000, -2400)
    out = jax.value_and_grad(lambda x: fn(x, ref, *more, **numbers)[0].sum())(logps)
    assert all(np.isfinite(x).all() for x in out)


def test_extreme_log_ratios_stay_finite():
    far(bco, LABEL, YES, NEW, beta=2.0)
    far(bco_udm, LABEL, YES, A(1e30, 1e30, 0.0), jnp.array(-2000.0), beta=2.0)
    far(apo_zero_unpaired, LABEL, beta=2.0)
    far(dro_v, RATING, VALUES, MASK)
    far(dro_v_joint, RATING, VALUES, MASK)


@pytest.mark.parametrize(
    ("fn", "arrays", "numbers"),
    [
        (bco, (LABEL, YES, NEW), {"beta": 0.0}),
        (bco, (LABEL, YES, NEW), {"momentum": 1.5}),
        (bco_udm, (LABEL, YES, RATING, NEW), {"min_ratio": -1.0}),
        (bco_udm, (LABEL, YES, RATING, NEW), {"max_ratio": 0.1}),
        (apo_zero_unpaired, (LABEL,), {"beta": -1.0}),
        (dro_v, (RATING, VALUES, MASK), {"tau": 0.0}),
        (dro_v_joint, (RATING, VALUES, MASK), {"tau": 0.0}),
    ],
)
def test_numbers_out_of_range_are_refused(fn, arrays, numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        fn(LOGPS, REFS, *arrays, **numbers)
