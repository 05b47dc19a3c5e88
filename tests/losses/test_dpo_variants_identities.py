"""What DPO's relatives with a reference have in common with DPO and with each other; extreme
inputs; refusals; defaults. Values by hand: test_dpo_variants.py.
"""

import inspect
import math

import chex
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.losses.binary.apo import apo_zero_unpaired
from jalign.losses.pairwise.apo import apo_down, apo_zero
from jalign.losses.pairwise.discopop import discopop
from jalign.losses.pairwise.dpo import dpo
from jalign.losses.pairwise.dpop import dpop
from jalign.losses.pairwise.f_dpo import f_dpo_alpha, f_dpo_forward_kl, f_dpo_js
from jalign.losses.pairwise.gpo import (
    gpo_exponential,
    gpo_hinge,
    gpo_savage,
    gpo_squared,
    gpo_truncated_quadratic,
)
from jalign.losses.pairwise.ipo import ipo_sum
from jalign.losses.pairwise.ld_dpo import ld_dpo
from jalign.losses.pairwise.norm import dpo_norm
from jalign.losses.pairwise.r_dpo import r_dpo
from jalign.losses.pairwise.robust import robust_dpo
from jalign.losses.pairwise.tdpo import tdpo1, tdpo2
from jalign.losses.pairwise.wpo import wpo

LOGP = st.floats(-30, 0, width=32)
NUMBER = st.floats(0.05, 0.5)
BATCH = st.lists(st.tuples(LOGP, LOGP, LOGP, LOGP), min_size=1, max_size=5)
few = settings(max_examples=30, deadline=None)

OF_FOUR = (
    robust_dpo,
    dpop,
    gpo_hinge,
    gpo_squared,
    gpo_exponential,
    gpo_truncated_quadratic,
    gpo_savage,
    f_dpo_forward_kl,
    f_dpo_js,
    f_dpo_alpha,
    apo_zero,
    apo_down,
    discopop,
)
WITH_LENGTHS, WITH_KL = (r_dpo, dpo_norm), (tdpo1, tdpo2)
SUMMED = (*OF_FOUR, *WITH_LENGTHS, *WITH_KL, wpo)
ALL = (*SUMMED, ld_dpo)


def A(*x):
    return jnp.array(x, jnp.float32)


def columns(rows):
    return tuple(jnp.asarray(np.array(rows, np.float32).T[i]) for i in range(len(rows[0])))


def same(a, b, rtol=1e-5, atol=2e-6):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def more_of(fn, b):
    """What a loss reads besides the four log-probabilities."""
    lens = 2.0 + jnp.arange(b, dtype=jnp.float32), 5.0 - 0.5 * jnp.arange(b, dtype=jnp.float32)
    if fn in WITH_LENGTHS:
        return lens
    if fn in WITH_KL:
        return 0.3 * lens[0], 0.7 * lens[1]
    return (-lens[0], -2 * lens[1], *lens) if fn is wpo else ()


# Which loss is DPO when


@few
@given(BATCH, NUMBER, st.floats(0, 5), st.floats(0, 5))
def test_each_variant_without_its_term_is_dpo(rows, beta, s_chosen, s_rejected):
    x, b = columns(rows), len(rows)
    expected = dpo(*x, beta=beta)[0]
    lens = more_of(r_dpo, b)
    s = jnp.full(b, s_chosen, jnp.float32), jnp.full(b, s_rejected, jnp.float32)
    same(robust_dpo(*x, beta=beta, label_smoothing=0.0)[0], expected)
    same(dpop(*x, beta=beta, lam=0.0)[0], expected)
    same(r_dpo(*x, *lens, beta=beta, alpha=0.0)[0], expected)
    same(tdpo2(*x, *s, beta=beta, alpha=0.0)[0], expected)
    same(tdpo1(*x, s[0], s[0], beta=beta)[0], expected, atol=1e-5)


@few
@given(BATCH, st.floats(0.5, 5), st.integers(1, 40))
def test_dpo_norm_of_two_responses_of_n_tokens_is_dpo_with_beta_over_n(rows, beta, n):
    x, lens = columns(rows), jnp.full(len(rows), float(n))
    same(dpo_norm(*x, lens, lens, beta=beta)[0], dpo(*x, beta=beta / n)[0], atol=1e-5)


@few
@given(BATCH, NUMBER)
def test_wpo_where_the_weight_is_clamped_is_dpo_and_elsewhere_a_multiple(rows, beta):
    x, b = columns(rows), len(rows)
    one = jnp.ones(b)
    loss, metrics = wpo(*x, x[0] - 1, x[1], one, one, beta=beta)
    same(metrics["weight"], one)
    same(loss, dpo(*x, beta=beta)[0])
    loss = wpo(*x, x[0] + 3, x[1] - 2, 6 * one, 4 * one, beta=beta)[0]  # -3 / 6 + 2 / 4 = 0
    same(loss, dpo(*x, beta=beta)[0], rtol=1e-5, atol=1e-5)
    loss = wpo(*x, x[0] + 3, x[1] + 2, 6 * one, 4 * one, beta=beta)[0]
    same(loss, math.exp(-1) * dpo(*x, beta=beta)[0], rtol=1e-5, atol=1e-5)


# Tokens


def tokens(seed, r=6, b=4):
    rng = np.random.default_rng(seed)
    x = [jnp.asarray(-8 * rng.random((b, r)), jnp.float32) for _ in range(4)]
    masks = [jnp.arange(r)[None] < jnp.asarray(rng.integers(1, r + 1, (b, 1))) for _ in range(2)]
    sums = [jnp.where(masks[i % 2], v, 0.0).sum(-1) for i, v in enumerate(x)]
    return x, masks, sums


@few
@given(st.integers(0, 2**31), NUMBER)
def test_ld_dpo_with_alpha_1_is_dpo_of_the_sums(seed, beta):
    x, masks, sums = tokens(seed)
    same(ld_dpo(*x, *masks, beta=beta, alpha=1.0)[0], dpo(*sums, beta=beta)[0], atol=1e-5)


@few
@given(st.integers(0, 2**31), NUMBER, st.floats(0, 1))
def test_ld_dpo_of_responses_of_one_length_is_dpo_for_every_alpha(seed, beta, alpha):
    x, masks, _ = tokens(seed)
    sums = [jnp.where(masks[0], v, 0.0).sum(-1) for v in x]
    out = ld_dpo(*x, masks[0], masks[0], beta=beta, alpha=alpha)[0]
    same(out, dpo(*sums, beta=beta)[0], atol=1e-5)


@few
@given(st.integers(0, 2**31), NUMBER)
def test_ld_dpo_with_alpha_0_is_dpo_of_responses_cut_to_one_length(seed, beta):
    x, masks, _ = tokens(seed)
    both = masks[0] & masks[1]
    sums = [jnp.where(both, v, 0.0).sum(-1) for v in x]
    same(ld_dpo(*x, *masks, beta=beta, alpha=0.0)[0], dpo(*sums, beta=beta)[0], atol=1e-5)


@few
@given(st.integers(0, 2**31))
def test_ld_dpo_does_not_look_at_masked_places(seed):
    x, masks, _ = tokens(seed)
    noisy = [jnp.where(masks[i % 2], v, jnp.nan) for i, v in enumerate(x)]

    def of(arrays):
        return jax.value_and_grad(lambda a: ld_dpo(*a, *masks)[0].sum())(arrays)

    chex.assert_trees_all_equal(of(x), of(noisy))


def test_ld_dpo_of_a_pair_without_tokens_is_log_2():
    x, no = jnp.full((1, 3), jnp.nan), jnp.zeros((1, 3), bool)
    same(ld_dpo(x, x, x, x, no, no)[0], [math.log(2)])


# GPO, f-DPO, APO, DiscoPOP, robust DPO


@few
@given(BATCH, st.floats(0.05, 1))
def test_gpo_squared_is_ipo_up_to_a_factor(rows, tau):
    x = columns(rows)
    out = gpo_squared(*x, beta=2 * tau)[0]
    same(out, 4 * tau**2 * ipo_sum(*x, tau=tau)[0], rtol=1e-4, atol=1e-5)


@few
@given(BATCH, NUMBER)
def test_gpo_truncated_quadratic_is_the_square_of_the_hinge(rows, beta):
    x = columns(rows)
    same(gpo_truncated_quadratic(*x, beta=beta)[0], gpo_hinge(*x, beta=beta)[0] ** 2)


@few
@given(BATCH, st.floats(0.05, 0.3))  # x > -20, where the exponential loss is clamped
def test_the_exponential_the_logistic_and_the_savage_loss_are_functions_of_each_other(rows, beta):
    """log(1 + exp(-x)) and (1 - exp(-log(1 + exp(-x))))^2"""
    x = columns(rows)
    logistic = dpo(*x, beta=beta)[0]
    same(jnp.log1p(gpo_exponential(*x, beta=beta)[0]), logistic)
    same(gpo_savage(*x, beta=beta)[0], (-jnp.expm1(-logistic)) ** 2)


@few
@given(st.lists(st.tuples(*[st.floats(-6, 0, width=32)] * 4), min_size=1, max_size=5), NUMBER)
def test_the_alpha_divergence_lies_between_the_reverse_and_the_forward_kl(rows, beta):
    x = columns(rows)
    same(f_dpo_alpha(*x, beta=beta, alpha=1e-6)[0], dpo(*x, beta=beta)[0], rtol=1e-4, atol=1e-5)
    forward = f_dpo_forward_kl(*x, beta=beta)[0]
    same(f_dpo_alpha(*x, beta=beta, alpha=1 - 1e-6)[0], forward, rtol=1e-4, atol=1e-5)


@few
@given(st.floats(-3, 3), st.floats(0.05, 0.95))
def test_g_is_the_derivative_of_the_divergence(d, alpha):
    """f'(u) at u = exp(d), differentiated from f as the paper's table has it."""
    u, at = math.exp(d), (A(d), A(0.0), A(0.0), A(0.0))
    forward = jax.grad(lambda u: u - jnp.log(u))
    js = jax.grad(lambda u: u * jnp.log(u) - (u + 1) * jnp.log((u + 1) / 2))
    of_alpha = jax.grad(
        lambda u: (u ** (1 - alpha) - (1 - alpha) * u - alpha) / (alpha * (alpha - 1))
    )
    for fn, slope, kw in (
        (f_dpo_forward_kl, forward, {}),
        (f_dpo_js, js, {}),
        (f_dpo_alpha, of_alpha, {"alpha": alpha}),
    ):
        reward = fn(*at, beta=1.0, **kw)[1]["chosen_rewards"][0]
        np.testing.assert_allclose(reward, slope(u), rtol=1e-4, atol=1e-5)


@few
@given(BATCH, NUMBER)
def test_apo_zero_of_a_pair_is_the_sum_over_its_responses(rows, beta):
    c, r, rc, rr = columns(rows)
    yes = jnp.ones(len(rows), bool)
    halves = (
        apo_zero_unpaired(c, rc, yes, beta=beta)[0] + apo_zero_unpaired(r, rr, ~yes, beta=beta)[0]
    )
    same(apo_zero(c, r, rc, rr, beta=beta)[0], halves)


@few
@given(BATCH, NUMBER)
def test_apo_down_is_apo_zero_with_the_roles_turned(rows, beta):
    """The chosen response in the place of the rejected, and the margin in that of the chosen."""
    c, r, rc, rr = columns(rows)
    turned = apo_zero(c - r, c, rc - rr, rc, beta=beta)[0]
    same(apo_down(c, r, rc, rr, beta=beta)[0], turned)


@few
@given(BATCH, NUMBER, st.floats(0, 0.4))
def test_robust_dpo_is_unbiased_under_flipped_labels(rows, beta, e):
    c, r, rc, rr = columns(rows)
    kept = robust_dpo(c, r, rc, rr, beta=beta, label_smoothing=e)[0]
    flipped = robust_dpo(r, c, rr, rc, beta=beta, label_smoothing=e)[0]
    same((1 - e) * kept + e * flipped, dpo(c, r, rc, rr, beta=beta)[0], rtol=1e-4, atol=1e-4)


def test_robust_dpo_falls_below_zero_where_cdpo_turns_back():
    x = A(60.0), A(0.0), A(0.0), A(0.0)
    assert float(robust_dpo(*x, beta=1.0)[0][0]) < -7
    assert float(dpo(*x, beta=1.0, label_smoothing=0.1)[0][0]) > 5


def test_discopop_is_logistic_below_and_exponential_above_where_the_blend_is_narrow():
    x = A(2.0, -2.0), A(-3.0, 3.0), A(0.0, 0.0), A(0.0, 0.0)
    out = discopop(*x, beta=0.2, tau=1e-3)[0]  # h = 1, -1
    same(out, [math.exp(-1), math.log1p(math.e)])


def test_discopop_rises_between_its_minimum_and_its_maximum():
    """Where training starts, at h = 0, descent moves a pair the wrong way."""
    zero = A(*[0.0] * 5)
    h = A(-0.13, -0.11, 0.0, 0.06, 0.08)
    g = jax.grad(lambda c: discopop(c, zero, zero, zero, beta=1.0)[0].sum())(h)
    np.testing.assert_array_equal(np.sign(g), [-1, 1, 1, 1, -1])


def test_discopop_with_beta_equal_to_tau_is_blended_by_the_bare_log_ratio():
    """As in the listing of the paper's appendix."""
    d = 1.5
    out = discopop(A(d), A(0.0), A(0.0), A(0.0), beta=0.05, tau=0.05)[0]
    m = 1 / (1 + math.exp(-d))
    same(out, [(1 - m) * math.log1p(math.exp(-0.05 * d)) + m * math.exp(-0.05 * d)])


# What must not matter, and what must


@few
@given(BATCH, NUMBER, st.floats(-8, 8, width=32))
def test_a_constant_added_to_both_log_ratios_changes_nothing_in_losses_of_the_margin(
    rows, beta, shift
):
    c, r, rc, rr = columns(rows)
    for fn in (*OF_FOUR, r_dpo, tdpo1, tdpo2):
        if fn in (dpop, apo_zero, apo_down) or fn.__name__.startswith("f_dpo"):
            continue  # these look at a response by itself
        rest = more_of(fn, len(rows))
        a, b = (
            fn(c, r, rc, rr, *rest, beta=beta)[0],
            fn(c, r, rc + shift, rr + shift, *rest, beta=beta)[0],
        )
        same(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fn", [dpop, apo_zero, apo_down, f_dpo_forward_kl, f_dpo_js, f_dpo_alpha])
def test_losses_that_look_at_a_response_by_itself_do_see_such_a_constant(fn):
    a = fn(A(-4.0), A(-9.5), A(-5.25), A(-8.0), beta=0.5)[0]
    b = fn(A(-4.0), A(-9.5), A(-2.25), A(-5.0), beta=0.5)[0]
    assert not np.allclose(a, b, rtol=1e-2)


@pytest.mark.parametrize("fn", SUMMED, ids=lambda f: f.__name__)
def test_nothing_is_infinite_however_far_the_policy_has_gone(fn):
    far = [-2400.0, -400.0, -20.0, -1e-7]
    rows = [(a, b, c, d) for a in far for b in far for c in far for d in far]
    x = columns(rows)
    rest = more_of(fn, len(rows))
    if fn is wpo:
        rest = (*(jnp.resize(A(-1e-7, -2000.0, -50.0), len(rows)) for _ in range(2)), *rest[2:])
    if fn in (r_dpo, dpo_norm):
        rest = tuple(jnp.resize(A(1.0, 4000.0, 30.0), len(rows)) for _ in range(2))
    for beta in (0.01, 1.0, 10.0):

        def of(a, beta=beta):
            loss, metrics = fn(*a, *rest, beta=beta)
            return loss.mean(), (loss, metrics)

        (_, found), g = jax.jit(jax.value_and_grad(of, has_aux=True))(x)
        for leaf in jax.tree.leaves((found, g)):
            assert bool(jnp.isfinite(leaf).all())


@pytest.mark.parametrize(
    ("fn", "kw"),
    [(discopop, {"tau": v}) for v in (1e-3, 0.05, 1.0, 30.0)]
    + [(f_dpo_alpha, {"alpha": v}) for v in (0.01, 0.5, 0.99)],
)
def test_nothing_is_infinite_whatever_the_other_number_is(fn, kw):
    far, zero = A(-2000.0, -100.0, 0.0, 100.0, 2000.0), jnp.zeros(5)
    x = far, far[::-1], zero, zero
    loss, g = jax.value_and_grad(lambda a: fn(*a, beta=1.0, **kw)[0].sum())(x)
    assert all(bool(jnp.isfinite(v).all()) for v in (loss, *g))


@pytest.mark.parametrize("fn", SUMMED, ids=lambda f: f.__name__)
def test_a_pair_does_not_depend_on_the_others(fn):
    rng = np.random.default_rng(0)
    x = [jnp.asarray(-8 * rng.random(5), jnp.float32) for _ in range(4)]
    x = (*x, *more_of(fn, 5))
    noisy = [v.at[2:].set(jnp.nan) for v in x]
    np.testing.assert_array_equal(fn(*x)[0][:2], fn(*noisy)[0][:2])
    same(fn(*(v[:1] for v in x))[0], fn(*x)[0][:1])


@pytest.mark.parametrize("fn", SUMMED, ids=lambda f: f.__name__)
def test_bfloat16_is_computed_in_float32_and_metrics_have_the_shape_of_the_loss(fn):
    low = [jnp.asarray(v, jnp.bfloat16) for v in ([-4.0, -7.5], [-9.5, -6.0], [-5.25, -7.0])]
    low.append(jnp.asarray([-8.0, -6.75], jnp.bfloat16))
    rest = more_of(fn, 2)
    loss, metrics = fn(*low, *rest)
    np.testing.assert_array_equal(loss, fn(*(v.astype(jnp.float32) for v in low), *rest)[0])
    assert loss.dtype == jnp.float32
    assert {"chosen_rewards", "rejected_rewards"} <= set(metrics)
    assert all(m.shape == loss.shape for m in metrics.values())


# Numbers


def call(fn, **kw):
    if fn is ld_dpo:
        return fn(*[jnp.zeros((1, 2))] * 4, *[jnp.ones((1, 2), bool)] * 2, **kw)
    return fn(*[A(-1.0)] * 4, *more_of(fn, 1), **kw)


@pytest.mark.parametrize("fn", ALL, ids=lambda f: f.__name__)
def test_beta_must_be_positive(fn):
    for beta in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="beta must be > 0"):
            call(fn, beta=beta)


@pytest.mark.parametrize(
    ("fn", "name", "bad"),
    [
        (robust_dpo, "label_smoothing", (-0.1, 0.5, 0.7)),
        (dpop, "lam", (-1.0,)),
        (r_dpo, "alpha", (-0.01,)),
        (ld_dpo, "alpha", (-0.1, 1.1)),
        (f_dpo_alpha, "alpha", (0.0, 1.0, -0.3, 1.5)),
        (tdpo2, "alpha", (-0.5,)),
        (discopop, "tau", (0.0, -0.05)),
    ],
)
def test_other_numbers_out_of_range_are_refused(fn, name, bad):
    for value in (*bad, math.nan):
        with pytest.raises(ValueError, match=f"{name} must be"):
            call(fn, **{name: value})


@pytest.mark.parametrize("fn", ALL, ids=lambda f: f.__name__)
def test_numbers_may_be_traced_and_may_be_integers(fn):
    names = [n for n, p in inspect.signature(fn).parameters.items() if p.kind is p.KEYWORD_ONLY]
    defaults = {n: inspect.signature(fn).parameters[n].default for n in names}
    plain = call(fn, **defaults)[0], call(fn, beta=1.0)[0]
    jaxtyping.config.update("jaxtyping_disable", True)  # the annotation says float
    try:
        traced = jax.jit(lambda kw: call(fn, **kw)[0])(defaults), call(fn, beta=1)[0]
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    jax.tree.map(same, traced, plain)


def test_the_defaults_are_those_of_the_papers():
    found = {
        fn.__name__: {
            n: p.default
            for n, p in inspect.signature(fn).parameters.items()
            if p.kind is p.KEYWORD_ONLY
        }
        for fn in ALL
    }
    expected = {fn.__name__: {"beta": 0.1} for fn in ALL}
    expected |= {
        "robust_dpo": {"beta": 0.1, "label_smoothing": 0.1},
        "dpop": {"beta": 0.3, "lam": 50.0},
        "r_dpo": {"beta": 0.1, "alpha": 0.01},
        "ld_dpo": {"beta": 0.1, "alpha": 0.5},
        "dpo_norm": {"beta": 5.0},
        "f_dpo_alpha": {"beta": 0.1, "alpha": 0.5},
        "wpo": {"beta": 0.01},
        "tdpo2": {"beta": 0.1, "alpha": 0.5},
        "discopop": {"beta": 0.05, "tau": 0.05},
    }
    assert found == expected


@pytest.mark.parametrize("fn", ALL, ids=lambda f: f.__name__)
def test_the_docstring_says_what_it_must(fn):
    text = inspect.getdoc(fn)
    assert text.isascii() and inspect.getmodule(fn).__doc__.isascii()
    assert "https://arxiv.org/abs/" in inspect.getmodule(fn).__doc__
    for part in ("Args:", "Returns:", "Raises:", "Deviations:", ">>>"):
        assert part in text
    for name in inspect.signature(fn).parameters:
        assert name in text
