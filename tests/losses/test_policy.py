"""Losses on the policy's own samples: ratios and clips, critics, KL and entropy terms."""

import doctest
import importlib
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import advantages
from jalign.losses.policy.cispo import cispo
from jalign.losses.policy.full_vocab import entropy_bonus, kl_exact
from jalign.losses.policy.gspo import gspo, gspo_token
from jalign.losses.policy.kl import kl_k2, kl_k3, kl_k3_ratio, kl_k3_straight_through
from jalign.losses.policy.ppo import ppo, ppo_clip
from jalign.losses.policy.pretraining import pretraining_nll
from jalign.losses.policy.reinforce import reinforce, reinforce_with_value
from jalign.losses.policy.rloo import rloo
from jalign.losses.policy.value import value_clip, value_loss

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = math.nan
LOW, HIGH = "clip_ratio/low_mean", "clip_ratio/high_mean"

# Two responses, of 4 and 3 tokens; garbage after the second.
MASK = jnp.array([[True] * 4, [True] * 3 + [False]])
OLD = A([-1.0, -2.5, -0.75, -3.0], [-1.25, -0.5, -2.0, NAN])
RATIO = np.array([[1.5, 0.5, 1.1, 1.05], [1.6, 0.6, 0.95, NAN]])
LOGPS = OLD + jnp.log(A(*RATIO))
ADVANTAGES = A([2.0, 3.0, -1.0, 0.25], [-0.5, -1.5, 0.7, NAN])
VALUES = A([0.5, 1.0, -0.25, 2.0], [0.1, 0.9, 1.4, NAN])
OLD_VALUES = A([0.4, 0.2, 0.5, 1.95], [0.6, 0.8, 1.45, NAN])
RETURNS = A([1.5, 1.25, -0.75, 0.6], [0.7, -0.4, 2.5, NAN])
REF = OLD + A([0.3, -0.2, 0.45, -0.6], [-0.1, 0.7, 0.15, NAN])


def slope(fn, *arrays, of=0, **kw):
    """Gradient of the sum of the loss with respect to one of the arrays."""
    at = lambda x: fn(*arrays[:of], x, *arrays[of + 1 :], **kw)[0].sum()  # noqa: E731
    return np.asarray(jax.grad(at)(arrays[of]))


def close(found, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


# ---- PPO


def test_ppo_clip_value_and_gradient_on_both_signs_of_the_advantage_and_both_sides_of_the_ratio():
    arrays = (LOGPS, OLD, ADVANTAGES, MASK)
    out, metrics = ppo_clip(*arrays, clip_low=0.2, clip_high=0.3)
    # A > 0 at 1.5: bound at 1.3. A < 0 at 0.6: bound at 0.8. All others keep their ratio.
    close(
        out, [[-2.0 * 1.3, -3.0 * 0.5, 1.1, -0.25 * 1.05], [0.5 * 1.6, 1.5 * 0.8, -0.7 * 0.95, 0]]
    )
    # d rho / d log p = rho
    expected = [[0, -3.0 * 0.5, 1.1, -0.25 * 1.05], [0.5 * 1.6, 0, -0.7 * 0.95, 0]]
    close(slope(ppo_clip, *arrays, clip_low=0.2, clip_high=0.3), expected)
    np.testing.assert_array_equal(metrics[HIGH], [[1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(metrics[LOW], [[0, 0, 0, 0], [0, 1, 0, 0]])
    close(metrics["ratio"], np.where(MASK, RATIO, 1))
    close(metrics["approx_kl"], np.where(MASK, RATIO - 1 - np.log(RATIO), 0))


def test_ppo_clip_bounds_each_side_by_its_own_number():
    arrays = (LOGPS, OLD, ADVANTAGES, MASK)
    wide_above = ppo_clip(*arrays, clip_low=0.2, clip_high=0.6)[0]
    close([wide_above[0, 0], wide_above[1, 1]], [-3.0, 1.2])
    wide_below = ppo_clip(*arrays, clip_low=0.5, clip_high=0.2)[0]
    close([wide_below[0, 0], wide_below[1, 1]], [-2.4, 0.9])


def test_dual_clip_bounds_the_ratio_where_the_advantage_is_negative_only():
    logps, old = jnp.log(A([8.0, 6.0, 2.0])), jnp.zeros((1, 3))
    arrays = (logps, old, A([-2.0, 3.0, -0.5]), jnp.ones((1, 3), bool))
    numbers = {"clip_low": 0.2, "clip_high": 10.0}
    out, metrics = ppo_clip(*arrays, **numbers, dual_clip=3.5)
    close(out, [[2.0 * 3.5, -18.0, 1.0]])
    close(slope(ppo_clip, *arrays, **numbers, dual_clip=3.5), [[0, -18.0, 1.0]])
    np.testing.assert_array_equal(metrics["clip_ratio/dual_mean"], [[1, 0, 0]])
    out, metrics = ppo_clip(*arrays, **numbers)
    close(out, [[16.0, -18.0, 1.0]])
    np.testing.assert_array_equal(metrics["clip_ratio/dual_mean"], [[0, 0, 0]])


def test_ppo_adds_the_weighted_loss_of_the_critic_and_both_gradients():
    arrays = (LOGPS, OLD, ADVANTAGES, VALUES, OLD_VALUES, RETURNS, MASK)
    numbers = {"clip_low": 0.15, "clip_high": 0.3, "dual_clip": 1.55}
    out, metrics = ppo(*arrays, **numbers, value_clip=0.15, value_coef=0.3)
    policy, of_policy = ppo_clip(LOGPS, OLD, ADVANTAGES, MASK, **numbers)
    critic, of_critic = value_clip(VALUES, OLD_VALUES, RETURNS, MASK, value_clip=0.15)
    close(out, policy + 0.3 * critic)
    assert set(metrics) == {*of_policy, *of_critic}
    kw = numbers | {"value_clip": 0.15, "value_coef": 0.3}
    close(slope(ppo, *arrays, **kw), slope(ppo_clip, LOGPS, OLD, ADVANTAGES, MASK, **numbers))
    of_values = slope(value_clip, VALUES, OLD_VALUES, RETURNS, MASK, value_clip=0.15)
    close(slope(ppo, *arrays, of=3, **kw), 0.3 * of_values)


# ---- critics


def test_value_clip_value_and_gradient():
    # 0.9 (from 0.8, to -0.4) has moved away from its return, 1.4 (from 1.45) hardly at all;
    # 1.0 (from 0.2) and -0.25 (from 0.5) came closer by more than 0.15: no gradient there.
    out, metrics = value_clip(VALUES, OLD_VALUES, RETURNS, MASK, value_clip=0.15)
    v, old, r = (np.asarray(x, np.float64) for x in (VALUES, OLD_VALUES, RETURNS))
    expected, grad, held = np.zeros((2, 4)), np.zeros((2, 4)), np.zeros((2, 4))
    for at in zip(*np.nonzero(MASK), strict=True):
        near = old[at] + min(max(v[at] - old[at], -0.15), 0.15)
        plain, far = (v[at] - r[at]) ** 2, (near - r[at]) ** 2
        held[at] = abs(v[at] - old[at]) > 0.15 and far > plain
        expected[at] = max(plain, far) / 2
        grad[at] = 0 if held[at] else v[at] - r[at]
    assert held.sum() == 2 and held[0, 1] and held[0, 2]
    close(out, expected)
    close(slope(value_clip, VALUES, OLD_VALUES, RETURNS, MASK, value_clip=0.15), grad)
    np.testing.assert_array_equal(metrics["value/clip_ratio"], held)
    close(metrics["value/loss"], expected)


def test_value_clip_at_zero_is_the_plain_square():
    off = value_clip(VALUES, OLD_VALUES, RETURNS, MASK, value_clip=0.0)[0]
    np.testing.assert_array_equal(off, value_loss(VALUES, RETURNS, MASK)[0])
    close(off[0], [0.5, 0.03125, 0.125, 0.98])
    off = slope(value_clip, VALUES, OLD_VALUES, RETURNS, MASK, value_clip=0.0)
    close(off, jnp.where(MASK, VALUES - RETURNS, 0))


# ---- REINFORCE


def test_reinforce_value_and_gradient():
    out, metrics = reinforce(OLD, ADVANTAGES, MASK)
    close(out, [[2.0, 7.5, -0.75, 0.75], [-0.625, -0.75, 1.4, 0]])
    assert metrics == {}
    close(slope(reinforce, OLD, ADVANTAGES, MASK), -jnp.where(MASK, ADVANTAGES, 0))
    np.testing.assert_array_equal(slope(reinforce, OLD, ADVANTAGES, MASK, of=1), np.zeros((2, 4)))


def test_reinforce_with_value_adds_half_the_square_of_the_critics_error():
    arrays = (OLD, ADVANTAGES, VALUES, RETURNS, MASK)
    out, metrics = reinforce_with_value(*arrays, value_coef=0.4)
    square = [[0.5, 0.03125, 0.125, 0.98], [0.18, 0.845, 0.605, 0]]
    close(out, reinforce(OLD, ADVANTAGES, MASK)[0] + 0.4 * A(*square))
    close(metrics["value/loss"], square)
    close(slope(reinforce_with_value, *arrays), -jnp.where(MASK, ADVANTAGES, 0))
    of_values = 0.4 * jnp.where(MASK, VALUES - RETURNS, 0)
    close(slope(reinforce_with_value, *arrays, of=2, value_coef=0.4), of_values)


# ---- ratios of responses


@pytest.mark.parametrize(
    ("a", "total", "value", "gradient"),
    [
        (2.0, 0.1, -2.0 * math.exp(0.1), -2.0 * math.exp(0.1)),
        (2.0, 0.5, -2.0 * 1.25, 0.0),
        (2.0, -0.5, -2.0 * math.exp(-0.5), -2.0 * math.exp(-0.5)),
        (-1.5, 0.5, 1.5 * math.exp(0.5), 1.5 * math.exp(0.5)),
        (-1.5, -0.5, 1.5 * 0.85, 0.0),
    ],
)
def test_rloo_clips_the_product_of_the_ratios(a, total, value, gradient):
    away = A([0.7, total - 1.1, 0.4, NAN])
    arrays = (OLD[1:] + away, OLD[1:], A([a, 9.0, -9.0, NAN]), MASK[1:])  # the first one is read
    out, metrics = rloo(*arrays, clip_low=0.15, clip_high=0.25)
    close(out, [value])
    close(slope(rloo, *arrays, clip_low=0.15, clip_high=0.25), [[gradient] * 3 + [0]])
    close(metrics["ratio"], [math.exp(total)])
    kl = [math.exp(x) - 1 - x for x in (0.7, total - 1.1, 0.4)]
    close(metrics["approx_kl"], [sum(kl) / 3])
    bound = gradient == 0
    assert metrics[HIGH] == (bound and a > 0) and metrics[LOW] == (bound and a < 0)


@pytest.mark.parametrize(
    ("a", "mean", "value", "gradient"),
    [
        (2.0, 0.0002, -2.0 * math.exp(0.0002), -2.0 * math.exp(0.0002)),
        (2.0, 0.05, -2.0 * 1.0004, 0.0),
        (2.0, -0.05, -2.0 * math.exp(-0.05), -2.0 * math.exp(-0.05)),
        (-1.5, 0.05, 1.5 * math.exp(0.05), 1.5 * math.exp(0.05)),
        (-1.5, -0.05, 1.5 * 0.9997, 0.0),
    ],
)
def test_gspo_clips_the_geometric_mean_of_the_ratios(a, mean, value, gradient):
    away = A([0.25, 3 * mean - 0.75, 0.5, NAN])
    arrays = (OLD[1:] + away, OLD[1:], A([a, 9.0, -9.0, NAN]), MASK[1:])
    out, metrics = gspo(*arrays)
    close(out, [value], rtol=1e-6)
    close(slope(gspo, *arrays), [[gradient / 3] * 3 + [0]])
    close(metrics["ratio"], [math.exp(mean)], rtol=1e-6)
    bound = gradient == 0
    assert metrics[HIGH] == (bound and a > 0) and metrics[LOW] == (bound and a < 0)


@pytest.mark.parametrize("mean", [0.0, 0.05, -0.05])
def test_the_mean_of_gspo_token_over_a_response_has_the_value_and_the_gradient_of_gspo(mean):
    away = A([0.25, -0.5, 1.0, -0.75], [0.5, -0.75, 0.25, NAN]) + mean
    same = jnp.where(MASK, A([1.75], [-0.6]), NAN)
    weights = MASK / MASK.sum(-1, keepdims=True)

    def by_token(logps):
        loss = gspo_token(logps, OLD, same, MASK, clip_low=0.01, clip_high=0.02)[0]
        return (loss * weights).sum()

    def whole(logps):
        return gspo(logps, OLD, same, MASK, clip_low=0.01, clip_high=0.02)[0].sum()

    found = jax.value_and_grad(by_token)(OLD + away)
    expected = jax.value_and_grad(whole)(OLD + away)
    jax.tree.map(close, found, expected)


def test_gspo_token_value_and_gradient_with_an_advantage_per_token():
    away = A([0.25, -0.5, 0.75, -0.3], [0.5, -0.75, 0.4, NAN])  # means 0.05, 0.05
    arrays, numbers = (OLD + away, OLD, ADVANTAGES, MASK), {"clip_low": 0.1, "clip_high": 0.03}
    out, metrics = gspo_token(*arrays, **numbers)
    s = math.exp(0.05)
    close(out, [[-2 * 1.03, -3 * 1.03, s, -0.25 * 1.03], [0.5 * s, 1.5 * s, -0.7 * 1.03, 0]])
    close(slope(gspo_token, *arrays, **numbers), [[0, 0, s, 0], [0.5 * s, 1.5 * s, 0, 0]])
    np.testing.assert_array_equal(metrics[HIGH], [[1, 1, 0, 1], [0, 0, 1, 0]])


def test_a_response_is_judged_by_the_advantage_at_its_first_scored_token():
    mask = jnp.array([[False, True, True]])
    arrays = (A([NAN, -1.0, -2.0]), A([NAN, -1.0, -2.0]), A([NAN, 3.0, 7.0]), mask)
    for fn in (rloo, gspo):
        close(fn(*arrays)[0], [-3.0])


# ---- CISPO


def test_cispo_value_and_gradient_have_a_bounded_weight_on_every_token():
    arrays = (LOGPS, OLD, ADVANTAGES, MASK)
    out, metrics = cispo(*arrays, ratio_min=0.7, ratio_max=1.4)
    weight = [[1.4, 0.7, 1.1, 1.05], [1.4, 0.7, 0.95, 0]]
    expected = -np.where(MASK, weight * np.asarray(ADVANTAGES), 0)
    close(slope(cispo, *arrays, ratio_min=0.7, ratio_max=1.4), expected)
    close(out, np.where(MASK, expected * np.asarray(LOGPS), 0))
    np.testing.assert_array_equal(metrics[HIGH], [[1, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(metrics[LOW], [[0, 1, 0, 0], [0, 1, 0, 0]])
    close(metrics["ratio"], np.where(MASK, RATIO, 1))


def test_cispo_reads_its_bound_as_a_ratio_and_refuses_a_distance_from_one():
    with pytest.raises(ValueError, match="largest weight, not a distance from 1"):
        cispo(LOGPS, OLD, ADVANTAGES, MASK, ratio_max=0.2)
    assert cispo(LOGPS, OLD, ADVANTAGES, MASK)[1][HIGH].sum() == 0


# ---- what they share


PER_TOKEN = {
    "ppo_clip": lambda x: ppo_clip(x, OLD, ADVANTAGES, MASK)[0],
    "gspo_token": lambda x: gspo_token(x, OLD, ADVANTAGES, MASK)[0],
}


@pytest.mark.parametrize("name", PER_TOKEN)
def test_where_the_policy_is_the_old_one_the_value_is_minus_a_and_the_gradient_plain(name):
    there = jnp.where(MASK, ADVANTAGES, 0)
    close(PER_TOKEN[name](OLD), -there)
    gradient = jax.grad(lambda x: PER_TOKEN[name](x).sum())(OLD)
    close(gradient, slope(reinforce, OLD, ADVANTAGES, MASK))
    # CISPO's value is REINFORCE's
    jax.tree.map(close, cispo(OLD, OLD, ADVANTAGES, MASK)[0], reinforce(OLD, ADVANTAGES, MASK)[0])
    close(slope(cispo, OLD, OLD, ADVANTAGES, MASK), -there)


def test_where_the_policy_is_the_old_one_losses_of_responses_are_minus_a_with_plain_gradients():
    same = jnp.where(MASK, A([1.75], [-0.6]), NAN)
    for fn, by_length in ((rloo, False), (gspo, True)):
        close(fn(OLD, OLD, same, MASK)[0], [-1.75, 0.6])
        plain = slope(reinforce, OLD, same, MASK)  # seq-mean-token-sum; GSPO: seq-mean-token-mean
        close(slope(fn, OLD, OLD, same, MASK), plain / (A([4], [3]) if by_length else 1))


def test_old_log_probs_advantages_and_returns_get_no_gradient():
    for of in (1, 2):
        for fn in (ppo_clip, rloo, gspo, gspo_token, cispo):
            assert not slope(fn, LOGPS, OLD, ADVANTAGES, MASK, of=of).any()
    for of in (1, 2):
        assert not slope(value_clip, VALUES, OLD_VALUES, RETURNS, MASK, of=of).any()


CASES = {
    "ppo_clip": (ppo_clip, (LOGPS, OLD, ADVANTAGES)),
    "ppo": (ppo, (LOGPS, OLD, ADVANTAGES, VALUES, OLD_VALUES, RETURNS)),
    "value_clip": (value_clip, (VALUES, OLD_VALUES, RETURNS)),
    "value_loss": (value_loss, (VALUES, RETURNS)),
    "reinforce": (reinforce, (LOGPS, ADVANTAGES)),
    "reinforce_with_value": (reinforce_with_value, (LOGPS, ADVANTAGES, VALUES, RETURNS)),
    "rloo": (rloo, (LOGPS, OLD, ADVANTAGES)),
    "gspo": (gspo, (LOGPS, OLD, ADVANTAGES)),
    "gspo_token": (gspo_token, (LOGPS, OLD, ADVANTAGES)),
    "cispo": (cispo, (LOGPS, OLD, ADVANTAGES)),
    "kl_k2": (kl_k2, (LOGPS, REF)),
    "kl_k3": (kl_k3, (LOGPS, REF)),
    "kl_k3_ratio": (kl_k3_ratio, (LOGPS, OLD, REF)),
    "kl_k3_straight_through": (kl_k3_straight_through, (LOGPS, REF)),
    "kl_exact": (kl_exact, (VALUES**2,)),
    "entropy_bonus": (entropy_bonus, (VALUES**2,)),
    "pretraining_nll": (pretraining_nll, (LOGPS,)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_stands_at_unscored_places_changes_no_loss_metric_or_gradient(name):
    fn, arrays = CASES[name]

    def everything(arrays):
        grads = jax.grad(lambda x: fn(*x, MASK)[0].sum())(arrays)
        return fn(*arrays, MASK), grads

    found = everything(arrays)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    other = everything(tuple(jnp.where(MASK, x, 1e9) for x in arrays))
    chex.assert_trees_all_equal(found, other)
    loss, metrics = found[0]
    assert loss.dtype == jnp.float32 and all(m.shape == loss.shape for m in metrics.values())
    if loss.ndim == 2:
        assert loss[1, 3] == 0
    shorter = fn(*(x[:, :3] for x in arrays), MASK[:, :3])[0][1]
    close(loss[1][..., :3] if loss.ndim == 2 else loss[1], shorter)
    assert all(g[1, 3] == 0 for g in found[1])


@pytest.mark.parametrize("name", CASES)
def test_a_response_without_scored_tokens_has_loss_zero_and_no_gradient(name):
    fn, arrays = CASES[name]
    none = jnp.zeros_like(MASK)
    value, grads = jax.value_and_grad(lambda x: jnp.abs(fn(*x, none)[0]).sum())(arrays)
    assert value == 0 and all((g == 0).all() for g in grads)


@pytest.mark.parametrize("name", CASES)
def test_log_probs_far_apart_stay_finite(name):
    fn, arrays = CASES[name]
    for scale in (A(-2400.0), A(800.0)):
        far = tuple(x + scale * (i + 1) for i, x in enumerate(arrays))
        for order in (far, far[::-1]):
            found = jax.value_and_grad(lambda x: fn(*x, MASK)[0].sum())(order)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_computed_in_float32(name):
    fn, arrays = CASES[name]
    low = tuple(x.astype(jnp.bfloat16) for x in arrays)
    high = tuple(x.astype(jnp.float32) for x in low)
    np.testing.assert_array_equal(fn(*low, MASK)[0], fn(*high, MASK)[0])


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("ppo_clip", {"clip_low": 0.0}),
        ("ppo_clip", {"clip_high": -0.1}),
        ("ppo_clip", {"dual_clip": 1.0}),
        ("ppo_clip", {"dual_clip": -3.0}),
        ("ppo", {"value_clip": -0.1}),
        ("ppo", {"value_coef": -0.1}),
        ("ppo", {"dual_clip": 0.5}),
        ("value_clip", {"value_clip": -0.1}),
        ("reinforce_with_value", {"value_coef": -0.1}),
        ("rloo", {"clip_low": 0.0}),
        ("gspo", {"clip_high": 0.0}),
        ("gspo_token", {"clip_low": -1.0}),
        ("cispo", {"ratio_min": 1.5}),
        ("cispo", {"ratio_min": -0.1}),
        ("cispo", {"ratio_max": 0.9}),
    ],
)
def test_numbers_out_of_range_are_refused(name, numbers):
    fn, arrays = CASES[name]
    with pytest.raises(ValueError, match=next(iter(numbers))):
        fn(*arrays, MASK, **numbers)


# ---- KL and entropy


def test_kl_terms_by_hand():
    d = np.where(MASK, LOGPS - REF, 0).astype(np.float64)
    k3 = np.exp(-d) - 1 + d
    rho = np.where(MASK, RATIO, 1)
    for fn, arrays, value, gradient in (
        (kl_k2, (LOGPS, REF), d**2 / 2, d),
        (kl_k3, (LOGPS, REF), k3, 1 - np.exp(-d)),
        (kl_k3_ratio, (LOGPS, OLD, REF), rho * k3, rho * (k3 + 1 - np.exp(-d))),
        (kl_k3_straight_through, (LOGPS, REF), k3, d),
    ):
        out, metrics = fn(*arrays, MASK)
        close(out, value)
        close(slope(fn, *arrays, MASK), gradient)
        np.testing.assert_array_equal(next(iter(metrics.values())), out)


def test_k3_is_clamped_and_k2_is_not():
    logps, ref, mask = A([-9.0, -1.0, -200.0]), A([-1.0, -60.0, -1.0]), jnp.ones((1, 3), bool)
    close(kl_k3(logps, ref, mask)[0], [[10, 10, 10]])
    np.testing.assert_array_equal(slope(kl_k3, logps, ref, mask), [[0, 0, 0]])
    close(slope(kl_k2, logps, ref, mask), [[-8, 59, -199]])
    close(slope(kl_k3_straight_through, logps, ref, mask), [[-8, 59, -199]])


def test_kl_and_entropy_of_the_scorer_pass_through_with_their_signs():
    x = jnp.where(MASK, VALUES**2, NAN)
    np.testing.assert_array_equal(kl_exact(x, MASK)[0], jnp.where(MASK, x, 0))
    np.testing.assert_array_equal(slope(kl_exact, x, MASK), MASK)
    np.testing.assert_array_equal(entropy_bonus(x, MASK)[0], -jnp.where(MASK, x, 0))
    np.testing.assert_array_equal(entropy_bonus(x, MASK)[1]["entropy"], jnp.where(MASK, x, 0))
    np.testing.assert_array_equal(slope(entropy_bonus, x, MASK), -1.0 * MASK)


def test_pretraining_text_gives_minus_its_log_probs():
    np.testing.assert_array_equal(pretraining_nll(LOGPS, MASK)[0], jnp.where(MASK, -LOGPS, 0))
    np.testing.assert_array_equal(slope(pretraining_nll, LOGPS, MASK), -1.0 * MASK)


# Expectations over one token out of four, by adding up all four: nothing is sampled.
LOGITS = A(0.3, -0.8, 1.1, 0.2)
Q = np.array([0.4, 0.3, 0.1, 0.2])  # the reference
OLD_P = np.array([0.15, 0.25, 0.35, 0.25])
P = np.exp(LOGITS) / np.exp(LOGITS).sum()
KL = float((P * np.log(P / Q)).sum())
REVERSE_GRADIENT = P * (np.log(P / Q) - KL)  # of KL(P || Q) with respect to the logits
FORWARD_GRADIENT = P - Q  # of KL(Q || P)
COLUMN, ALL = (lambda p: jnp.log(A(*p))[:, None]), jnp.ones((4, 1), bool)


def expected(fn, weights, *others):
    """Mean value and mean gradient of a loss over the four tokens, with these probabilities."""

    def mean(logits):
        logps = jax.nn.log_softmax(logits)[:, None]
        return (fn(logps, *(COLUMN(p) for p in others), ALL)[0][:, 0] * A(*weights)).sum()

    return jax.value_and_grad(mean)(LOGITS)


def test_k1_as_a_loss_has_an_expected_gradient_of_zero_whatever_its_value():
    k1 = lambda logps, ref, mask: (advantages.k1(logps, ref), {})  # noqa: E731
    value, gradient = expected(k1, P, Q)
    close(value, KL)
    close(gradient, np.zeros(4))


def test_k2_is_biased_in_value_and_has_the_gradient_of_the_reverse_kl():
    value, gradient = expected(kl_k2, P, Q)
    close(gradient, REVERSE_GRADIENT)
    assert abs(value - KL) > 0.01


def test_k3_has_the_value_of_the_reverse_kl_and_the_gradient_of_the_forward_kl():
    value, gradient = expected(kl_k3, P, Q)
    close(value, KL)
    close(gradient, FORWARD_GRADIENT)
    assert np.abs(FORWARD_GRADIENT - REVERSE_GRADIENT).max() > 0.05


@pytest.mark.parametrize("old", [P, OLD_P])
def test_k3_times_the_ratio_is_the_reverse_kl_in_value_and_gradient_also_off_policy(old):
    value, gradient = expected(kl_k3_ratio, old, old, Q)
    close(value, KL)
    close(gradient, REVERSE_GRADIENT)


def test_k3_off_policy_without_the_ratio_is_biased():
    value, gradient = expected(kl_k3, OLD_P, Q)
    assert abs(value - KL) > 0.01 and np.abs(gradient - FORWARD_GRADIENT).max() > 0.01


def test_straight_through_k3_is_the_reverse_kl_in_value_and_gradient():
    value, gradient = expected(kl_k3_straight_through, P, Q)
    close(value, KL)
    close(gradient, REVERSE_GRADIENT)


def test_k1_as_a_reward_has_the_gradient_of_the_reverse_kl():
    rewards = -advantages.k1(COLUMN(P), COLUMN(Q))
    loss = lambda logps, mask: reinforce(logps, rewards, mask)  # noqa: E731
    close(expected(loss, P)[1], REVERSE_GRADIENT)


# ---- examples


POLICY = ("ppo", "value", "reinforce", "rloo", "gspo", "cispo", "kl", "full_vocab")
MODULES = [f"losses.policy.{x}" for x in POLICY]
GAMES = ("inpo", "nash_md", "nash_mp", "sppo_samples", "win_rates")
MODULES += [*(f"losses.games.{x}" for x in GAMES), "losses.pairwise.xpo"]
MODULES += [f"advantages.{x}" for x in ("distillation", "group", "tokens", "shaping", "selection")]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(importlib.import_module(f"jalign.{module}"))
    assert result.attempted and not result.failed
