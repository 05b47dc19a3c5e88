"""SLiC-HF, AlphaPO, CPO: by hand, golden values, identities."""

import inspect
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.losses.pairwise.alphapo import alphapo
from jalign.losses.pairwise.cpo import cpo
from jalign.losses.pairwise.dpo import dpo
from jalign.losses.pairwise.simpo import simpo
from jalign.losses.pairwise.slic_hf import slic_hf
from jalign.losses.supervised import nll

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
C, J, NC, NJ = A(-4.0), A(-9.5), A(4.0), A(3.0)
PC, PR = A(-12, -20.5, -8.25, -31), A(-13.5, -18, -9, -29.5)
LW = A(10, 16, 6, 25)


def sig(x):
    return 1 / (1 + math.exp(-x))


def grads(fn, *args, **kw):
    """Of the summed loss, with respect to the two log-probabilities."""
    return jax.grad(lambda a: fn(*a, *args[2:], **kw)[0].sum())(args[:2])


def close(value, expected, rtol=1e-5):
    np.testing.assert_allclose(value, expected, rtol=rtol)


def test_slic_hf_value_and_gradient_by_hand():
    kw = dict(delta=1.25, sft_coef=0.3)
    c, j = A(-4.0, -9.5), A(-4.75, -2.0)  # margins 0.75 and -7.5
    loss, metrics = slic_hf(c, j, **kw)
    close(loss, [1.25 - 0.75 + 0.3 * 4, 1.25 + 7.5 + 0.3 * 9.5])
    close(metrics["chosen_rewards"], [-4, -9.5])
    close(metrics["rejected_rewards"], [-4.75, -2])
    g = grads(slic_hf, c, j, **kw)
    close(g[0], [-1.3, -1.3])
    close(g[1], [1, 1])


def test_slic_hf_only_keeps_the_likelihood_term_beyond_the_margin():
    loss, _ = slic_hf(C, J, delta=1.25, sft_coef=0.3)
    close(loss, [0.3 * 4])
    g = grads(slic_hf, C, J, delta=1.25, sft_coef=0.3)
    close(g[0], [-0.3])
    close(g[1], [0])


@pytest.mark.parametrize("alpha", [0.25, 1.5, -0.5])
def test_alphapo_value_and_gradient_by_hand(alpha):
    a, b = -4 / 4, -9.5 / 3
    r_w, r_l = (1 - math.exp(-alpha * a)) / alpha, (1 - math.exp(-alpha * b)) / alpha
    h = 0.4 * (r_w - r_l) - 0.7
    loss, metrics = alphapo(C, J, NC, NJ, beta=0.4, gamma=0.7, alpha=alpha)
    close(loss, [math.log1p(math.exp(-h))])
    close(metrics["chosen_rewards"], [0.4 * r_w])
    close(metrics["rejected_rewards"], [0.4 * r_l])
    g = grads(alphapo, C, J, NC, NJ, beta=0.4, gamma=0.7, alpha=alpha)
    # d r / d log p = p^-alpha
    close(g[0], [-0.4 * sig(-h) * math.exp(-alpha * a) / 4])
    close(g[1], [0.4 * sig(-h) * math.exp(-alpha * b) / 3])


def test_cpo_value_and_gradient_by_hand():
    h = 0.2 * (-4 + 9.5)
    loss, metrics = cpo(C, J, beta=0.2)
    close(loss, [math.log1p(math.exp(-h))])
    close(metrics["chosen_rewards"], [-0.8])
    close(metrics["rejected_rewards"], [-1.9])
    g = grads(cpo, C, J, beta=0.2)
    close([float(x[0]) for x in g], [-0.2 * sig(-h), 0.2 * sig(-h)])


def test_golden_values():
    close(float(slic_hf(PC, PR, delta=1.0, sft_coef=0.1)[0].mean()), 3.356250, rtol=2e-6)
    terms, lengths = nll(PC, LW)[0], LW  # weighted by its length: the token mean
    likelihood = float((terms * lengths).sum() / lengths.sum())
    close(float(cpo(PC, PR, beta=0.1)[0].mean()) + likelihood, 1.977323, rtol=2e-6)


MEAN, LENGTH = st.floats(-5, 0, width=32), st.integers(1, 12)
BATCH = st.lists(st.tuples(MEAN, MEAN, LENGTH, LENGTH), min_size=1, max_size=5)
few = settings(max_examples=30, deadline=None)


def columns(rows):
    """Sums and lengths of responses given by their mean log-probabilities."""
    rows = [(c * n, r * m, n, m) for c, r, n, m in rows]
    return tuple(jnp.asarray(np.array(rows, np.float32).T[i]) for i in range(4))


@few
@given(BATCH, st.floats(0.5, 5), st.floats(0, 2))
def test_alphapo_at_alpha_zero_is_simpo_in_value_and_gradient(rows, beta, gamma):
    x, kw = columns(rows), dict(beta=beta, gamma=gamma)
    close(alphapo(*x, alpha=0.0, **kw)[0], simpo(*x, **kw)[0], rtol=2e-5)  # rewards up to 25
    for a, b in zip(grads(alphapo, *x, alpha=0.0, **kw), grads(simpo, *x, **kw), strict=True):
        close(a, b, rtol=2e-5)


@few
@given(BATCH, st.sampled_from([1e-6, -1e-6, 1e-12, 1e-38, 1e-42, -1e-45]))
def test_alphapo_goes_over_into_simpo_without_a_jump(rows, alpha):
    x = columns(rows)
    close(alphapo(*x, alpha=alpha)[0], simpo(*x)[0], rtol=1e-4)
    for a, b in zip(grads(alphapo, *x, alpha=alpha), grads(simpo, *x), strict=True):
        close(a, b, rtol=1e-4)


@few
@given(BATCH, st.floats(0.05, 0.5))
def test_cpo_is_dpo_with_a_uniform_reference(rows, beta):
    c, r, *_ = columns(rows)
    flat = jnp.full_like(c, -7.25)
    np.testing.assert_allclose(
        cpo(c, r, beta=beta)[0], dpo(c, r, flat, flat, beta=beta)[0], rtol=2e-5, atol=2e-6
    )


@few
@given(BATCH, st.floats(0, 3), st.floats(0, 1))
def test_slic_hf_is_the_hinge_minus_the_likelihood(rows, delta, coef):
    c, r, *_ = columns(rows)
    c64, r64 = np.asarray(c, np.float64), np.asarray(r, np.float64)
    expected = np.maximum(0, delta - c64 + r64) - coef * c64
    out = slic_hf(c, r, delta=delta, sft_coef=coef)[0]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


FAR = A(-2400.0, -1e-7, -2400.0, -1e-7, -300.0, -1.0)
LENGTHS = A(1, 1, 2000, 7, 1, 40)
CASES = {
    "slic_hf": (slic_hf, False, [{}]),
    "alphapo": (alphapo, True, [{"alpha": a} for a in (0.25, 0.0, -2.0, 10.0, 1e-30)]),
    "cpo": (cpo, False, [{}]),
}


@pytest.mark.parametrize("name", CASES)
def test_extreme_inputs_stay_finite_in_value_and_gradient(name):
    fn, has_lengths, numbers = CASES[name]
    for shift in range(6):
        x = (FAR, jnp.roll(FAR, shift))
        x += (LENGTHS, jnp.roll(LENGTHS, 2 * shift)) if has_lengths else ()
        for kw in numbers:
            loss, metrics = fn(*x, **kw)
            assert np.isfinite(loss).all()
            assert all(np.isfinite(m).all() and m.shape == loss.shape for m in metrics.values())
            assert all(np.isfinite(g).all() for g in grads(fn, *x, **kw))


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_computed_in_float32_and_jit_equals_eager(name):
    fn, has_lengths, _ = CASES[name]
    x = (PC, PR, LW, LW[::-1]) if has_lengths else (PC, PR)
    np.testing.assert_allclose(jax.jit(fn)(*x)[0], fn(*x)[0], rtol=1e-5)
    low = [v.astype(jnp.bfloat16) for v in x]
    high = [v.astype(jnp.float32) for v in low]
    assert fn(*low)[0].dtype == jnp.float32
    np.testing.assert_array_equal(fn(*low)[0], fn(*high)[0])


@pytest.mark.parametrize("name", CASES)
def test_numbers_may_be_traced(name):
    fn, has_lengths, choices = CASES[name]
    x = (PC, PR, LW, LW[::-1]) if has_lengths else (PC, PR)
    defaults = inspect.signature(fn).parameters.values()
    numbers = {p.name: p.default for p in defaults if p.kind is p.KEYWORD_ONLY}

    def both(numbers):
        return fn(*x, **numbers)[0], grads(fn, *x, **numbers)

    for kw in choices[:2]:  # alpha = 0 among them
        plain = both(numbers | kw)
        jaxtyping.config.update("jaxtyping_disable", True)  # the annotation says float
        try:
            traced = jax.jit(both)(numbers | kw)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)
        jax.tree.map(close, traced, plain)


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("slic_hf", {"delta": -1.0}),
        ("slic_hf", {"sft_coef": -0.1}),
        ("alphapo", {"beta": 0.0}),
        ("alphapo", {"gamma": -0.1}),
        ("alphapo", {"alpha": math.inf}),
        ("alphapo", {"alpha": math.nan}),
        ("cpo", {"beta": 0.0}),
    ],
)
def test_numbers_out_of_range_are_refused(name, wrong):
    fn, has_lengths, _ = CASES[name]
    with pytest.raises(ValueError, match=next(iter(wrong))):
        fn(*((C, J, NC, NJ) if has_lengths else (C, J)), **wrong)
