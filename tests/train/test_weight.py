"""A `weight` that comes with the data is how often an example counts in the loss, exactly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jalign.algorithms import ALGORITHMS, get
from jalign.core import Frozen
from jalign.train.step import create_state, make_eval_step
from tests.train._toy import apply, batch, cut, params, responses, run

# One of every reduction, batch-coupled and with terms of their own denominators.
NAMES = ["sft", "dpo", "cpo", "kto", "rrhf", "prm", "multi_attribute", "cringe"]
WEIGHTS = np.array([0.0, 9.0, 0.5, 2.0, 0.0, 1.0, 3.0, 0.25], np.float32)


def weighted(row, weight):
    data = batch(k=responses(row))
    return data._replace(extras=data.extras | {"weight": np.asarray(weight, np.float32)})


def same(a, b, rtol=2e-5):
    chex.assert_trees_all_close(a, b, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("name", ["sft", "simpo", "cpo", "prm"])
def test_weights_of_0_and_9_give_the_loss_of_the_second_example(name):
    row = get(name)
    whole = batch(k=responses(row))
    second = jax.tree.map(lambda x: x[1:2], whole)
    two = jax.tree.map(lambda x: x[:2], weighted(row, [0.0, 9.0, *WEIGHTS[2:]]))
    (state, metrics), (expected, alone) = run(row, two), run(row, second)
    np.testing.assert_allclose(metrics["loss"], alone["loss"], rtol=1e-5)
    same(state.params, expected.params)


def test_a_weighted_loss_by_hand():
    """Pairs of 1 against 3 in weight: a quarter of the first loss, three quarters of the second."""
    row, one = get("dpo"), lambda i: run(get("dpo"), jax.tree.map(lambda x: x[i : i + 1], batch()))
    data = jax.tree.map(lambda x: x[:2], weighted(row, [1.0, 3.0, *WEIGHTS[2:]]))
    first, second = (float(one(i)[1]["loss"]) for i in (0, 1))
    assert abs(first - second) > 1e-3
    np.testing.assert_allclose(run(row, data)[1]["loss"], (first + 3 * second) / 4, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_weighted_step_is_the_same_however_it_is_cut(name):
    row = get(name)
    whole = weighted(row, WEIGHTS)
    at_once, metrics = run(row, whole)
    pieces, other = run(row, cut(whole, 8, room=2))
    same(at_once.params, pieces.params)
    same(metrics["loss"], other["loss"])
    _, plain = run(row, batch(k=responses(row)))
    assert abs(plain["loss"] - metrics["loss"]) > 1e-4
    for name in set(metrics) - {"loss", "grad_norm"}:  # of all examples alike
        same(metrics[name], plain[name])


def test_eight_devices_take_the_same_weighted_step_as_one():
    row = get("cpo")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = weighted(row, WEIGHTS)
    same(run(row, whole)[0].params, run(row, jax.device_put(whole, split))[0].params)


def test_evaluation_weighs_examples_as_training_does():
    row = get("dpo")
    whole = weighted(row, WEIGHTS)
    _, metrics = run(row, whole)
    evaluate = jax.jit(make_eval_step(row, apply))
    carry = create_state(params(), optax.sgd(1.0), row, jax.random.key(7)).carry
    halves = [jax.tree.map(lambda x, s=s: x[s], whole) for s in (slice(4), slice(4, 8))]
    means = [evaluate(params(), Frozen(None, params(1)), carry, half)["loss"] for half in halves]
    both = jax.tree.map(jnp.add, *means)
    np.testing.assert_allclose(both.value, metrics["loss"], rtol=1e-5)


def test_a_step_of_weights_of_0_changes_nothing():
    row, optimizer = get("dpo"), optax.adamw(0.1)
    state, _ = run(row, batch(), optimizer=optimizer)
    assert not np.allclose(state.params["w"], params()["w"])
    state, metrics = run(row, weighted(row, np.zeros(8)), optimizer=optimizer)
    np.testing.assert_array_equal(state.params["w"], params()["w"])
    assert metrics["loss"] == 0 and int(state.skipped) == 0


def test_equal_weights_change_nothing_in_any_reduction_of_fixed_data():
    """So the divisor of each is its sum of weights, which a weighted mean is divided by."""
    offline = [row for row in ALGORITHMS.values() if not row.format.policy_samples]
    reductions = {t.reduce: row for row in offline for t in row.objective_terms()}
    reductions |= {
        reduce: row for row in offline for _, _, reduce, _ in row.available_aux_losses.values()
    }
    for reduce, row in reductions.items():
        data = batch(k=responses(row) if not row.format.joint_prompt else 2)
        fields = data.extras | row.format.view({}, data)
        weights, divisor = reduce(fields)
        np.testing.assert_allclose(np.sum(weights, dtype=np.float32), divisor, rtol=1e-6)


def test_samples_have_no_weight():
    with pytest.raises(ValueError, match="count by their advantages"):
        run(get("grpo"), weighted(get("grpo"), WEIGHTS))
