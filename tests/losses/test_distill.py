"""Distances from a teacher or a reference, implicit rewards, and the terms beside a loss."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.losses.distill.divergence import generalized_jsd
from jalign.losses.distill.gkd import forward_kl, gkd, reverse_kl
from jalign.losses.implicit import implicit_rewards, token_rewards
from jalign.losses.pairwise.dpo import dpo
from jalign.losses.regularizers import forward_kl_on_chosen, forward_kl_per_token, length_margin

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = math.nan
few = settings(max_examples=20, deadline=None)
logits = st.lists(st.floats(-8, 8, width=32), min_size=4, max_size=4)

S, T = [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]
STUDENT, TEACHER = jnp.log(A(*S)) + 1.5, jnp.log(A(*T)) - 0.75  # logits: any constant


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


# ---- the losses: what the scorer computed


@pytest.mark.parametrize(
    ("fn", "metric"), [(gkd, "jsd"), (forward_kl, "forward_kl"), (reverse_kl, "reverse_kl")]
)
def test_distillation_losses_are_the_divergences_of_the_scorer(fn, metric):
    x = A(0.25, 0.5, 1.75, 0.0).reshape(2, 2)
    out, metrics = fn(x)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(metrics[metric], x)
    g = jax.grad(lambda x: (A(2, 3) * fn(x)[0]).sum())(x)
    np.testing.assert_array_equal(g, [[2, 3], [2, 3]])


# ---- generalized_jsd


def test_generalized_jsd_value_and_gradient():
    b = 0.3
    m = [b * t + (1 - b) * s for s, t in zip(S, T, strict=True)]
    value, g = jax.value_and_grad(lambda z: generalized_jsd(z, TEACHER, beta=b))(STUDENT)
    np.testing.assert_allclose(value, b * kl(T, m) + (1 - b) * kl(S, m), rtol=1e-5)
    away = [math.log(s / x) - kl(S, m) for s, x in zip(S, m, strict=True)]
    expected = [(1 - b) * s * x for s, x in zip(S, away, strict=True)]
    np.testing.assert_allclose(g, expected, rtol=1e-4)


def test_generalized_jsd_at_zero_is_forward_kl_with_gradient_student_minus_teacher():
    value, g = jax.value_and_grad(lambda z: generalized_jsd(z, TEACHER, beta=0.0))(STUDENT)
    np.testing.assert_allclose(value, kl(T, S), rtol=1e-5)
    np.testing.assert_allclose(g, [0.4, -0.3, -0.1], rtol=1e-5)


def test_generalized_jsd_at_one_is_reverse_kl_with_its_gradient():
    value, g = jax.value_and_grad(lambda z: generalized_jsd(z, TEACHER, beta=1.0))(STUDENT)
    np.testing.assert_allclose(value, kl(S, T), rtol=1e-5)
    expected = [s * (math.log(s / t) - kl(S, T)) for s, t in zip(S, T, strict=True)]
    np.testing.assert_allclose(g, expected, rtol=1e-5)


def test_temperature_divides_the_logits_of_both():
    student, teacher = jnp.log(A(0.2, 0.8)), jnp.log(A(0.9, 0.1))
    s = [math.sqrt(0.2), math.sqrt(0.8)]  # temperature 2
    t = [math.sqrt(0.9), math.sqrt(0.1)]
    s, t = [x / sum(s) for x in s], [x / sum(t) for x in t]
    out = generalized_jsd(student, teacher, beta=0.0, temperature=2.0)
    np.testing.assert_allclose(out, kl(t, s), rtol=1e-5)


@few
@given(logits, logits)
def test_gkd_at_its_ends_equals_the_two_kls(a, b):
    """Two implementations: jax.nn in float32 here, probabilities in float64 there."""
    out = [generalized_jsd(A(*a)[None], A(*b)[None], beta=x) for x in (0.0, 1.0)]
    p, q = (np.exp(np.array(z, np.float64)) for z in (a, b))
    p, q = p / p.sum(), q / q.sum()
    np.testing.assert_allclose(out[0], [kl(q, p)], rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(out[1], [kl(p, q)], rtol=1e-4, atol=2e-6)


@few
@given(logits, logits, st.floats(0.05, 0.95))
def test_generalized_jsd_is_the_same_with_sides_and_beta_exchanged(a, b, beta):
    np.testing.assert_allclose(
        generalized_jsd(A(*a), A(*b), beta=beta),
        generalized_jsd(A(*b), A(*a), beta=1 - beta),
        rtol=1e-4,
        atol=2e-6,
    )


@few
@given(logits, logits)
def test_jensen_shannon_is_between_zero_and_log_two(a, b):
    value = float(generalized_jsd(A(*a), A(*b), beta=0.5))
    assert -1e-6 <= value <= math.log(2) + 1e-6


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_model_is_at_distance_zero_from_itself_and_pulled_nowhere(beta):
    value, g = jax.value_and_grad(lambda z: generalized_jsd(z, STUDENT, beta=beta))(STUDENT)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(g, [0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_tokens_that_both_models_exclude_do_not_count(beta):
    def with_banned(z, other):
        banned = A(-jnp.inf)
        return generalized_jsd(
            jnp.concatenate([z, banned]), jnp.concatenate([other, banned]), beta=beta
        )

    found = jax.value_and_grad(with_banned)(STUDENT, TEACHER)
    plain = jax.value_and_grad(lambda z: generalized_jsd(z, TEACHER, beta=beta))(STUDENT)
    np.testing.assert_allclose(found[0], plain[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], plain[1], rtol=1e-5)


def test_a_token_that_one_model_excludes_counts_in_the_mixture():
    """S = (1/2, 1/2), T = (1, 0), b = 1/2: m = (3/4, 1/4)."""
    student, teacher = A(0, 0), A(0, -jnp.inf)
    value, g = jax.value_and_grad(lambda z: generalized_jsd(z, teacher, beta=0.5))(student)
    to_m = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    np.testing.assert_allclose(value, 0.5 * math.log(1 / 0.75) + 0.5 * to_m, rtol=1e-5)
    slope = 0.25 * (math.log(2 / 3) - to_m)
    np.testing.assert_allclose(g, [slope, -slope], rtol=1e-5)
    assert generalized_jsd(student, teacher, beta=1.0) == jnp.inf


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_extreme_logits_stay_finite(beta):
    student, teacher = A(3000, -3000, 0)[None], A(-3000, 3000, 1)[None]
    of = lambda z: generalized_jsd(z, teacher, beta=beta).sum()  # noqa: E731
    value, g = jax.value_and_grad(of)(student)
    assert np.isfinite(value) and np.isfinite(g).all()


def test_generalized_jsd_keeps_the_leading_shape():
    z = jnp.arange(24.0).reshape(2, 3, 4)
    assert generalized_jsd(z, jnp.sin(z), beta=0.5).shape == (2, 3)


@pytest.mark.parametrize(
    "numbers", [{"beta": -0.1}, {"beta": 1.1}, {"temperature": 0.0, "beta": 0.5}]
)
def test_divergence_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        generalized_jsd(STUDENT, TEACHER, **numbers)


# ---- implicit rewards


def test_implicit_rewards_value_and_gradient():
    logps, ref = A(-4.0, -9.5), A(-5.25, -8.0)
    np.testing.assert_allclose(implicit_rewards(logps, ref, beta=0.5), [0.625, -0.75])
    g = jax.grad(lambda x, y: implicit_rewards(x, y, beta=0.5).sum(), argnums=(0, 1))(logps, ref)
    np.testing.assert_allclose(g, [[0.5, 0.5], [-0.5, -0.5]])


def test_implicit_rewards_are_the_ones_dpo_reports():
    x = A(-4.0), A(-9.5), A(-5.25), A(-8.0)
    metrics = dpo(*x, beta=0.3)[1]
    np.testing.assert_array_equal(implicit_rewards(x[0], x[2], beta=0.3), metrics["chosen_rewards"])
    np.testing.assert_array_equal(
        implicit_rewards(x[1], x[3], beta=0.3), metrics["rejected_rewards"]
    )


def test_token_rewards_value_and_gradient():
    logps, ref = A(-1.0, -2.0, NAN)[None], A(-2.25, -1.5, NAN)[None]
    mask = jnp.array([[True, True, False]])
    out = token_rewards(logps, ref, mask, beta=0.5)
    np.testing.assert_allclose(out, [[0.625, -0.25, 0.0]])
    g = jax.grad(lambda x: (A(2, 3, 5) * token_rewards(x, ref, mask, beta=0.5)).sum())(logps)
    np.testing.assert_allclose(g, [[1.0, 1.5, 0.0]])


@few
@given(st.lists(st.floats(-9, 0, width=32), min_size=6, max_size=6), st.floats(0.01, 2))
def test_token_rewards_add_up_to_the_implicit_reward(x, beta):
    logps, ref = A(*x[:3])[None], A(*x[3:])[None]
    mask = jnp.array([[True, True, False]])
    whole = implicit_rewards(logps[:, :2].sum(-1), ref[:, :2].sum(-1), beta=beta)
    parts = token_rewards(logps, ref, mask, beta=beta).sum(-1)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


def test_beta_of_a_reward_must_be_positive():
    x, mask = A(-1.0)[None], jnp.ones((1, 1), bool)
    with pytest.raises(ValueError, match="beta"):
        implicit_rewards(x, x, beta=0.0)
    with pytest.raises(ValueError, match="beta"):
        token_rewards(x, x, mask, beta=-1.0)


# ---- terms beside a loss


@pytest.mark.parametrize(
    ("fn", "metric"), [(forward_kl_on_chosen, "chosen_kl"), (forward_kl_per_token, "forward_kl")]
)
def test_forward_kl_terms_are_per_token(fn, metric):
    total, length = A(1.5, 0.7), A(6, 4)
    out, metrics = fn(total, length)
    np.testing.assert_allclose(out, [0.25, 0.175], rtol=1e-6)
    np.testing.assert_array_equal(metrics[metric], out)
    g = jax.grad(lambda x: fn(x, length)[0].sum())(total)
    np.testing.assert_allclose(g, [1 / 6, 1 / 4], rtol=1e-6)


def test_length_margin_value_and_gradient():
    x = A(-4.0), A(-9.5), A(5.0), A(3.0)
    out, metrics = length_margin(*x)
    np.testing.assert_allclose(out, [(-4 / 5 + 9.5 / 3) * 2 / 8], rtol=1e-6)
    np.testing.assert_array_equal(metrics["length_margin"], out)
    g = jax.grad(lambda c, r: length_margin(c, r, *x[2:])[0].sum(), argnums=(0, 1))(*x[:2])
    np.testing.assert_allclose([float(v[0]) for v in g], [2 / 8 / 5, -2 / 8 / 3], rtol=1e-6)


@few
@given(*[st.floats(-50, 0, width=32)] * 2, *[st.integers(1, 40)] * 2)
def test_length_margin_is_the_same_with_chosen_and_rejected_exchanged(chosen, rejected, n, m):
    """It asks whether margin goes with length, whoever is chosen; equal lengths are free."""
    one = length_margin(A(chosen), A(rejected), A(n), A(m))[0]
    other = length_margin(A(rejected), A(chosen), A(m), A(n))[0]
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(length_margin(A(chosen), A(rejected), A(n), A(n))[0], [0.0])
