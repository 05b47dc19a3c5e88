"""What every row of the catalogue must obey. A new algorithm is tested the moment it has a row."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import losses
from jalign.algorithms import ALGORITHMS, get
from jalign.core import Algorithm, arrays_of, numbers_of
from jalign.formats import PAIRS
from jalign.train.objective import Objective

B, R = 6, 5
TOKEN_LEVEL = {"token_logps", "mask"}


def draw(row, seed=0, dtype=jnp.float32, **hyper):
    """Random arrays for everything the row reads with these hyper-parameters."""
    rng, fields = np.random.default_rng(seed), {}
    names = set(row.inputs(**hyper)) | set(row.format.mask_fields)
    for name in sorted(names):
        shape = (B, R) if name.removeprefix("ref_") in TOKEN_LEVEL else (B,)
        if name == "present":
            fields[name] = jnp.ones(B, bool)
        elif name == "kl_present":
            fields[name] = jnp.asarray(rng.random(B) < 0.8).at[0].set(True)
        elif name == "mask":
            fields[name] = jnp.arange(R)[None] < jnp.asarray(rng.integers(1, R + 1, (B, 1)))
        elif name == "label":
            fields[name] = jnp.asarray(rng.random(B) < 0.5).at[:2].set([True, False])
        elif name.endswith("len"):
            fields[name] = jnp.asarray(rng.integers(2, 9, B), jnp.float32)
        elif name.endswith("scores"):
            fields[name] = jnp.asarray(rng.normal(size=shape), dtype)
        else:
            fields[name] = jnp.asarray(-0.1 - 8 * rng.random(shape), dtype)
    return fields


def loss_of(row, fields, **hyper):
    """Unreduced main loss and its metrics."""
    term = row.terms(**hyper)[0]
    return term.fn(**{n: fields[n] for n in arrays_of(term.fn)}, **term.numbers)


def total(row, fields, **hyper):
    """The reduced objective, as training sees it."""
    objective = Objective.of(row, **hyper)
    divisors = jnp.stack([t.reduce(fields)[1] for t in objective.terms])
    return objective.value(fields, divisors)[0]


@pytest.fixture(params=ALGORITHMS.values(), ids=lambda row: row.name)
def row(request):
    return request.param


def model_arrays(row, fields):
    """What gradients flow to."""
    return {n: v for n, v in fields.items() if n in row.format.reads}


def test_loss_is_unreduced_and_metrics_have_its_shape(row):
    loss, metrics = loss_of(row, draw(row))
    shape = (B, R) if "token_logps" in row.inputs() else (B,)
    assert loss.shape == shape and loss.dtype == jnp.float32
    assert all(m.shape == shape for m in metrics.values())


def test_jit_equals_eager(row):
    fields = draw(row)
    eager, jitted = loss_of(row, fields), jax.jit(lambda f: loss_of(row, f))(fields)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), eager, jitted)


def test_gradients_are_finite_and_agree_with_finite_differences(row):
    fields = draw(row)
    inputs = model_arrays(row, fields)
    grads = jax.grad(lambda x: total(row, fields | x))(inputs)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
    if row.batch_coupled:  # its z0 has no gradient on purpose, so differences disagree
        return
    step = {
        n: jnp.asarray(np.random.default_rng(3).normal(size=v.shape), jnp.float32)
        for n, v in inputs.items()
    }

    def ahead(h):
        return total(row, fields | {n: v + h * step[n] for n, v in inputs.items()})

    slope = (ahead(1e-2) - ahead(-1e-2)) / 2e-2
    expected = sum(jnp.vdot(grads[n], step[n]) for n in inputs)
    np.testing.assert_allclose(slope, expected, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 300.0])
def test_extreme_log_probabilities_stay_finite(row, scale):
    fields = draw(row)
    far = {n: v * scale for n, v in fields.items() if n.endswith(("logps", "scores"))}
    inputs = model_arrays(row, fields | far)
    value, grads = jax.value_and_grad(lambda x: total(row, fields | far | x))(inputs)
    assert bool(jnp.isfinite(value))
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))


def test_bfloat16_inputs_are_computed_in_float32(row):
    low = draw(row, dtype=jnp.bfloat16)
    high = {n: v.astype(jnp.float32) if v.dtype == jnp.bfloat16 else v for n, v in low.items()}
    np.testing.assert_array_equal(loss_of(row, low)[0], loss_of(row, high)[0])


def test_permuting_the_batch_permutes_the_loss(row):
    fields, order = draw(row), np.random.default_rng(1).permutation(B)
    permuted = {n: v[order] for n, v in fields.items()}
    np.testing.assert_allclose(
        loss_of(row, fields)[0][order], loss_of(row, permuted)[0], rtol=1e-5, atol=1e-6
    )


def test_an_example_alone_has_the_loss_it_has_in_the_batch_unless_batch_coupled(row):
    coupled = False
    for seed in range(5):  # a clamp (KTO's z0) can hide the coupling in one draw
        fields = draw(row, seed)
        alone = loss_of(row, {n: v[:2] for n, v in fields.items()})[0]
        coupled |= not bool(jnp.allclose(alone, loss_of(row, fields)[0][:2], rtol=1e-5))
    assert coupled == row.batch_coupled


def test_places_without_an_example_do_not_matter(row):
    fields = draw(row)
    keep = jnp.arange(B) < 4
    fields["present"] = keep
    if "mask" in fields:
        fields["mask"] &= keep[:, None]
    noisy = {
        n: jnp.where(keep.reshape(-1, *[1] * (v.ndim - 1)), v, jnp.nan)
        if v.dtype == jnp.float32 and not n.endswith("len")
        else v
        for n, v in fields.items()
    }
    np.testing.assert_allclose(total(row, fields), total(row, noisy), rtol=1e-6)
    short = {n: v[:4] for n, v in fields.items()}
    np.testing.assert_allclose(total(row, fields), total(row, short), rtol=1e-5)


def test_every_input_matters(row):
    for name in row.inputs():
        moved = False
        for seed in range(6):
            fields, rng = draw(row, seed), np.random.default_rng(seed + 99)
            v = fields[name]
            other = ~v if v.dtype == bool else v + jnp.asarray(1 + rng.random(v.shape), v.dtype)
            if name.endswith("logps"):
                other = v - jnp.asarray(1 + rng.random(v.shape), v.dtype)
            changed = loss_of(row, fields | {name: other})[0]
            moved |= not bool(jnp.allclose(changed, loss_of(row, fields)[0]))
        assert moved or name == "present", f"{row.name}: {name} changes nothing"


def test_every_hyperparameter_matters(row):
    for name, default in row.hyperparameters.items():
        new = default * 0.5 + 0.01
        fields = draw(row, **{name: new})
        before = total(row, fields, **{name: default})
        assert not np.allclose(before, total(row, fields, **{name: new})), f"{row.name}: {name}"


def test_row_and_loss_are_documented(row):
    text = inspect.getdoc(row.loss)
    assert row.paper and text and "Returns:" in text and ">>>" in text
    module = inspect.getmodule(row.loss).__doc__
    assert row.name == "sft" or "https://arxiv.org/abs/" in module
    for name in numbers_of(row.loss):
        assert name in text, f"{row.name}: {name} is not documented"


def test_a_misspelt_array_is_refused_when_the_row_is_made():
    def bad(chosen_logp, *, beta=1.0):
        return chosen_logp * beta, {}

    with pytest.raises(
        TypeError, match=r"'chosen_logp', unknown to format 'pairs'; did you mean 'chosen_logps'"
    ):
        Algorithm("bad", bad, PAIRS)


def test_a_misspelt_hyperparameter_is_refused_with_the_nearest():
    with pytest.raises(TypeError, match="no hyper-parameter 'bta'; did you mean 'beta'"):
        get("dpo").terms(bta=1.0)
    with pytest.raises(TypeError, match="beta must be a number"):
        get("dpo").terms(beta="0.1")


def test_an_unknown_algorithm_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no algorithm 'simp0'; did you mean 'simpo'"):
        get("simp0")


def test_a_term_of_weight_zero_vanishes_with_its_inputs():
    assert "chosen_len" not in get("dpo").inputs()
    assert "chosen_len" in get("dpo").inputs(nll_coef=0.5)


def test_numbers_out_of_range_are_refused():
    x = [jnp.ones(1)] * 4
    for kwargs in ({"beta": 0.0}, {"label_smoothing": 0.5}, {"label_smoothing": -0.1}):
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            losses.dpo(*x, **kwargs)


def test_importing_losses_pulls_in_no_framework():
    import subprocess
    import sys

    code = (
        "import sys; from jalign import losses; "
        "heavy = ('flax', 'optax', 'orbax', 'transformers', 'datasets', 'grain'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
