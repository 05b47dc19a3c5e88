"""What every row of the catalogue must obey. A new algorithm is tested the moment it has a row."""

import inspect
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import losses
from jalign.algorithms import ALGORITHMS, get
from jalign.core import (
    LAST_HYPER,
    REFERENCE_HYPER,
    ROLLOUT,
    SCORER_HYPER,
    Algorithm,
    arrays_of,
    hyper_of,
    mean_over_tokens,
)
from jalign.core.reductions import mean_over_responses, sum_over_longest
from jalign.formats import PAIRS
from tests._rows import SIZE, B, R, draw, total


def loss_of(row, fields, **hyper):
    """Unreduced main loss and its metrics."""
    term = row.objective_terms(**hyper)[0]
    return term.loss(**{n: fields[n] for n in arrays_of(term.loss)}, **term.hyper)


def rows(fields, which):
    """The same fields of some examples only; running values belong to none."""
    return {n: v[which] if v.ndim else v for n, v in fields.items()}


# At their papers' beta these losses are about 1e5, where float32 hides small changes.
MILD = {"sppo": {"beta": 0.1}, "sppo_hard": {"beta": 0.1}, "sppo_samples": {"beta": 0.1}}
MILD |= {"cal_dpo": {"beta": 0.1}}
MILD |= {"inpo": {"eta": 0.1}, "comal": {"eta": 0.1}}
# Rows whose formula detaches something that depends on the policy (a weight, a gate, a rank, a
# target): there a gradient is not the slope of the value. They have gradients by hand instead.
DETACHED = {"wpo", "tdpo2", "dft", "lipo_lambda", "dro_v", "pairwise_cringe"}
DETACHED |= {"iterative_cringe", "gspo_token", "cispo", "nash_md", "nash_md_token", "nash_ema"}
DETACHED |= {"re_po"}
DETACHED |= {"vespo", "dppo_tv", "dppo_kl", "dar"}
DETACHED |= {"mpo", "nash_mp"}
# Clipping at many places has kinks everywhere; tests/losses/test_policy.py looks at each side.
KINKED = {"ppo", "ppo_clip", "rloo", "gspo", "gmpo", "clip_cov", "kl_cov", "vapo"}  # losses
# Values at which a number is felt, where half of its default is out of range or not.
FELT = {
    "clip_low": 0.01,
    "clip_high": 0.01,
    "dual_clip": 1.05,
    "ratio_min": 0.97,
    "ratio_max": 1.03,
    "value_pretraining_steps": 100,
    "delta_low": 1e-4,
    "delta_high": 1e-4,
}


@pytest.fixture(params=ALGORITHMS.values(), ids=lambda row: row.name)
def row(request):
    return request.param


def model_arrays(row, fields):
    """What gradients flow to."""
    return {n: v for n, v in fields.items() if n in row.format.reads}


def test_loss_is_unreduced_and_metrics_have_its_shape(row):
    loss, metrics = loss_of(row, draw(row))
    by_token = (mean_over_tokens, mean_over_responses, sum_over_longest)
    shape = (B, R) if row.reduce in by_token else (B,)
    assert loss.shape == shape and loss.dtype == jnp.float32
    per_response = (B, SIZE["K"]) if row.format.feedback == "list" else shape
    for name, m in metrics.items():
        assert m.shape == (per_response if name == "rewards" else shape), name


def test_jit_equals_eager(row):
    fields = draw(row)
    eager, jitted = loss_of(row, fields), jax.jit(lambda f: loss_of(row, f))(fields)
    chex.assert_trees_all_close(eager, jitted, rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_and_agree_with_finite_differences(row):
    fields, mild = draw(row), MILD.get(row.name, {})
    inputs = model_arrays(row, fields)
    grads = jax.grad(lambda x: total(row, fields | x, **mild))(inputs)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
    detached = row.batch_coupled and not row.name.startswith("aot")  # z0, delta, beta of a batch
    if detached or row.name in DETACHED or row.loss.__name__ in KINKED:
        return
    step = {
        n: jnp.asarray(np.random.default_rng(3).normal(size=v.shape), jnp.float32)
        for n, v in inputs.items()
    }

    def ahead(h):
        return total(row, fields | {n: v + h * step[n] for n, v in inputs.items()}, **mild)

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
    permuted = rows(fields, order)
    np.testing.assert_allclose(
        loss_of(row, fields)[0][order], loss_of(row, permuted)[0], rtol=1e-5, atol=1e-6
    )


def test_an_example_alone_has_the_loss_it_has_in_the_batch_unless_batch_coupled(row):
    coupled = False
    for seed in range(5):  # a clamp (KTO's z0) can hide the coupling in one draw
        fields = draw(row, seed)
        alone = loss_of(row, rows(fields, slice(2)))[0]
        coupled |= not bool(jnp.allclose(alone, loss_of(row, fields)[0][:2], rtol=1e-5))
    assert coupled == row.batch_coupled


def test_places_without_an_example_do_not_matter(row):
    fields = draw(row)
    keep = jnp.arange(B) < 4
    fields["present"] = keep
    for name in fields:
        if name.endswith("mask") or name == "valid":
            fields[name] &= keep[:, None]
    noisy = {
        n: jnp.where(keep.reshape(-1, *[1] * (v.ndim - 1)), v, jnp.nan)
        if v.dtype == jnp.float32 and v.ndim and not n.endswith(("len", "lens"))
        else v
        for n, v in fields.items()
    }
    np.testing.assert_allclose(total(row, fields), total(row, noisy), rtol=1e-6)
    np.testing.assert_allclose(total(row, fields), total(row, rows(fields, slice(4))), rtol=1e-5)


def test_wider_arrays_change_nothing(row):
    """Padding tokens, and places for responses of a list, that hold garbage."""
    row, fields = row.with_longest_response(R), draw(row)
    wider = {}
    for name, x in fields.items():
        fill = False if x.dtype == bool else 1.0 if name.endswith("lens") else jnp.nan
        more = [(0, 3 if axis in "RK" else 0) for axis in row.axes(name)]
        wider[name] = jnp.pad(x, more, constant_values=fill) if x.ndim > 1 else x
    np.testing.assert_allclose(total(row, wider), total(row, fields), rtol=1e-6)


def test_every_input_matters(row):
    for name in arrays_of(row.loss):
        moved = False
        for seed in range(16):
            fields, rng = draw(row, seed), np.random.default_rng(seed + 99)
            v = fields[name]
            other = ~v if v.dtype == bool else v + jnp.asarray(1 + rng.random(v.shape), v.dtype)
            if name.endswith("logps"):
                other = v - jnp.asarray(1 + rng.random(v.shape), v.dtype)
            if name == "ratings":  # another response becomes the best and the worst
                other = -v
            changed = loss_of(row, fields | {name: other})[0]
            moved |= not bool(jnp.allclose(changed, loss_of(row, fields)[0]))
        assert moved or name == "present", f"{row.name}: {name} changes nothing"


def felt(row, fields, **hyper):
    """The reduced objective, and the means of the values that are kept for the next step."""
    kept = row.carry.names if row.carry else ()
    metrics = loss_of(row, fields, **hyper)[1] if kept else {}
    return jnp.stack([total(row, fields, **hyper), *(metrics[name].mean() for name in kept)])


def test_every_hyperparameter_matters(row):
    groups = (REFERENCE_HYPER, *SCORER_HYPER.values(), *LAST_HYPER.values())
    of_others = {name for group in groups for name in group}
    if row.experience:
        of_others |= set(hyper_of(row.experience.fn))
    for name, default in row.hyperparameters.items():
        if name in of_others:  # read by the step, the scorer, the rollout
            continue
        new = FELT.get(name) or default * 0.5 + (0.01 if name in hyper_of(row.loss) else 1.0)
        fields = draw(row, **{name: new})
        mild = MILD.get(row.name, {})
        before = felt(row, fields, **mild | {name: default})
        assert not np.allclose(before, felt(row, fields, **mild | {name: new})), name


def rollout(row, seed):
    """Random arrays for everything that the row's experience reads."""
    rng, made = np.random.default_rng(seed), {}
    mask = np.arange(R) < rng.integers(3, R + 1, (B, SIZE["K"], 1))
    for name in row.rollout_inputs():
        shape = tuple(SIZE[axis] for axis in ROLLOUT[name])
        if name in ("valid", "finished", "mask"):
            made[name] = jnp.asarray(mask if name == "mask" else np.ones(shape, bool))
            continue
        between_0_and_1 = name in ("uniforms", "token_uniforms", "win_probs")
        x = rng.uniform(0.02, 0.98, shape) if between_0_and_1 else rng.normal(size=shape)
        x = np.where(mask, x, 0.0) if ROLLOUT[name] == "BKR" else x
        made[name] = jnp.asarray(x, jnp.float32)
    return made


ONLINE = [row for row in ALGORITHMS.values() if row.experience]


@pytest.mark.parametrize("row", ONLINE, ids=lambda row: row.name)
def test_every_number_of_an_experience_matters(row):
    make = row.experience.fn
    for name, default in hyper_of(make).items():
        moved = False
        for seed in range(8):
            arrays = rollout(row, seed).values()
            before, after = (make(*arrays, **{name: x}) for x in (default, default * 0.5 + 0.2))
            same = [np.allclose(before[n], after[n], equal_nan=True) for n in before]
            moved |= not all(same)
        assert moved, f"{row.name}: {name} changes nothing"


def test_every_column_of_the_data_is_read_by_some_loss():
    read = {name for row in ALGORITHMS.values() for name in row.inputs()}
    read.add("sampler_token_logps")  # of rollout corrections, which wrap any loss
    for form in {row.format.name: row.format for row in ALGORITHMS.values()}.values():
        assert form.data_fields <= read, form.name


def test_a_reference_that_only_a_term_reads_can_move_too():
    grpo = get("grpo")
    assert grpo.moves_reference(ref_sync_steps=64) and not grpo.moves_reference()
    assert "ref_sync_steps" in get("reinforce_pp_baseline").hyperparameters
    assert "ref_sync_steps" not in get("dapo").hyperparameters


def test_row_and_loss_are_documented(row):
    text = inspect.getdoc(row.loss)
    assert row.paper and text and "Returns:" in text and ">>>" in text
    module = inspect.getmodule(row.loss).__doc__
    assert row.loss is losses.sft or "https://arxiv.org/abs/" in module
    for name in hyper_of(row.loss):
        assert re.search(rf"^\s+([\w, ]+, )?{name}(, [\w, ]+)?:", text, re.M), (
            f"{row.name}: no {name}:"
        )


def test_a_misspelt_array_is_refused_when_the_row_is_made():
    def bad(chosen_logp, *, beta=1.0):
        return chosen_logp * beta, {}

    with pytest.raises(
        TypeError, match=r"'chosen_logp', unknown to format 'pairs'; did you mean 'chosen_logps'"
    ):
        Algorithm("bad", bad, PAIRS)


def test_a_misspelt_hyperparameter_is_refused_with_the_nearest():
    with pytest.raises(TypeError, match="no hyper-parameter 'bta'; did you mean 'beta'"):
        get("dpo").objective_terms(bta=1.0)
    with pytest.raises(TypeError, match="beta must be a number"):
        get("dpo").objective_terms(beta="0.1")


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
