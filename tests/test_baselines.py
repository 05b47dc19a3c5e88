"""Baselines and scales of advantages, against peers' own code (verl 1dda039, TRL f2cd577)."""

import jax.numpy as jnp
import numpy as np

from jalign import advantages as adv

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = float("nan")
SCORES = A([0.5, 2.0, 1.25], [-1.0, 3.0, 0.0])
ALL = jnp.ones((2, 3), bool)
LENGTHS = A([3, 2, 4], [1, 3, 2])


def close(value, expected):
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)


def test_opo_takes_off_the_mean_weighted_by_length():
    out = adv.opo(SCORES, LENGTHS, ALL)
    close(out, [[-0.666667, 0.833333, 0.083333], [-2.333333, 1.666667, -1.333333]])


def test_pass_at_k_learns_from_the_best_alone():
    out = adv.pass_at_k(SCORES, ALL)
    close(out, [[0.0, 0.999999, 0.0], [0.0, 1.441153, 0.0]])
    tied = adv.pass_at_k(
        A([1.0, 1.0, 0.0], [2.0, NAN, NAN]), ~jnp.isnan(A([1, 1, 1], [1, NAN, NAN]))
    )
    assert not tied.any()


def test_lite_ppo_divides_by_the_deviation_of_the_batch():
    out = adv.lite_ppo(SCORES, ALL)
    close(out, [[-0.522461, 0.522461, 0.0], [-1.161023, 1.625433, -0.464409]])


def test_gdpo_normalizes_each_reward_and_skips_one_that_does_not_apply():
    parts = A([[1, 50], [0, 90], [1, NAN]], [[0, 20], [0, 35], [1, 80]])
    out = adv.gdpo(parts, A(2.0, 0.5), ALL)
    close(out, [[0.420047, -1.025511, 0.605463], [-0.815406, -0.68944, 1.504846]])


def test_maxrl_divides_by_the_success_rate():
    scores = A([1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0])
    out = adv.maxrl(scores, scores >= 0, epsilon=0.0)
    close(out, [[3, -1, -1, -1], [1 / 3, 1 / 3, 1 / 3, -1], [0, 0, 0, 0]])
    # the sum over k of grad pass@k / k with K - 1 terms has weight (1 - (1 - p)^(K - 1)) / p
    p, n = 0.25, 4
    drawn = np.array([[float(i >> j & 1) for j in range(n)] for i in range(2**n)])
    chance = np.prod(np.where(drawn, p, 1 - p), -1)
    a = np.asarray(adv.maxrl(jnp.asarray(drawn), jnp.ones(drawn.shape, bool), epsilon=0.0))
    score = np.where(drawn, 1 / p, -1 / (1 - p))  # d log P / dp of each outcome
    gradient = (chance[:, None] * a * score).sum() / n
    close(gradient, (1 - (1 - p) ** (n - 1)) / p)


def test_otb_weighs_by_the_uncertainty_of_the_path():
    mask = jnp.arange(4) < LENGTHS[..., None]
    logps = -A(
        [2.4345, 2.443, 1.5944, 0.9288],
        [0.2564, 1.2118, 1.2846, 0.2313],
        [0.2414, 2.9976, 1.9919, 0.7801],
        [1.3613, 2.9251, 2.7033, 2.5483],
        [1.238, 1.5298, 2.0624, 0.2763],
        [1.7112, 0.8872, 2.651, 0.2862],
    ).reshape(2, 3, 4)
    squares = A(
        [0.5074, 0.3418, 0.3637, 0.3683],
        [0.8893, 0.5878, 0.6232, 0.3305],
        [0.6279, 0.1545, 0.094, 0.7727],
        [0.0576, 0.882, 0.753, 0.7174],
        [0.0909, 0.2263, 0.7724, 0.4176],
        [0.5833, 0.1539, 0.2084, 0.4727],
    ).reshape(2, 3, 4)
    out = adv.otb(SCORES, logps, jnp.log(squares), mask)
    first = [[-0.320749, -0.573181, -0.268902, 0], [1.179251, 0.926819, 0, 0]]
    close(out[0], [*first, [0.429251, 0.176819, 0.481098, 1.25]])
    second = [[-1.433717, 0, 0, 0], [2.566283, 1.630325, 3.0, 0], [-0.433717, -1.369675, 0, 0]]
    close(out[1], second)


def test_the_tokens_of_highest_covariance_are_those_of_verl():
    mask = jnp.array([[True] * 5, [True] * 4 + [False]])
    logps = A([-0.1, -3.1, -0.67, -1.9, -0.7], [-0.8, -0.85, -2.02, -0.2, NAN])
    advantages = A([2.0] * 5, [-1.5] * 4 + [NAN])
    x = adv.covariances(logps, advantages, mask)
    first = [1.631605, -3.035062, 0.744938, -1.168395, 0.698272]
    close(x, [first, [-0.678395, -0.581173, 1.693827, -1.845062, 0]])
    marked = adv.highest(x, mask, share=0.3)  # two of nine
    assert np.argwhere(marked).tolist() == [[0, 0], [1, 2]]
    uniforms = A([0.9, 0.8, 0.1, 0.7, 0.6], [0.5, 0.4, 0.3, 0.2, 0.95])
    some = adv.random_between(x, uniforms, mask, low=0.6, high=1.65, share=0.3)
    assert np.argwhere(some).tolist() == [[0, 0], [0, 4]]


def test_lambda_by_length_is_that_of_each_response():
    rewards = A([0, 0, 1, 0, 0], [0, 0, 0, 0, 2])
    values = A([0.5, 0.25, 0.75, NAN, NAN], [0.1, 0.3, 0.6, 0.9, 1.2])
    mask = jnp.arange(5) < jnp.array([[3], [5]])
    lam = adv.length_adaptive_lambda(jnp.array([3, 5]), alpha=0.5)
    close(lam, [1 / 3, 0.6])
    out, _ = adv.gae(rewards, values, mask, lam=lam)
    one = adv.gae(rewards[:1], values[:1], mask[:1], lam=float(lam[0]))[0]
    two = adv.gae(rewards[1:], values[1:], mask[1:], lam=float(lam[1]))[0]
    close(out, jnp.concatenate([one, two]))
