"""Hand values of what rewards are worth, and the whole way from a batch to them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jalign.algorithms import get
from jalign.core import Frozen
from jalign.eval.examples import gives_rewards, make_example_step, make_kl_step, per_example
from jalign.eval.reward import (
    by_source,
    calibration,
    length_correlation,
    pairwise_accuracy,
    reward_report,
)
from jalign.layout import MicroBatches
from jalign.losses import dpo
from jalign.train.step import create_state, make_eval_step
from tests.train._toy import apply, batch, cut, params

CHOSEN = np.array([2.0, 0.0, 1.0, 0.5, 3.0])
REJECTED = np.array([1.0, 3.0, 1.0, 0.4, 0.0])  # differences 1, -3, 0, 0.1, 3


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_pairwise_accuracy_counts_a_tie_as_half():
    assert pairwise_accuracy(CHOSEN, REJECTED) == (1 + 0 + 0.5 + 1 + 1) / 5


def test_calibration_by_hand():
    buckets, error = calibration(CHOSEN, REJECTED, buckets=2)  # [0.5, 0.75) and [0.75, 1]
    low, high = buckets
    assert (low.low, low.high, high.high) == (0.5, 0.75, 1.0)
    # sigmoid(1) = 0.731 and the two near 0.5 fall in the first; 3 and -3 in the second
    assert (low.pairs, high.pairs) == (3, 2)
    mean = (sigmoid(1) + sigmoid(0) + sigmoid(0.1)) / 3
    np.testing.assert_allclose([low.confidence, low.accuracy], [mean, 2.5 / 3])
    np.testing.assert_allclose([high.confidence, high.accuracy], [sigmoid(3), 0.5])
    np.testing.assert_allclose(error, 3 / 5 * (2.5 / 3 - mean) + 2 / 5 * (sigmoid(3) - 0.5))


def test_every_confidence_has_a_bucket_and_empty_ones_are_nan():
    buckets, error = calibration([1000.0, 0.0], [0.0, 0.0])
    assert [b.pairs for b in buckets] == [1, *[0] * 8, 1]  # certainty and a tie, at both ends
    assert math.isnan(buckets[4].accuracy) and math.isnan(buckets[4].confidence)
    assert error == 0.0  # right where it is certain, and a tie where it says one half


def test_rewards_drawn_from_their_own_model_are_calibrated():
    rng = np.random.default_rng(0)
    difference = rng.normal(0, 2, 40_000)
    sign = np.where(rng.random(40_000) < 1 / (1 + np.exp(-difference)), 1, -1)
    assert calibration(sign * difference, np.zeros(40_000))[1] < 0.01
    assert calibration(3 * sign * difference, np.zeros(40_000))[1] > 0.05  # overconfident


def test_length_correlation_by_hand():
    pearson, spearman = length_correlation([1.0, 2.0, 4.0], [3.0, 5.0, 4.0])
    # deviations (-4, -1, 5) / 3 and (-1, 1, 0)
    np.testing.assert_allclose(pearson, 1 / math.sqrt(42 / 9 * 2))
    np.testing.assert_allclose(spearman, 0.5)  # ranks 1 2 3 and 1 3 2
    tied = length_correlation([1.0, 1.0, 2.0], [5.0, 6.0, 7.0])[1]
    np.testing.assert_allclose(tied, 1.5 / math.sqrt(1.5 * 2))  # ranks 1.5 1.5 3 and 1 2 3
    assert all(map(math.isnan, length_correlation([1.0, 2.0], [4.0, 4.0])))


def test_accuracy_by_source_leaves_out_a_source_without_pairs():
    found = by_source(CHOSEN, REJECTED, [0, 2, 2, 0, 0], ["a", "b", "c"])
    assert {name: tuple(s) for name, s in found.items()} == {"a": (3, 1.0), "c": (2, 0.25)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairwise_accuracy([1.0], [1.0, 2.0]), r"must be \[n\], n >= 1, got \(1,\), \(2,"),
        (lambda: pairwise_accuracy([], []), "n >= 1"),
        (lambda: calibration([np.nan], [1.0]), "chosen hold 1 numbers not finite"),
        (lambda: calibration([2.0], [1.0], 0), "buckets must be at least 1, got 0"),
        (lambda: by_source([1.0], [2.0], [1], ["a"]), "source 1 has no name; names are: a"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- from batches


def carry_of(row):
    return create_state(params(), optax.sgd(1.0), row, jax.random.key(7)).carry


def outputs_of(row, data, **hyper):
    step = jax.jit(make_example_step(row, apply, **hyper))
    return per_example(step, params(), Frozen(None, params(1)), carry_of(row), data)


def test_rewards_of_each_example_come_in_the_order_of_the_data():
    whole, row = batch(), get("dpo")
    expected = outputs_of(row, [whole], beta=0.3)
    assert list(expected["index"]) == list(range(8))
    shuffled = jax.tree.map(lambda x: x[np.array([5, 2, 7, 0, 1, 6, 4, 3])], whole)
    halves = jax.tree.map(lambda x: x[:4], shuffled), jax.tree.map(lambda x: x[4:], shuffled)
    stacks = (cut(halves[0], 2, room=1), cut(halves[1], 1, room=2))
    for found in (outputs_of(row, [stacks], beta=0.3), outputs_of(row, halves, beta=0.3)):
        assert set(found) == set(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


def test_implicit_rewards_are_those_of_the_loss():
    whole = batch()
    found = outputs_of(get("dpo"), [whole], beta=0.3)
    out = [
        apply(p, None, whole.layout, ("token_logps",))["token_logps"] for p in map(params, (0, 1))
    ]
    chosen, rejected, ref_chosen, ref_rejected = (
        jnp.where(whole.mask, x, 0)[:, i].sum(-1) for x in out for i in (0, 1)
    )
    _, named = dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.3)
    for name in ("chosen_rewards", "rejected_rewards"):
        np.testing.assert_allclose(found[name], named[name], rtol=1e-5)
    np.testing.assert_array_equal(found["rejected_len"], whole.mask[:, 1].sum(-1))


@pytest.mark.parametrize("name", ["dpo", "tdpo2", "bco_pair", "aot", "token_bradley_terry"])
def test_the_accuracy_is_that_of_the_metrics(name):
    """Implicit rewards and reward models alike, batch-coupled losses too."""
    row, data = get(name), cut(batch(), 4, room=1)
    found = outputs_of(row, [data])
    frozen = Frozen(None, params(1))
    means = jax.jit(make_eval_step(row, apply))(params(), frozen, carry_of(row), data)
    report = reward_report(found)
    for name, value in (
        ("rewards/accuracies", report["pairwise_accuracy"]),
        ("rewards/chosen", found["chosen_rewards"].mean()),
        ("rewards/rejected", found["rejected_rewards"].mean()),
    ):
        np.testing.assert_allclose(value, means[name].value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_which_rows_have_rewards_of_pairs():
    assert all(map(gives_rewards, map(get, ("dpo", "bradley_terry", "simpo", "tdpo2", "aot"))))
    assert not any(map(gives_rewards, map(get, ("sft", "kto", "npo", "k_wise"))))
    with pytest.raises(ValueError, match="npo reports no rewards"):
        make_example_step(get("npo"), apply)


def test_the_report_names_sources():
    whole = batch()
    whole = whole._replace(extras=whole.extras | {"source": np.arange(8, dtype=np.int32) % 2})
    found = outputs_of(get("bradley_terry"), [cut(whole, 2)])
    report = reward_report(found, ["first", "second"])
    even = pairwise_accuracy(found["chosen_rewards"][::2], found["rejected_rewards"][::2])
    assert report["accuracy_by_source"]["first"] == {"pairs": 4, "accuracy": even}
    assert "accuracy_by_source" not in reward_report(found)


def test_kl_to_start_is_a_mean_over_scored_tokens():
    whole = batch()

    def fixed(params, base, layout, outputs, key=None, reference=None, **numbers):
        assert outputs == ("kl_to_ref",)
        tokens = layout.tokens[..., 0].reshape(-1, 1, layout.slots.shape[-1])
        return {"kl_to_ref": params * tokens + reference}  # as padded rows lie: [B * K, 1, R]

    tokens = whole.layout.tokens[..., 0].reshape(whole.mask.shape)
    for responses, mask in ((None, whole.mask), (1, whole.mask & [[[True], [False]]])):
        step = jax.jit(make_kl_step(fixed, responses))
        stack: MicroBatches = cut(whole, 4, room=2)
        mean = step(jnp.float32(2.0), None, jnp.float32(0.5), (stack,))
        np.testing.assert_allclose(mean.value, (2 * tokens + 0.5)[mask].mean(), rtol=1e-6)
        assert mean.count == mask.sum()
