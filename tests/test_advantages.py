"""From scores to advantages, by hand and against plain loops."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import advantages as adv
from jalign.losses.policy.ppo import ppo_clip

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = math.nan

SCORES = A(
    [1.0, 4.0, 2.5, -1.5], [0.25, NAN, 3.0, 1.75], [7.0, 7.0, NAN, 7.0], [NAN, 2.0, NAN, NAN]
)
VALID = ~jnp.isnan(SCORES)
GROUPS = [[1.0, 4.0, 2.5, -1.5], [0.25, 3.0, 1.75], [7.0, 7.0, 7.0], [2.0]]


def per_group(fn):
    """[4, 4]: `fn` of the list of a group's scores at its valid places, 0 elsewhere."""
    out = np.zeros((4, 4))
    for row, valid, group in zip(out, np.asarray(VALID), GROUPS, strict=True):
        row[valid] = fn(group)
    return out


def close(found, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


# ---- groups


def test_group_normalized_divides_by_the_deviation_of_a_sample_plus_epsilon():
    def by_hand(group):
        mean = sum(group) / len(group)
        std = math.sqrt(sum((x - mean) ** 2 for x in group) / max(len(group) - 1, 1))
        return [(x - mean) / (std + 0.3) for x in group]

    close(adv.group_normalized(SCORES, VALID, epsilon=0.3), per_group(by_hand))
    close(adv.group_normalized(SCORES, VALID)[0, 0], -0.5 / (math.sqrt(16.5 / 3) + 1e-4), rtol=1e-6)


def test_a_group_without_spread_has_advantages_of_exactly_zero():
    for score in (0.1, 1e4 / 3, -123.456):
        same = jnp.full((1, 7), score)
        assert not adv.group_normalized(same, jnp.ones((1, 7), bool), epsilon=1e-9).any()
    assert not adv.group_normalized(SCORES, VALID)[2:].any()


def test_a_missing_score_leaves_its_group_finite():
    for fn in (adv.group_normalized, adv.group_centred, adv.leave_one_out, adv.batch_centred):
        out = fn(SCORES, VALID)
        assert np.isfinite(out).all() and not out[~VALID].any()
        np.testing.assert_array_equal(out, fn(jnp.where(VALID, SCORES, 1e9), VALID))


def test_group_centred_takes_the_mean_away_and_nothing_else():
    by_hand = lambda group: [x - sum(group) / len(group) for x in group]  # noqa: E731
    close(adv.group_centred(SCORES, VALID), per_group(by_hand))


def test_leave_one_out_compares_with_the_mean_of_the_others():
    def by_hand(group):
        if len(group) == 1:
            return [0.0]
        others = [group[:i] + group[i + 1 :] for i in range(len(group))]
        return [x - sum(rest) / len(rest) for x, rest in zip(group, others, strict=True)]

    out = adv.leave_one_out(SCORES, VALID)
    close(out, per_group(by_hand))
    close(out[0], 4 / 3 * (SCORES[0] - 1.5))  # K / (K - 1) * (score - mean)


def test_batch_centred_takes_the_mean_of_the_whole_batch():
    mean = sum(map(sum, GROUPS)) / 11
    close(adv.batch_centred(SCORES, VALID), per_group(lambda group: [x - mean for x in group]))


def test_greedy_baseline_takes_the_greedy_score_of_the_prompt():
    out = adv.greedy_baseline(A([1.0, 4.0], [0.5, -2.0]), A(3.0, 0.25))
    close(out, [[-2.0, 1.0], [0.25, -2.25]])


# ---- win rates

WINS = A(
    [[0.9, 0.7, 0.2], [0.3, 0.1, 0.6], [0.8, 0.4, 0.0]],  # the diagonal is junk
    [[NAN, 1.0, NAN], [0.0, NAN, NAN], [NAN, NAN, NAN]],
)


def test_win_rates_over_others_leave_the_response_itself_out():
    close(adv.win_rates_over_others(WINS)[0], [0.45, 0.45, 0.6])
    close(adv.win_rates_over_others(WINS)[0].mean(), 0.5)


def test_win_rates_count_the_response_itself_as_a_half():
    close(adv.win_rates(WINS)[0], [(0.5 + 0.9) / 3, (0.5 + 0.9) / 3, (0.5 + 1.2) / 3])


def test_comparisons_that_were_not_made_are_left_out():
    close(adv.win_rates_over_others(WINS)[1], [1.0, 0.0, 0.5])
    close(adv.win_rates(WINS)[1], [0.75, 0.25, 0.5])


# ---- steps


def test_process_advantages_are_the_sums_of_normalised_scores_of_steps_that_end_later():
    ends = jnp.array([[[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]], [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]]) == 1
    scores = jnp.where(
        ends, A([[0, 0.5, 0, 2.0, 0], [-1.0] * 5], [[0, 0, 3.0, 0, 0], [0] * 5]), NAN
    )
    mean = 0.5
    std = math.sqrt((0 + 1.5**2 + 1.5**2) / 2)
    first, second, third = (x / (std + 0.1) for x in (0.5 - mean, 2.0 - mean, -1.0 - mean))
    out = adv.process_advantages(scores, ends, epsilon=0.1)
    close(out[0, 0], [first + second, first + second, second, second, 0])
    close(out[0, 1], [third, 0, 0, 0, 0])
    assert not out[1].any()  # one step has nothing to be compared with


def test_process_advantages_of_one_step_at_the_end_are_those_of_outcomes():
    scores = A([1.0, 4.0, 2.5, -1.5])[None, 0][None]
    ends = jnp.zeros((1, 4, 3), bool).at[:, :, 2].set(True)
    steps = jnp.where(ends, scores.reshape(1, 4, 1), NAN)
    out = adv.process_advantages(steps, ends)
    whole = adv.group_normalized(scores.reshape(1, 4), jnp.ones((1, 4), bool))
    close(out, jnp.broadcast_to(whole[..., None], (1, 4, 3)))


# ---- tokens

REWARDS = A([0.3, -0.5, 1.0, 2.0], [0.1, 0.7, NAN, NAN], [0.4, NAN, -0.6, 0.9], [NAN] * 4)
MASK = ~jnp.isnan(REWARDS)  # whole, padded, with a hole, empty
VALUES = jnp.where(
    MASK, A([0.5, 0.2, -0.3, 1.1], [0.6, 0.8, 0, 0], [0.25, 0, 0.35, 0.45], [0] * 4), NAN
)


def loop(rewards, values, gamma, lam):
    """GAE of one response, token after token, by the sum over all later errors."""
    n = len(rewards)
    after = [*values[1:], 0.0]
    errors = [rewards[t] + gamma * after[t] - values[t] for t in range(n)]
    return [sum((gamma * lam) ** (s - t) * errors[s] for s in range(t, n)) for t in range(n)]


def test_gae_is_the_discounted_sum_of_errors_and_passes_over_holes():
    found, returns = adv.gae(REWARDS, VALUES, MASK, gamma=0.9, lam=0.8)
    for i, there in enumerate(np.asarray(MASK)):
        rewards, values = np.asarray(REWARDS[i])[there], np.asarray(VALUES[i])[there]
        expected = loop(rewards.tolist(), values.tolist(), 0.9, 0.8)
        close(np.asarray(found[i])[there], expected)
        close(np.asarray(returns[i])[there], expected + values)
    assert not found[~MASK].any() and not returns[~MASK].any()


def test_gae_with_lambda_one_has_the_reward_to_go_as_return_and_with_zero_looks_one_step_ahead():
    found, returns = adv.gae(REWARDS, VALUES, MASK, gamma=0.9, lam=1.0)
    close(returns, adv.rewards_to_go(REWARDS, MASK, gamma=0.9))
    close(found[0, 0], 0.3 - 0.5 * 0.9 + 0.81 + 2 * 0.729 - 0.5)
    found, _ = adv.gae(REWARDS, VALUES, MASK, gamma=0.9, lam=0.0)
    close(found[0, :2], [0.3 + 0.9 * 0.2 - 0.5, -0.5 - 0.9 * 0.3 - 0.2])


def test_gae_under_jit_and_of_padded_rows_is_the_same():
    numbers = {"gamma": 0.9, "lam": 0.8}
    plain = adv.gae(REWARDS, VALUES, MASK, **numbers)
    jitted = jax.jit(lambda *x: adv.gae(*x, **numbers))(REWARDS, VALUES, MASK)
    padded = adv.gae(*(jnp.pad(x, ((0, 0), (0, 3))) for x in (REWARDS, VALUES, MASK)), **numbers)
    for a, b, c in zip(plain, jitted, padded, strict=True):
        close(a, b)
        np.testing.assert_array_equal(a, c[:, :4])


def test_rewards_to_go_discount_scored_tokens_only():
    out = adv.rewards_to_go(REWARDS, MASK, gamma=0.5)
    close(out[0], [0.3 - 0.25 + 0.25 + 0.25, -0.5 + 0.5 + 0.5, 2.0, 2.0])
    close(out[1], [0.45, 0.7, 0, 0])
    close(out[2], [0.4 - 0.3 + 0.225, 0, -0.6 + 0.45, 0.9])
    close(adv.rewards_to_go(REWARDS, MASK)[0, 0], 2.8)


def test_the_score_stands_at_the_last_scored_token_and_kl_at_each():
    mask = jnp.array([[True, True, False], [True, False, True], [False] * 3, [True] * 3])
    kl = jnp.where(mask, A([0.5, -0.25, 9], [1.5, 9, 0.75], [9, 9, 9], [0.1, 0.2, 0.3]), NAN)
    out = adv.token_rewards(A(2.0, -3.0, NAN, 0.5), kl, mask, kl_coef=0.2)
    close(out[:2], [[-0.1, 2.05, 0], [-0.3, 0, -3.15]])
    close(out[2:], [[0, 0, 0], [-0.02, -0.04, 0.44]])


def test_k1_and_k3_by_hand_and_far_apart():
    logps, ref = A(-1.0, -2.0, -2400.0), A(-1.5, -0.75, -1.0)
    close(adv.k1(logps, ref), [0.5, -1.25, -2399.0])
    out = adv.k3(logps, ref)
    close(out[:2], [math.exp(-0.5) - 0.5, math.exp(1.25) - 2.25])
    assert np.isfinite(out).all()


def test_whiten_has_mean_zero_and_variance_one_over_scored_tokens():
    x = np.asarray(REWARDS, np.float64)[np.asarray(MASK)]
    out = np.asarray(adv.whiten(REWARDS, MASK))
    close(out[np.asarray(MASK)], (x - x.mean()) / math.sqrt(x.var() + 1e-8))
    assert not out[~np.asarray(MASK)].any()
    kept = np.asarray(adv.whiten(REWARDS, MASK, shift_mean=False))
    close(kept[np.asarray(MASK)], (x - x.mean()) / math.sqrt(x.var() + 1e-8) + x.mean())
    assert not kept[~np.asarray(MASK)].any()


def test_whiten_of_equal_numbers_or_of_nothing_is_finite():
    ones = jnp.ones((2, 3))
    assert not adv.whiten(ones, ones == 1).any()
    assert not adv.whiten(ones * NAN, ones == 0).any()


def test_explained_variance_is_one_for_a_perfect_critic_and_counts_a_constant_error():
    returns = jnp.where(MASK, REWARDS * 2 + 1, NAN)
    r = np.asarray(returns, np.float64)[np.asarray(MASK)]
    v = np.asarray(VALUES, np.float64)[np.asarray(MASK)]
    found = adv.explained_variance(VALUES, returns, MASK)
    close(found, 1 - ((v - r) ** 2).mean() / r.var())
    close(adv.explained_variance(returns, returns, MASK), 1.0)
    close(adv.explained_variance(jnp.where(MASK, r.mean(), NAN), returns, MASK), 0.0, atol=1e-5)
    close(adv.explained_variance(returns + 2, returns, MASK), 1 - 4 / r.var())
    assert np.isnan(adv.explained_variance(VALUES, jnp.ones((4, 4)), MASK))


def test_ppo_on_whitened_advantages_starts_with_a_mean_loss_of_zero():
    found, _ = adv.gae(REWARDS, VALUES, MASK)
    logps = jnp.where(MASK, -1.0, NAN)
    loss, _ = ppo_clip(logps, logps, adv.whiten(found, MASK), MASK)
    close(loss.sum(), 0.0, atol=1e-5)


# ---- shaping


def test_a_response_that_was_cut_off_pays_the_penalty():
    out = adv.missing_eos(A([2.0, -1.0, 0.5]), jnp.array([[True, False, False]]), penalty=0.75)
    close(out, [[2.0, -1.75, -0.25]])


def test_scores_are_clipped_on_both_sides():
    close(adv.clip_scores(A(-7.0, -2.0, 0.5, 3.5), limit=2.5), [-2.5, -2.0, 0.5, 2.5])


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.float32])
def test_soft_over_long_falls_from_zero_to_minus_one_over_the_cache(dtype):
    lengths = jnp.array([1, 12, 13, 18, 20, 21, 500], dtype)
    out = adv.soft_over_long(lengths, max_length=20, cache_length=8)
    close(out, [0, 0, -1 / 8, -6 / 8, -1, -1, -1])


def test_importance_weights_are_capped_above_and_never_overflow():
    old, sampler = A([-1.0, -2.0, -3.0, -1.0, NAN]), A([-1.5, -1.0, -3.9, -2400.0, NAN])
    mask = jnp.array([[True] * 4 + [False]])
    out = adv.importance_weights(old, sampler, mask, cap=2.25)
    close(out, [[math.exp(0.5), math.exp(-1.0), 2.25, 2.25, 0.0]])
    far = adv.importance_weights(A([-2400.0]), A([-1.0]), mask[:, :1])
    np.testing.assert_array_equal(far, [[0.0]])


def test_adaptive_kl_moves_beta_towards_the_target_by_at_most_a_fifth_per_horizon():
    numbers = {"target": 5.0, "horizon": 1000.0}
    close(adv.adaptive_kl(0.3, 5.5, 200, **numbers), 0.3 * (1 + 0.1 * 0.2))
    close(adv.adaptive_kl(0.3, 4.5, 200, **numbers), 0.3 * (1 - 0.1 * 0.2))
    close(adv.adaptive_kl(0.3, 50.0, 200, **numbers), 0.3 * (1 + 0.2 * 0.2))
    close(adv.adaptive_kl(A(0.3)[0], A(0.0)[0], jnp.array(500), **numbers), 0.3 * 0.9)
    close(adv.adaptive_kl(0.3, 5.0, 200, **numbers), 0.3)


# ---- selection


def test_informative_groups_are_those_whose_scores_are_not_all_equal():
    assert adv.informative_groups(SCORES, VALID).tolist() == [True, True, False, False]
    assert not adv.informative_groups(SCORES, jnp.zeros_like(VALID)).any()


def test_best_and_worst_are_the_first_of_equals_among_the_valid():
    best, worst, differ = adv.best_and_worst(SCORES, VALID)
    assert best.tolist() == [1, 2, 0, 1] and worst.tolist() == [3, 0, 0, 1]
    assert differ.tolist() == [True, True, False, False]
    best, worst, differ = adv.best_and_worst(A([NAN, 2.0, 1.0, 2.0, 1.0]), A([0, 1, 1, 1, 1]) > 0)
    assert (best[0], worst[0], differ[0]) == (1, 2, True)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_expected_best_of_n_is_the_mean_over_all_choices_of_n(n):
    found = adv.expected_best_of_n(SCORES, VALID, n=n)
    for x, group in zip(found, GROUPS, strict=True):
        choices = list(itertools.combinations(group, n))
        if choices:
            close(x, sum(map(max, choices)) / len(choices))
        else:
            assert np.isnan(x)


def test_expected_best_of_n_of_many_samples_agrees_with_binomials():
    scores = np.random.default_rng(0).normal(size=200)
    found = adv.expected_best_of_n(A(scores), jnp.ones((1, 200), bool), n=16)
    weights = [math.comb(i - 1, 15) / math.comb(200, 16) for i in range(1, 201)]
    close(found, [np.dot(weights, np.sort(scores))])


def test_best_of_n_kl_is_the_bound():
    close(adv.best_of_n_kl(1), 0.0)
    close(adv.best_of_n_kl(jnp.array([2, 16])), [math.log(2) - 1 / 2, math.log(16) - 15 / 16])


def test_the_top_share_is_of_all_that_are_there():
    scores, valid = A(3.0, NAN, 1.0, 5.0, 5.0, 2.0, NAN), A(1, 0, 1, 1, 1, 1, 0) > 0
    of = lambda alpha: jnp.flatnonzero(adv.top_share(scores, valid, alpha=alpha)).tolist()  # noqa: E731
    assert of(0.2) == [3]  # the first of equals; 0.2 * 5 in float32 is not quite 1
    assert of(0.5) == [3, 4] and of(0.6) == [0, 3, 4]
    assert of(0.01) == [3] and of(1.0) == [0, 2, 3, 4, 5]
    assert not adv.top_share(scores, valid & False).any()


UNIFORMS = jnp.full((4, 4, 4), 0.5)


def algorithm_1(scores, uniforms, beta, accept):
    """The paper's code, places for texts and the random numbers given."""
    candidates, accepted = dict(enumerate(scores)), []
    for sweep in uniforms:
        if len(accepted) == accept:
            break
        highest, gone = max(candidates.values()), []
        for i, score in candidates.items():
            if sweep[i] >= math.exp((score - highest) / beta):
                continue
            accepted.append(i)
            gone.append(i)
            if len(accepted) == accept:
                break
        for i in gone:
            del candidates[i]
    return accepted


@pytest.mark.parametrize("beta", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("accept", [1, 2, 5, 8])
def test_statistical_rejection_is_algorithm_1(beta, accept):
    rng = np.random.default_rng(0)
    scores, uniforms = rng.normal(size=(50, 8)), rng.random((50, 8, 8))
    scores[:10] = np.round(scores[:10])  # ties
    found, enough = jax.jit(lambda *x: adv.statistical_rejection(*x, beta=beta, accept=accept))(
        A(scores)[0], jnp.ones((50, 8), bool), A(uniforms)[0]
    )
    expected = [algorithm_1(s, u, beta, accept) for s, u in zip(scores, uniforms, strict=True)]
    assert found.tolist() == expected and enough.all()


def test_rejection_of_the_least_beta_takes_the_highest_and_of_the_greatest_filters_nothing():
    rng = np.random.default_rng(1)
    scores, uniforms = A(rng.normal(size=(40, 6)))[0], A(rng.random((40, 6, 6)))[0]
    everyone = jnp.ones((40, 6), bool)
    cold, _ = adv.statistical_rejection(scores, everyone, uniforms, beta=1e-9, accept=3)
    assert cold.tolist() == jnp.argsort(-scores, -1)[:, :3].tolist()
    hot, _ = adv.statistical_rejection(scores, everyone, uniforms, beta=1e9, accept=3)
    assert (hot == jnp.arange(3)).all()


def test_a_response_is_accepted_with_the_probability_of_its_score():
    uniforms = A(np.random.default_rng(2).random((20_000, 1, 2)))[0]
    scores = jnp.tile(A([0.0, 0.7 * math.log(4.0)]), (20_000, 1))
    found, _ = adv.statistical_rejection(
        scores, jnp.ones_like(scores, bool), uniforms, beta=0.7, accept=1
    )
    np.testing.assert_allclose(jnp.mean(found == 0), 1 / 4, atol=0.01)


def test_rejection_says_where_there_are_too_few_responses_and_never_takes_a_missing_one():
    uniforms = A(np.random.default_rng(3).random((4, 4, 4)))[0]
    found, enough = adv.statistical_rejection(SCORES, VALID, uniforms, beta=0.5, accept=3)
    assert enough.tolist() == [True, True, True, False]
    assert VALID[jnp.arange(3)[:, None], found[:3]].all() and found[3, 0] == 1
    again, _ = adv.statistical_rejection(
        jnp.where(VALID, SCORES, 1e9), VALID, uniforms, beta=0.5, accept=3
    )
    np.testing.assert_array_equal(found, again)


# ---- all of them


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("epsilon", lambda: adv.group_normalized(SCORES, VALID, epsilon=-1e-4)),
        ("epsilon", lambda: adv.process_advantages(REWARDS[None], MASK[None], epsilon=-1.0)),
        ("kl_coef", lambda: adv.token_rewards(A(1, 2, 3, 4), VALUES, MASK, kl_coef=-0.1)),
        ("gamma", lambda: adv.gae(REWARDS, VALUES, MASK, gamma=1.1)),
        ("lam", lambda: adv.gae(REWARDS, VALUES, MASK, lam=-0.1)),
        ("gamma", lambda: adv.rewards_to_go(REWARDS, MASK, gamma=-0.5)),
        ("penalty", lambda: adv.missing_eos(A(1.0), jnp.array([True]), penalty=-1.0)),
        ("limit", lambda: adv.clip_scores(A(1.0), limit=0.0)),
        ("cache_length", lambda: adv.soft_over_long(A(1.0), max_length=8, cache_length=8)),
        ("cache_length", lambda: adv.soft_over_long(A(1.0), max_length=8, cache_length=0)),
        ("cap", lambda: adv.importance_weights(REWARDS, REWARDS, MASK, cap=0.0)),
        ("target", lambda: adv.adaptive_kl(0.1, 1.0, 4, target=0.0)),
        ("horizon", lambda: adv.adaptive_kl(0.1, 1.0, 4, horizon=0.0)),
        ("n must", lambda: adv.expected_best_of_n(SCORES, VALID, n=0)),
        ("n must", lambda: adv.expected_best_of_n(SCORES, VALID, n=5)),
        ("alpha", lambda: adv.top_share(SCORES[0], VALID[0], alpha=0.0)),
        ("alpha", lambda: adv.top_share(SCORES[0], VALID[0], alpha=1.1)),
        ("beta", lambda: adv.statistical_rejection(SCORES, VALID, UNIFORMS, beta=0.0)),
        ("from 1 to the 4", lambda: adv.statistical_rejection(SCORES, VALID, UNIFORMS, accept=5)),
        ("2 sweeps", lambda: adv.statistical_rejection(SCORES, VALID, UNIFORMS[:, :2], accept=3)),
    ],
)
def test_numbers_out_of_range_are_refused(name, call):
    with pytest.raises(ValueError, match=name):
        call()


def test_everything_comes_out_in_float32():
    low = SCORES.astype(jnp.bfloat16)
    tokens = [x.astype(jnp.bfloat16) for x in (REWARDS, VALUES)]
    for out in (
        adv.group_normalized(low, VALID),
        adv.leave_one_out(low, VALID),
        adv.batch_centred(low, VALID),
        adv.greedy_baseline(low, low[:, 0]),
        adv.win_rates(WINS.astype(jnp.bfloat16)),
        adv.win_rates_over_others(WINS.astype(jnp.bfloat16)),
        *adv.gae(*tokens, MASK),
        adv.rewards_to_go(tokens[0], MASK),
        adv.whiten(tokens[0], MASK),
        adv.explained_variance(*tokens, MASK),
        adv.importance_weights(*tokens, MASK),
        adv.expected_best_of_n(low, VALID, n=2),
        adv.missing_eos(low, VALID, penalty=1.0),
    ):
        assert out.dtype == jnp.float32
