import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.rollout.draw import draw, greedy, keep_top_p, penalize, pick

LOGITS = jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]]))


def test_pick_takes_the_first_place_whose_running_sum_passes_the_uniform():
    weights = jnp.array([[2.0, 0.0, 1.0, 1.0]] * 6)
    uniform = jnp.array([0.0, 0.49, 0.5, 0.74, 0.75, 0.999])
    assert pick(weights, uniform).tolist() == [0, 0, 2, 2, 3, 3]


def test_pick_across_blocks_agrees_with_a_plain_running_sum():
    weights = np.random.default_rng(0).integers(0, 3, (40, 1000)).astype(np.float32)
    uniform = np.random.default_rng(1).random(40).astype(np.float32)
    want = (np.cumsum(weights, -1) <= (uniform * weights.sum(-1))[:, None]).sum(-1)
    np.testing.assert_array_equal(pick(jnp.array(weights), jnp.array(uniform)), want)


def test_pick_never_takes_a_place_without_weight():
    weights = jnp.zeros((3, 600)).at[0, 300].set(1e-30).at[1, 0].set(1.0).at[2, 511].set(7.0)
    for u in (0.0, 0.5, 1.0):  # 1.0 cannot be drawn; it stands for a sum that rounding left short
        assert pick(weights, jnp.full(3, u)).tolist() == [300, 0, 511]


def test_draws_follow_the_distribution_and_report_its_logps():
    n = 20_000
    logits = jnp.tile(LOGITS[1:], (n, 1))
    ids, logps = jax.jit(draw)(logits, jax.random.key(0))
    np.testing.assert_allclose(np.bincount(ids, minlength=4) / n, [0.1, 0.2, 0.3, 0.4], atol=0.015)
    np.testing.assert_allclose(logps, np.log([0.1, 0.2, 0.3, 0.4])[np.asarray(ids)], rtol=1e-5)


def test_temperature_divides_logits_before_the_softmax():
    ids, logps = draw(LOGITS, jax.random.key(1), temperature=0.5)
    p = np.array([[0.25, 0.0625, 0.015625, 0.015625], [0.01, 0.04, 0.09, 0.16]])
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(logps, np.log(p[[0, 1], np.asarray(ids)]), rtol=1e-5)


def test_top_k_keeps_exactly_k_and_prefers_the_first_of_equals():
    ids, logps = draw(jnp.tile(LOGITS[:1], (500, 1)), jax.random.key(2), top_k=3)
    assert set(ids.tolist()) == {0, 1, 2}
    np.testing.assert_allclose(
        logps, np.log(np.array([4, 2, 1]) / 7)[np.asarray(ids)], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("top_p, kept", [(0.3, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 4)])
def test_top_p_keeps_the_smallest_set_that_reaches_it_and_ties_stay_together(top_p, kept):
    weights = jnp.array([[1.0, 0.5, 0.25, 0.25]])
    assert (keep_top_p(weights, top_p) > 0).sum() == kept


def test_top_p_by_bisection_equals_top_p_by_sorting():
    weights = np.exp(np.random.default_rng(0).normal(size=(20, 300)) * 3).astype(np.float32)
    weights /= weights.max(-1, keepdims=True)
    order = -np.sort(-weights.astype(np.float64), -1)
    count = (np.cumsum(order, -1) < 0.9 * order.sum(-1, keepdims=True)).sum(-1) + 1
    kept = keep_top_p(jnp.array(weights), 0.9)
    np.testing.assert_array_equal((kept > 0).sum(-1), count)
    assert kept.min(-1, where=kept > 0, initial=1).tolist() == [
        row[c - 1] for row, c in zip(order, count, strict=True)
    ]


def test_top_p_after_top_k_works_on_the_renormalised_top_k():
    # of (.5, .25) renormalised to (2/3, 1/3), 0.6 is reached by the first alone
    ids, logps = draw(jnp.tile(LOGITS[:1], (50, 1)), jax.random.key(3), top_k=2, top_p=0.6)
    assert set(ids.tolist()) == {0}
    np.testing.assert_allclose(logps, 0.0, atol=1e-6)


def test_temperature_zero_takes_the_first_largest_logit_with_logp_zero():
    logits = jnp.array([[0.0, 3.0, 3.0], [-1.0, -2.0, -3.0]])
    assert greedy(logits).tolist() == [1, 0]
    ids, logps = draw(logits, jax.random.key(0), temperature=0.0)
    assert ids.tolist() == [1, 0] and logps.tolist() == [0.0, 0.0]


def test_a_row_draws_the_same_token_whatever_stands_below_it():
    logits = jax.random.normal(jax.random.key(4), (8, 50))
    few, many = (draw(x, jax.random.key(5))[0] for x in (logits[:3], logits))
    assert few.tolist() == many[:3].tolist()


def test_min_p_keeps_what_is_near_enough_to_the_most_probable_token():
    logits = jnp.tile(LOGITS[1:], (400, 1))  # 0.1, 0.2, 0.3, 0.4
    ids, logps = draw(logits, jax.random.key(3), min_p=0.6)
    assert set(np.asarray(ids).tolist()) == {2, 3}
    want = {2: np.log(3 / 7), 3: np.log(4 / 7)}
    np.testing.assert_allclose(logps, [want[int(i)] for i in ids], rtol=1e-5)


def test_a_penalty_divides_positive_and_multiplies_negative_logits_of_seen_tokens():
    seen = jnp.array([[True, True, False]])
    np.testing.assert_allclose(
        penalize(jnp.array([[4.0, -3.0, 5.0]]), seen, 2.0), [[2.0, -6.0, 5.0]]
    )
