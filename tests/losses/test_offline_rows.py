"""Losses of 2024 to 2026 on given data: by hand, and as their authors' code computes them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import losses

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
CHOSEN, REJECTED = A(-12, -20.5, -8.25, -31), A(-13.5, -18, -9, -29.5)
REF_CHOSEN, REF_REJECTED = A(-12.5, -19, -9, -30), A(-12.75, -18.5, -8.5, -30.25)
CHOSEN_LEN, REJECTED_LEN = A(10, 16, 6, 25), A(12, 14, 7, 22)
PAIR = CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED
LIST = A(-4, -9, -6, -7)[None], A(-5, -8, -7.5, -6.25)[None], A(0.9, 0.2, 0.5, 0.7)[None]
THERE = jnp.ones((1, 4), bool)


def grads(fn, *args, **kw):
    return jax.grad(lambda a: fn(*a, **kw)[0].sum(), allow_int=True)(args)


def test_simper_value_and_gradient():
    x = A(-4.0), A(-9.0), A(4.0), A(3.0)
    np.testing.assert_allclose(losses.simper(*x)[0], [math.exp(-3) - math.exp(-1)], rtol=1e-6)
    g = grads(losses.simper, *x)
    expected = [-math.exp(-1) / 4, math.exp(-3) / 3]
    np.testing.assert_allclose([g[0][0], g[1][0]], expected, rtol=1e-5)


def test_repo_has_a_constant_gradient_until_the_margin_is_there():
    x = A(-4.0, -4.0), A(-3.75, -9.0), A(4.0, 4.0), A(3.0, 3.0)
    np.testing.assert_allclose(losses.repo(*x, gamma=0.4)[0], [0.4 - (-1 + 1.25), 0.0], rtol=1e-5)
    g = grads(losses.repo, *x, gamma=0.4)
    np.testing.assert_allclose(g[0], [-1 / 4, 0])
    np.testing.assert_allclose(g[1], [1 / 3, 0])


def test_cal_dpo_value_and_gradient():
    x = A(-4.0), A(-9.0), A(-5.0), A(-8.5)
    sigmoid = 1 / (1 + math.exp(-1.5))
    value = -math.log(sigmoid) + 0.5 * ((1 - 2) ** 2 + (-0.5 + 2) ** 2)
    np.testing.assert_allclose(losses.cal_dpo(*x, beta=0.25)[0], [value], rtol=1e-6)
    g = grads(losses.cal_dpo, *x, beta=0.25)
    expected = [-(1 - sigmoid) + (1 - 2), (1 - sigmoid) + (-0.5 + 2)]
    np.testing.assert_allclose([g[0][0], g[1][0]], expected, rtol=1e-5)


def test_epsilon_dpo_lowers_beta_where_a_weaker_penalty_separates_better():
    kl_chosen, kl_rejected = A(0.5, 0.5, 0.5, 0.5), A(0.25, 9.0, 0.25, 0.25)
    loss, metrics = losses.epsilon_dpo(
        *PAIR, kl_chosen, kl_rejected, A(10.0)[0], beta=0.5, epsilon=0.25
    )
    # D - (S_w - S_l) of the pairs: 1.25 - .25, -2 + 8.5, 1.25 - .25, -1.75 - .25
    weaker = 10 * np.array([1.25, 1.25, 1.25, 0.75])
    margin = np.array([1.25, -2.0, 1.25, -1.75])
    np.testing.assert_allclose(metrics["relaxation"], weaker)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-margin * 0.5 / weaker)), rtol=1e-6)


def test_epsilon_dpo_starts_from_dpo_and_has_its_gradient():
    nothing = jnp.zeros(4)
    start = losses.epsilon_dpo(*PAIR, nothing, nothing, jnp.array(jnp.nan), beta=0.5, epsilon=0.0)
    np.testing.assert_allclose(start[0], losses.dpo(*PAIR, beta=0.5)[0], rtol=1e-6)
    kl = A(0.5, 0.5, 0.5, 0.5)
    g = grads(losses.epsilon_dpo, *PAIR, kl, kl, A(1.5)[0], beta=0.75, epsilon=0.0)
    np.testing.assert_allclose(g[0], grads(losses.dpo, *PAIR, beta=0.5)[0], rtol=1e-6)
    assert not np.asarray(g[4]).any()


def test_una_fits_the_sigmoid_of_the_implicit_reward_to_the_score():
    logps, ref, score = A(-4.0), A(-5.0), A(0.9)
    s = 1 / (1 + math.exp(-0.5))
    np.testing.assert_allclose(losses.una(logps, ref, score, beta=0.5)[0], [(s - 0.9) ** 2], 1e-5)
    g = grads(losses.una, logps, ref, score, beta=0.5)
    np.testing.assert_allclose(g[0], [2 * (s - 0.9) * s * (1 - s) * 0.5], rtol=1e-5)
    g = grads(losses.una_bce, logps, ref, score, beta=0.5)
    np.testing.assert_allclose(g[0], [0.5 * (s - 0.9)], rtol=1e-5)


def test_dft_weighs_a_token_by_its_probability_and_not_through_it():
    x = A(-1.5, -0.25)[None]
    p = np.exp([[-1.5, -0.25]])
    np.testing.assert_allclose(losses.dft(x)[0], p * [[1.5, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(grads(losses.dft, x)[0], -p, rtol=1e-6)


def test_swepo_value_and_gradient():
    """Ratings .9, .2, .5, .7 have the mean .575: the first and the last are good."""
    s, w = 0.5 * np.array([1, -1, 1.5, -0.75]), 2 * np.array([0.325, 0.375, 0.075, 0.125])
    e = np.exp(s + w)
    loss = losses.swepo(*LIST, THERE, beta=0.5, alpha=2.0)[0]
    np.testing.assert_allclose(loss, [-math.log((e[0] + e[3]) / e.sum())], rtol=1e-5)
    g = grads(losses.swepo, *LIST, THERE, beta=0.5, alpha=2.0)[0][0]
    good = np.array([1, 0, 0, 1]) * e / (e[0] + e[3])
    np.testing.assert_allclose(g, 0.5 * (e / e.sum() - good), rtol=1e-4)


def test_a_hard_sort_has_the_ndcg_of_the_policys_order():
    """By the policy: ratings .5, .9, .7, .2 (log-ratios 1.5, 1, -.75, -1)."""
    gains, places = 2.0 ** np.array([0.5, 0.9, 0.7, 0.2]) - 1, 1 / np.log2(np.arange(4) + 2)
    ndcg = (gains * places).sum() / (np.sort(gains)[::-1] * places).sum()
    loss = losses.neural_ndcg(*LIST, THERE, beta=1.0, tau=1e-3)[0]
    np.testing.assert_allclose(loss, [-ndcg], rtol=1e-6)
    ratio = (LIST[0] - LIST[1], jnp.ones((1, 4)), LIST[2], THERE)
    loss = losses.diff_ndcg(*ratio, beta=1.0, steepness=1e6)[0]
    np.testing.assert_allclose(loss, [1 - ndcg], atol=1e-5)


def test_neural_ndcg_of_two_has_the_gradient_of_its_formula():
    """P = [[a, 1 - a], [1 - a, a]] with a = sigmoid((s_1 - s_2) / tau)."""
    x = A(-4.0, -9.0)[None], A(-5.0, -9.5)[None], A(0.9, 0.2)[None], jnp.ones((1, 2), bool)
    g1, g2 = 2**0.9 - 1, 2**0.2 - 1
    a, second = 1 / (1 + math.exp(-0.5 * 0.5 / 2.0)), 1 / math.log2(3)
    best = g1 + second * g2
    value = (a * g1 + (1 - a) * g2 + second * ((1 - a) * g1 + a * g2)) / best
    kw = {"beta": 0.5, "tau": 2.0}
    np.testing.assert_allclose(losses.neural_ndcg(*x, **kw)[0], [-value], rtol=1e-5)
    slope = a * (1 - a) / 2.0 * 0.5 * (1 - second) * (g1 - g2) / best
    np.testing.assert_allclose(grads(losses.neural_ndcg, *x, **kw)[0], [[-slope, slope]], rtol=1e-4)


def test_diff_ndcg_of_two_has_the_gradient_of_its_formula():
    x = A(-4.0, -9.0)[None], A(4.0, 3.0)[None], A(0.9, 0.2)[None], jnp.ones((1, 2), bool)
    g1, g2, lead, second = 2**0.9 - 1, 2**0.2 - 1, -1.0 + 3.0, 1 / math.log2(3)
    stay, best = 0.5 + math.atan(2.0 * lead) / math.pi, g1 + g2 / math.log2(3)
    # one swap: the network of two has a second layer, which has no pair
    value = stay * g1 + (1 - stay) * g2 + second * ((1 - stay) * g1 + stay * g2)
    loss = losses.diff_ndcg(*x, steepness=2.0)[0]
    np.testing.assert_allclose(loss, [1 - value / best], rtol=1e-5)
    slope = 2.0 / math.pi / (1 + (2.0 * lead) ** 2) * (1 - second) * (g1 - g2) / best
    g = grads(losses.diff_ndcg, *x, steepness=2.0)[0]
    np.testing.assert_allclose(g, [[-slope / 4, slope / 3]], rtol=1e-4)


def test_a_list_by_ranks_has_the_gains_of_ratings_from_0():
    """Ranks become ratings of -1, -2, .."""
    by_rank, by_rating = A(-1, -4, -2, -3)[None], A(3, 0, 2, 1)[None]
    for loss, first in ((losses.neural_ndcg, LIST[:2]), (losses.diff_ndcg, (LIST[0], 4 * LIST[2]))):
        g = grads(loss, *first, by_rank, THERE)[0]
        assert g.any()
        np.testing.assert_allclose(g, grads(loss, *first, by_rating, THERE)[0], rtol=1e-6)


def test_ratings_in_the_hundreds_do_not_overflow():
    """2^rating is infinite from 128 on; only the ratio of the gains counts."""
    high, shifted = A(200, 100, 0, 190)[None], A(24, 14, 0, 14)[None]
    for loss, first in ((losses.neural_ndcg, LIST[:2]), (losses.diff_ndcg, (LIST[0], 4 * LIST[2]))):
        value, g = loss(*first, high, THERE)[0], grads(loss, *first, high, THERE)[0]
        assert np.isfinite(value).all() and np.isfinite(g).all() and g.any()
        # 2^24 and 2^14 - 1: the others are a thousandth at most in both
        np.testing.assert_allclose(value, loss(*first, shifted, THERE)[0], atol=2e-3)
    missing = A(-200, -400, 0, 0)[None]
    there = jnp.array([[True, True, False, False]])
    best_first = losses.diff_ndcg(LIST[0], 4 * LIST[2], missing, there, beta=1.0, steepness=50.0)[0]
    # the first response has the higher score and rating
    np.testing.assert_allclose(best_first, [0.0], atol=2e-2)


def test_rainbows_rewards_are_what_its_loss_compares():
    """Per token -0.3 against -0.4, -0.1 against -0.2 under the reference, entropies of 0.5."""
    x = A(-3), A(-4), A(-1), A(-4), A(10), A(10), A(5), A(5)
    loss, metrics = losses.rainbow_po(*x, beta=2.0, max_entropy=1.0, gamma=0.0)
    scale = 2.0 * 0.29 * math.log(2)
    np.testing.assert_allclose(metrics["chosen_rewards"], [scale * (-0.3 + 0.25 * 0.1)], rtol=1e-5)
    margin = metrics["chosen_rewards"] - metrics["rejected_rewards"]
    np.testing.assert_allclose(margin, [scale * (0.1 - 0.25 * 0.3)], rtol=1e-4)
    np.testing.assert_allclose(loss, jnp.logaddexp(0.0, -margin), rtol=1e-6)


@pytest.mark.parametrize("k", [2, 32])
def test_losses_of_lists_take_many_responses(k):
    rng = np.random.default_rng(0)
    x = jnp.asarray(-rng.uniform(1, 9, (3, 2, k)), jnp.float32)
    ratings, there = jnp.asarray(rng.random((3, k)), jnp.float32), jnp.ones((3, k), bool)
    for loss in (losses.neural_ndcg, losses.diff_ndcg, losses.swepo):
        second = jnp.full((3, k), 4.0) if loss is losses.diff_ndcg else x[:, 1]
        value, g = jax.value_and_grad(lambda a: loss(a, second, ratings, there)[0].sum())(x[:, 0])  # noqa: B023
        assert np.isfinite(value) and np.isfinite(g).all() and np.asarray(g).any()


# ---- values of the authors' code on these inputs


def test_pair_losses_equal_the_authors_code():
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6)  # noqa: E731
    lens = CHOSEN_LEN, REJECTED_LEN
    close(losses.simper(*PAIR[:2], *lens)[0].mean(), 0.0045145824)
    close(losses.repo(*PAIR[:2], *lens, gamma=0.4)[0].mean(), 0.4147281051)
    close(losses.cal_dpo(*PAIR, beta=0.25)[0].mean(), 6.4711904526)
    entropy = A(4, 9, 2.5, 11), A(6, 8.5, 3, 10)
    close(
        losses.rainbow_po(*PAIR, *lens, *entropy, beta=2.0)[0].round(4),
        [0.7955, 0.7878, 0.7867, 0.7102],
    )
    # the authors' steps are 1, -1, 0 and 1
    kl = A(0, 0, 1.25, -9), jnp.zeros(4)
    loss, metrics = losses.epsilon_dpo(*PAIR, *kl, jnp.array(jnp.nan), beta=0.05, epsilon=0.25)
    close(loss, [0.6684596539, 0.7620344162, 0.6623854041, 0.7287595272])
    close(metrics["chosen_rewards"], [0.02, -0.1, 0.0375, -0.04])


def test_losses_of_scores_equal_the_authors_code():
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6)  # noqa: E731
    score = A(0.9, 0.2, 0.6, 0.5)
    expected = [0.1570141166, 0.0833776593, 0.0089066885, 0.0000562418]
    np.testing.assert_allclose(losses.una(CHOSEN, REF_CHOSEN, score)[0], expected, rtol=2e-5)
    good = losses.una_bce(CHOSEN, REF_CHOSEN, jnp.ones(4), beta=0.3)[0]
    close(good, [0.6209571362, 0.9432489872, 0.5869620442, 0.8543552160])
    bad = losses.una_bce(REJECTED, REF_REJECTED, jnp.zeros(4), beta=0.3)[0]
    close(bad, [0.5869620442, 0.7709569931, 0.6209571362, 0.8119620085])


def test_losses_of_lists_equal_the_authors_code():
    three = THERE.at[0, 3].set(False)
    for there, tau, expected in (
        (THERE, 1.0, -0.8985835314),
        (three, 1.0, -0.8988270164),
        (THERE, 0.5, -0.9002151489),
        (three, 0.5, -0.9046929479),
    ):
        loss = losses.neural_ndcg(*LIST, there, beta=0.5, tau=tau)[0]
        np.testing.assert_allclose(loss, [expected], rtol=2e-6)
    for there, expected in ((THERE, 0.0183152556), (three, 0.0139512420)):
        loss = losses.diff_ndcg(LIST[0], A(4, 3, 4, 5)[None], LIST[2], there)[0]
        np.testing.assert_allclose(loss, [expected], atol=2e-7)
