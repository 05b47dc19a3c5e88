"""Losses for wrong labels: values and gradients by hand, and `re_po` over ten rows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import losses
from jalign.algorithms import ALGORITHMS, get, name_of, robust
from jalign.core import arrays_of, hyper_of
from tests._rows import draw, total

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
PAIR = A(-4.0), A(-9.5), A(-5.25), A(-8.0)
H = 0.5 * ((-4 + 5.25) - (-9.5 + 8))  # the margin at beta 0.5


def sig(x):
    return 1 / (1 + math.exp(-x))


def slopes(loss, *args, **options):
    return jax.grad(lambda x: loss(*x, **options)[0].sum(), argnums=0)(args)


def test_re_po_is_the_posterior_mean_of_the_loss_and_of_its_flip():
    p, eta = sig(H), 0.7
    q = eta * p / (eta * p + (1 - eta) * (1 - p))
    options = {"beta": 0.5, "eta_momentum": 0.8}
    loss, metrics = losses.re_po(losses.dpo)(*PAIR, A(eta), **options)
    np.testing.assert_allclose(loss, [-q * math.log(p) - (1 - q) * math.log(1 - p)], rtol=1e-6)
    np.testing.assert_allclose(metrics["posterior"], [q], rtol=1e-6)
    np.testing.assert_allclose(metrics["eta"], [0.7 + 0.2 * (q - 0.7)], rtol=1e-6)
    np.testing.assert_allclose(metrics["chosen_rewards"], [0.625])
    # q has no gradient
    slope = 0.5 * (-q * (1 - p) + (1 - q) * p)
    g = slopes(losses.re_po(losses.dpo), *PAIR, A(eta), **options)
    np.testing.assert_allclose([float(x[0]) for x in g[:4]], np.array([1, -1, -1, 1]) * slope, 1e-5)
    assert float(g[4][0]) == 0


def test_an_annotator_who_is_not_known_yet_starts_at_the_initial_reliability():
    known = losses.re_po(losses.dpo)(*PAIR, A(0.75))
    fresh = losses.re_po(losses.dpo)(*PAIR, A(math.nan), initial_eta=0.75)
    np.testing.assert_array_equal(known[0], fresh[0])
    np.testing.assert_array_equal(known[1]["eta"], fresh[1]["eta"])


def test_the_flipped_label_claims_the_same_margin_or_probability_of_the_other_response():
    scores = A(1.5), A(0.25)
    one = losses.re_po(losses.bradley_terry_margin)(*scores, A(0.5), A(0.6))[1]["posterior"]
    two = losses.re_po(losses.bradley_terry_soft)(*scores, A(0.9), A(0.6))[1]["posterior"]
    odds = math.log(0.6 / 0.4)
    difference = math.log(sig(1.25 - 0.5)) - math.log(sig(-1.25 - 0.5))
    np.testing.assert_allclose(one, [sig(difference + odds)], rtol=1e-6)
    np.testing.assert_allclose(two, [sig((2 * 0.9 - 1) * 1.25 + odds)], rtol=1e-6)


@pytest.mark.parametrize("good", [True, False])
def test_robust_kto_doubts_the_label_of_a_single_response(good):
    logps = A(-4.0), A(-5.25), A(-7.0), A(-7.5)
    there, label = jnp.array([True]), jnp.array([good])
    weights = {"desirable_weight": 1.2, "undesirable_weight": 0.9}
    x = 0.5 * (1.25 - 0.5)  # beta * (r - z0)
    own, other = 1.2 * sig(-x), 0.9 * sig(x)
    own, other = (own, other) if good else (other, own)
    q = 0.8 * math.exp(-own) / (0.8 * math.exp(-own) + 0.2 * math.exp(-other))
    out, metrics = losses.robust_kto(*logps, there, there, label, A(0.8), beta=0.5, **weights)
    np.testing.assert_allclose(out, [q * own + (1 - q) * other], rtol=1e-6)
    np.testing.assert_allclose(metrics["posterior"], [q], rtol=1e-6)
    g = slopes(lambda a: losses.robust_kto(a, *logps[1:], there, there, label, A(0.8), beta=0.5,
                                           **weights), logps[0])[0]  # fmt: skip
    bell = 0.5 * sig(x) * sig(-x)
    rise = (-1.2 * q + 0.9 * (1 - q)) if good else (0.9 * q - 1.2 * (1 - q))
    np.testing.assert_allclose(g, [rise * bell], rtol=1e-5)


def test_robust_bco_doubts_the_label_of_a_single_response():
    logps, ref, label = A(-4.0, -9.5), A(-5.0, -8.0), jnp.array([True, False])
    there = jnp.array([True, True])
    # rewards 0.5 and -0.75, so the first shift is -0.125 and both margins are 0.625
    out, metrics = losses.robust_bco(
        logps, ref, label, there, A(math.nan)[0], A(0.9, 0.4), beta=0.5, eta_momentum=0.5
    )
    p = sig(0.625)
    for i, eta in enumerate((0.9, 0.4)):
        q = eta * p / (eta * p + (1 - eta) * (1 - p))
        expected = -q * math.log(p) - (1 - q) * math.log(1 - p)
        np.testing.assert_allclose(out[i], expected, rtol=1e-6)
        np.testing.assert_allclose(metrics["eta"][i], 0.5 * (eta + q), rtol=1e-6)
    np.testing.assert_allclose(metrics["delta"], [-0.125, -0.125])


def test_holder_dpo_value_and_gradient():
    p = sig(H)
    out = losses.holder_dpo(*PAIR, beta=0.5, gamma=1.5)[0]
    np.testing.assert_allclose(out, [-2.5 * p**1.5 + 1.5 * p**2.5], rtol=1e-6)
    slope = -1.5 * 2.5 * p**1.5 * (1 - p) ** 2
    g = slopes(losses.holder_dpo, *PAIR, beta=0.5, gamma=1.5)
    np.testing.assert_allclose(
        [float(x[0]) for x in g], 0.5 * slope * np.array([1, -1, -1, 1]), rtol=1e-5
    )


def test_holder_dpo_gives_up_a_pair_that_it_holds_for_mislabeled():
    wrong = A(-90.0), A(-4.0), A(-5.0), A(-5.0)
    assert abs(float(slopes(losses.holder_dpo, *wrong, beta=0.5)[0][0])) < 1e-12
    assert abs(float(slopes(losses.dpo, *wrong, beta=0.5)[0][0])) > 0.49


# -mode_weight * log(mean(exp(-losses / mode_weight))) of the authors' trainers.py on the losses of
# its preference_loss (github.com/junkangwu/Dr_DPO, 3c0678f, torch in float64)
@pytest.mark.parametrize(("weight", "expected"), [(1.0, 0.7087959554), (0.25, 0.6995317031)])
def test_dr_dpo_is_the_authors_code(weight, expected):
    x = A(-12, -20.5, -8.25, -31), A(-13.5, -18, -9, -29.5)
    ref = A(-12.5, -19, -9, -30), A(-12.75, -18.5, -8.5, -30.25)
    there = jnp.ones(4, bool)
    loss, metrics = losses.dr_dpo(*x, *ref, there, beta=0.1, beta_prime=weight)
    np.testing.assert_allclose(loss, [expected] * 4, rtol=2e-6)
    np.testing.assert_allclose(metrics["pair_weight"].mean(), 1.0, rtol=1e-6)
    # its gradient is that of dpo with these weights
    g = jax.grad(
        lambda a: losses.dr_dpo(a, *x[1:], *ref, there, beta=0.1, beta_prime=weight)[0].mean()
    )
    plain = jax.grad(lambda a: losses.dpo(a, *x[1:], *ref, beta=0.1)[0].sum())(x[0])
    np.testing.assert_allclose(g(x[0]), metrics["pair_weight"] * plain / 4, rtol=1e-5)
    # and a mean by weights of pairs leaves out those of weight 0
    each = jax.jacobian(lambda a: losses.dr_dpo(a, *x[1:], *ref, there, beta=0.1)[0])(x[0])
    assert (np.asarray(each) != 0).tolist() == np.eye(4, dtype=bool).tolist()


TEN = {
    "ipo": {"tau": 1.0}, "simpo": {}, "cpo": {}, "orpo": {}, "gpo_hinge": {}, "r_dpo": {},
    "tdpo2": {}, "apo_zero": {}, "wpo": {}, "bradley_terry_margin": {},
}  # fmt: skip


def opposite(name):
    sides = {"chosen": "rejected", "rejected": "chosen"}
    return "_".join(sides.get(word, word) for word in name.split("_"))


@pytest.mark.parametrize("name", TEN)
def test_re_po_makes_ten_rows_robust(name):
    row, made = (get(x).with_hyper(**TEN[name]) for x in (name, f"re_po+{name}"))
    fields = draw(made)
    sure = fields | {"eta": jnp.ones(6)}
    # sure of its labels (within 1e-6) it is the row itself
    np.testing.assert_allclose(total(made, sure), total(row, fields), rtol=1e-4)
    # sure that they are wrong it is the row with every label flipped
    other = {n: fields[opposite(n)] for n in arrays_of(row.loss)}
    hyper = {n: made.hyperparameters[n] for n in hyper_of(row.loss)}
    got = made.loss(
        **{n: (fields | {"eta": jnp.zeros(6)})[n] for n in arrays_of(made.loss)}, **hyper
    )
    np.testing.assert_allclose(got[0], row.loss(**other, **hyper)[0], rtol=1e-3, atol=1e-4)
    inputs = {n: x for n, x in fields.items() if n in made.format.reads}
    grads = jax.grad(lambda x: total(made, fields | x))(inputs)
    assert all(bool(jnp.isfinite(g).all()) for g in grads.values())
    assert "eta" in made.carry.names and "annotator" in made.inputs()
    assert name_of(made) == f"re_po+{name}" and robust(get(name)) == get(f"re_po+{name}")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sft", "fixed pairs and labeled responses"),
        ("nash_md", "fixed pairs and labeled responses"),
        ("cringe", "per token"),
        ("aot", "other pairs"),
        ("re_po", "robust already"),
    ],
)
def test_rows_that_have_no_single_label_to_doubt_are_refused(name, why):
    with pytest.raises(TypeError, match=why):
        robust(ALGORITHMS[name])
    with pytest.raises(TypeError, match="re_po needs a loss that reads pairs"):
        losses.re_po(losses.sft)
