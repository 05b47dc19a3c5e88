"""One step: exact under any cutting into micro-batches and devices; skips what is not finite;
compiles once.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jalign.algorithms import ALGORITHMS, get
from jalign.core import Frozen
from jalign.train.step import create_state, make_eval_step, make_train_step
from tests.train._toy import B, K, R, apply, batch, cut, params, responses, run


def flow(row):
    """What a step must do for a row besides calling its loss."""
    read = frozenset(row.outputs(row.inputs()))
    kinds = ("kl_present", "gumbel", *(row.carry.names if row.carry else ()))
    special = frozenset(n for n in row.inputs() if n in kinds)
    terms = tuple(n for n, aux in row.aux_losses.items() if aux.weight)
    return row.format.name, row.batch_coupled, row.reduce, read, special, terms


ONE_OF_EACH = {flow(row): row for row in reversed(ALGORITHMS.values())}


@pytest.fixture(params=ONE_OF_EACH.values(), ids=lambda row: row.name)
def row(request):
    """One row for every way in which data flow through a step."""
    return request.param


def test_1x8_and_8x1_and_3_stacks_of_micro_batches_take_the_same_step(row):
    """Local denominators and micro-batched batch-coupled losses (trl 5619, 6024; verl 7321)
    differ here.
    """
    whole = batch(k=responses(row))
    at_once, metrics = run(row, whole)
    piecewise, other = run(row, cut(whole, 8, room=2))
    half = jax.tree.map(lambda x: x[:4], whole), jax.tree.map(lambda x: x[4:], whole)
    stacks, third = run(row, (cut(half[0], 2), cut(half[1], 1, room=1)))
    for state, m in ((piecewise, other), (stacks, third)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
            at_once.params,
            state.params,
        )
        assert set(m) == set(metrics)
        for name in metrics:
            np.testing.assert_allclose(metrics[name], m[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "name", ["sft", "dpo", "kto", "beta_dpo", "rrhf", "multi_attribute", "prm"]
)
def test_eight_devices_take_the_same_step_as_one(name):
    row = get(name)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = batch(k=responses(row))
    one, _ = run(row, whole)
    eight, _ = run(row, jax.device_put(whole, split))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
        one.params,
        eight.params,
    )


def test_the_loss_of_a_step_is_the_loss_that_evaluation_reports(row):
    whole = batch(k=responses(row))
    _, metrics = run(row, whole)
    if "gumbel" in row.inputs():  # drawn in training only
        return
    evaluate = jax.jit(make_eval_step(row, apply))
    carry = create_state(params(), optax.sgd(1.0), row, jax.random.key(7)).carry
    means = evaluate(params(), Frozen(None, params(1)), carry, cut(whole, 4, room=1))
    for name, mean in means.items():
        if name == "pretraining/nll":  # the batch has no such text: a mean over nothing
            continue
        np.testing.assert_allclose(mean.value, metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters():
    bad = params()
    bad["w"] = bad["w"].at[0].set(jnp.nan)
    state, metrics = run(get("sft"), batch(k=1), p=bad)
    np.testing.assert_array_equal(state.params["w"], bad["w"])
    assert int(state.step) == 1 and int(state.skipped) == 1 and int(state.skipped_in_a_row) == 1
    assert not np.isfinite(metrics["loss"])


def test_a_good_step_after_bad_ones_clears_the_run_of_bad_ones():
    optimizer, row = optax.sgd(0.1), get("sft")
    state = create_state(params(), optimizer, row, jax.random.key(0))
    state = state.replace(skipped=jnp.int32(3), skipped_in_a_row=jnp.int32(2))
    state, _ = make_train_step(row, apply, optimizer)(state, Frozen(None, None), batch(k=1))
    assert int(state.skipped) == 3 and int(state.skipped_in_a_row) == 0


def test_the_state_is_donated_and_the_step_compiles_once():
    optimizer, row = optax.adamw(1e-3), get("dpo")
    state = create_state(params(), optimizer, row, jax.random.key(0))
    chex.clear_trace_counter()
    once = chex.assert_max_traces(make_train_step(row, apply, optimizer), n=1)
    step = jax.jit(once, donate_argnums=0)
    for seed in range(3):
        old, data = state.params["w"], cut(batch(seed=seed), 4, room=seed and 0)
        state, _ = step(state, Frozen(None, params(1)), data)
        assert old.is_deleted()


def test_an_optimizer_that_changes_the_type_of_its_state_is_refused():
    """The step would compile again, and `where` would have promoted the state silently."""
    row, sgd = get("dpo"), optax.sgd(1e-3)

    def init(params):
        return {"count": jnp.int32(0)}

    def update(updates, state, params=None):
        return updates, {"count": state["count"] + 0.5}

    optimizer = optax.chain(sgd, optax.GradientTransformation(init, update))
    state = create_state(params(), optimizer, row, jax.random.key(0))
    step = jax.jit(make_train_step(row, apply, optimizer))
    with pytest.raises(AssertionError, match=r"int32.*float32|float32.*int32"):
        step(state, Frozen(None, params(1)), batch())


def test_cached_reference_log_probabilities_replace_the_reference_forward():
    whole, row = batch(), get("dpo")
    expected, _ = run(row, whole)
    logps = apply(params(1), None, whole.layout, ("token_logps",))["token_logps"]
    sums = (logps * whole.mask).sum(-1)
    cached = whole._replace(
        extras={"ref_chosen_logps": sums[:, 0], "ref_rejected_logps": sums[:, 1]}
    )
    optimizer = optax.sgd(1.0)
    state = create_state(params(), optimizer, row, jax.random.key(7))
    got, _ = make_train_step(row, apply, optimizer)(state, Frozen(None, None), cached)
    np.testing.assert_allclose(got.params["w"], expected.params["w"], rtol=1e-5)


def test_an_extra_term_keeps_its_own_denominator():
    """ORPO's NLL is a mean over tokens, its odds ratio a mean over pairs; both are global."""
    whole = batch()
    _state, metrics = run(get("orpo"), whole, beta=0.0)
    p = params()
    logps = jax.nn.log_softmax(p["w"])[whole.layout.tokens[..., 0].reshape(B, K, R)]
    mask = whole.mask[:, 0]
    np.testing.assert_allclose(metrics["loss"], -(logps[:, 0] * mask).sum() / mask.sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["nll_loss"], metrics["loss"], rtol=1e-6)


def steps(row, count, optimizer, **hyper):
    state = create_state(params(), optimizer, row, jax.random.key(7), **hyper)
    step = jax.jit(make_train_step(row, apply, optimizer, **hyper), donate_argnums=0)
    frozen = Frozen(None, params(1))
    seen = []
    for seed in range(count):
        state, metrics = step(state, frozen, batch(k=responses(row), seed=seed))
        seen.append((jax.device_get(state), jax.device_get(metrics)))
    return seen


def test_a_moving_reference_is_mixed_with_the_policy_every_so_many_steps():
    seen = steps(get("dpo"), 4, optax.sgd(1.0), ref_sync_steps=2, ref_mixup_alpha=0.6)
    refs = [state.ref["w"] for state, _ in seen]
    start = params()["w"]
    np.testing.assert_array_equal(refs[0], start)
    second = 0.6 * seen[1][0].params["w"] + 0.4 * start
    np.testing.assert_allclose(refs[1], second, rtol=1e-6)
    np.testing.assert_array_equal(refs[2], refs[1])
    np.testing.assert_allclose(refs[3], 0.6 * seen[3][0].params["w"] + 0.4 * second, rtol=1e-6)
    first = np.log(2.0)  # the reference is the policy of step 0, not the frozen one
    np.testing.assert_allclose(seen[0][1]["loss"], first, rtol=1e-6)
    assert abs(seen[2][1]["loss"] - first) > 1e-4


@pytest.mark.parametrize("why", ["not finite", "nothing scored"])
def test_a_reference_that_is_due_moves_after_a_step_that_is_left_out(why):
    row, optimizer, hyper = get("dpo"), optax.sgd(1.0), {"ref_sync_steps": 2}
    state = create_state(params(), optimizer, row, jax.random.key(7), **hyper)
    step = jax.jit(make_train_step(row, apply, optimizer, **hyper))
    first, _ = step(state, Frozen(None, None), batch())
    left_out = batch(seed=1)
    if why == "not finite":
        row_of_nan = {n: x.at[0].set(jnp.nan) for n, x in first.params.items()}
        second, _ = step(first.replace(params=row_of_nan), Frozen(None, None), left_out)
        assert int(second.skipped) == 1
        np.testing.assert_array_equal(second.ref["w"][1:], row_of_nan["w"][1:])
    else:
        left_out = left_out._replace(mask=np.zeros_like(left_out.mask))
        second, _ = step(first, Frozen(None, None), left_out)
        np.testing.assert_array_equal(second.ref["w"], first.params["w"])
    assert int(second.step) == 2


def test_in_sdpo_the_reference_becomes_the_policy_itself():
    (state, _), (_, metrics) = steps(get("sdpo"), 2, optax.sgd(1.0), ref_sync_steps=1)
    np.testing.assert_array_equal(state.ref["w"], state.params["w"])
    np.testing.assert_allclose(metrics["loss"], np.log(2.0), rtol=1e-6)


def test_a_second_reference_is_mixed_with_the_policy_while_the_first_stays():
    hyper = {"last_sync_steps": 2, "last_mixup_alpha": 0.6, "eta": 1.0}
    seen = steps(get("inpo"), 3, optax.sgd(0.1), **hyper)
    last, start = [state.last["w"] for state, _ in seen], params()["w"]
    np.testing.assert_array_equal(last[0], start)
    np.testing.assert_allclose(last[1], 0.6 * seen[1][0].params["w"] + 0.4 * start, rtol=1e-6)
    np.testing.assert_array_equal(last[2], last[1])
    assert all(state.ref is None for state, _ in seen)


def test_in_omwu_the_second_reference_is_what_the_first_was_an_iteration_before():
    seen = steps(get("omwu"), 5, optax.sgd(0.01), ref_sync_steps=2)
    start, w = params()["w"], [state.params["w"] for state, _ in seen]
    for state, ref, last in zip(
        (state for state, _ in seen),
        (start, w[1], w[1], w[3], w[3]),
        (start, start, start, w[1], w[1]),
        strict=True,
    ):
        np.testing.assert_array_equal(state.ref["w"], ref)
        np.testing.assert_array_equal(state.last["w"], last)


def test_of_the_two_calls_of_an_extragradient_the_first_moves_the_second_reference_alone():
    """The second continues from the parameters and the optimizer state before the first."""
    optimizer = optax.adam(0.1)
    step = jax.jit(make_train_step(get("egpo"), apply, optimizer))
    frozen = Frozen(None, params(1))
    start = create_state(params(), optimizer, get("egpo"), jax.random.key(7))
    half, _ = step(start, frozen, batch(seed=0))
    chex.assert_trees_all_equal((half.params, half.opt_state), (start.params, start.opt_state))
    assert abs(half.last["w"] - start.params["w"]).max() > 0.05
    new, _ = step(half, frozen, batch(seed=1))
    # the same update as of a run that never took a half step
    other, _ = step(start.replace(step=jnp.int32(1)), frozen, batch(seed=1))
    chex.assert_trees_all_equal((new.params, new.opt_state), (other.params, other.opt_state))
    chex.assert_trees_all_equal(new.last, new.params)
    assert int(new.step) == 2 and int(new.opt_state[0].count) == 1


def test_the_reference_of_an_extragradient_may_move():
    seen = steps(get("egpo"), 4, optax.sgd(1.0), ref_sync_steps=4)
    refs = [state.ref["w"] for state, _ in seen]
    np.testing.assert_array_equal(refs[2], params()["w"])
    np.testing.assert_array_equal(refs[3], seen[3][0].params["w"])
    assert abs(refs[3] - refs[2]).max() > 0


def test_a_half_step_that_is_not_finite_moves_nothing():
    step = jax.jit(make_train_step(get("egpo"), apply, optax.sgd(0.1)))
    start = create_state(params(), optax.sgd(0.1), get("egpo"), jax.random.key(7))
    broken = batch()
    broken.extras["chosen_win_rate"][0] = np.nan
    half, _ = step(start, Frozen(None, params(1)), broken)
    chex.assert_trees_all_equal(half.last, start.params)
    assert int(half.skipped) == 1


def test_running_values_start_from_the_data_and_are_averaged_from_step_to_step():
    seen = steps(get("bco"), 2, optax.sgd(0.0), momentum=0.9)
    rng_free = [m["delta"] for _, m in steps(get("bco"), 2, optax.sgd(0.0), momentum=0.0)]
    (first, one), (second, two) = seen
    np.testing.assert_allclose(one["delta"], rng_free[0], rtol=1e-5)  # nothing to average with
    np.testing.assert_allclose(two["delta"], 0.9 * rng_free[0] + 0.1 * rng_free[1], rtol=1e-5)
    np.testing.assert_allclose(first.carry["delta"], one["delta"], rtol=1e-6)
    np.testing.assert_allclose(second.carry["delta"], two["delta"], rtol=1e-6)


def test_each_annotator_has_a_reliability_of_its_own_however_a_step_is_cut():
    row, data = get("re_po"), batch()
    ids = np.array([0, 2, 2, 0, 5, -1, 2, -1], np.int32)
    data = data._replace(extras=data.extras | {"annotator": ids})
    one, metrics = run(row, data, eta_momentum=0.5)
    eta = np.asarray(one.carry["eta"])
    # alone, a pair has the posterior that it has among the others
    alone = [run(row, jax.tree.map(lambda x, i=i: x[i : i + 1], data))[1] for i in range(8)]
    q = np.array([m["posterior"] for m in alone])
    for who in (0, 2, 5):
        np.testing.assert_allclose(eta[who], 0.5 * (0.9 + q[ids == who].mean()), rtol=1e-5)
    assert np.isnan(np.delete(eta, [0, 2, 5])).all()
    # the mean over all pairs is logged, the reliabilities are not
    np.testing.assert_allclose(metrics["eta"], (0.5 * (0.9 + q)).mean(), rtol=1e-5)
    assert all(not x.ndim for x in metrics.values())
    cut_up, _ = run(row, cut(data, 4, room=1), eta_momentum=0.5)
    np.testing.assert_allclose(cut_up.carry["eta"], eta, rtol=1e-5)


def test_noise_is_another_in_every_step_and_the_same_however_a_step_is_cut():
    from jalign.train.objective import Objective

    objective = Objective.of(get("beta_dpo"))
    index = {"index": jnp.arange(6), "present": jnp.ones(6, bool)}
    a = objective.noise(index, jax.random.key(0))["gumbel"]
    turned = objective.noise({k: v[::-1] for k, v in index.items()}, jax.random.key(0))["gumbel"]
    np.testing.assert_array_equal(a, turned[::-1])
    assert not np.allclose(a, objective.noise(index, jax.random.key(1))["gumbel"])
    assert len(set(a.tolist())) == 6
    assert not objective.noise(index, None)["gumbel"].any()
