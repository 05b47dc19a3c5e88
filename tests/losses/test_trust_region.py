"""Policy losses of 2025 and 2026: values and gradients by hand, and those of peers' own code.

The arrays of numbers come from verl (commit 1dda039, `core_algos.py`) and TRL (commit f2cd577,
`grpo_trainer.py`), run in float64 on the inputs below.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign import losses

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = float("nan")

# two responses, of 5 and 4 tokens; garbage after the second
MASK = jnp.array([[True] * 5, [True] * 4 + [False]])
OLD = A([-0.4, -2.5, -0.75, -3.0, -0.2], [-1.25, -0.5, -2.0, -0.9, NAN])
MOVED = A([0.3, -0.6, 0.08, 1.1, -0.5], [0.45, -0.35, -0.02, 0.7, NAN])
LOGPS = OLD + MOVED
ADVANTAGES = A([2.0] * 5, [-1.5] * 4 + [NAN])
SAMPLES = (LOGPS, OLD, ADVANTAGES, MASK)


def value_and_slope(fn, *arrays, **hyper):
    """The unreduced loss, and the gradient of its sum by the log-probs."""
    loss = lambda x: fn(x, *arrays[1:], **hyper)[0]  # noqa: E731
    return loss(arrays[0]), jax.grad(lambda x: loss(x).sum())(arrays[0])


def close(value, expected):
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)


def test_sapo_has_the_value_and_the_gradient_of_verl():
    value, slope = value_and_slope(losses.sapo, *SAMPLES)
    close(value[0], [-4.692667, -3.112626, -4.166478, -7.04987, -3.223059])
    close(value[1], [3.685185, 2.41769, 2.827442, 4.24879, 0.0])
    close(slope[0], [-2.618762, -1.043604, -2.162821, -2.515347, -1.167296])
    close(slope[1], [2.154879, 1.032026, 1.470139, 2.304005, 0.0])


def test_the_gate_of_sapo_is_steepest_at_the_old_policy():
    gate = losses.sapo(*SAMPLES, tau_neg=3.0)[1]["gate"]
    far = float(jnp.exp(0.7)) - 1  # the fourth token of the second response
    s = 1 / (1 + np.exp(-3 * far))
    close(gate[1, 3], 4 * s * (1 - s))
    assert float(losses.sapo(OLD, OLD, ADVANTAGES, MASK)[1]["gate"].min()) == 1.0


def test_gmpo_has_the_value_and_the_gradient_of_verl():
    value, slope = value_and_slope(losses.gmpo, *SAMPLES, clip_low=0.3, clip_high=0.4)
    close(value, [-1.87601, 1.845897])
    # the fourth token of the first response is beyond 0.4, the second of the other below -0.3
    close(slope[0], [-0.375202, -0.375202, -0.375202, 0.0, -0.375202])
    close(slope[1], [0.461474, 0.0, 0.461474, 0.461474, 0.0])


def test_vespo_has_the_value_of_trl_and_its_weight_has_no_gradient():
    value, slope = value_and_slope(losses.vespo, *SAMPLES)
    close(value[0], [0.106854, 3.312475, 0.715922, 2.030226, 0.747978])
    close(value[1], [-1.17278, -1.246079, -2.96127, -0.293195, 0.0])
    w = np.exp([0.38, 0.78])  # of the responses
    phi = w ** np.array([2, 3]) * np.exp(np.array([3, 2]) * (1 - w))
    close(slope, np.where(MASK, (-phi * [2.0, -1.5])[:, None], 0))


@pytest.mark.parametrize("distance", ["tv", "kl"])
def test_dppo_has_the_value_and_the_gradient_of_verl(distance):
    loss = {"tv": losses.dppo_tv, "kl": losses.dppo_kl}[distance]
    value, slope = value_and_slope(loss, *SAMPLES, ratio_max=2.0)
    fourth = {"tv": (7.6, -4.0), "kl": (0.0, 0.0)}[distance]
    close(value[0], [0.0, 3.402632, 1.451605, fourth[0], 0.849143])
    close(value[1], [-1.881975, 0.0, -2.970002, -0.6, 0.0])
    close(slope[0], [0.0, -1.097623, -2.166574, fourth[1], -1.213061])
    close(slope[1], [2.352468, 0.0, 1.470298, 3.0, 0.0])


def test_dar_weighs_the_likelihood_of_a_response():
    ref = OLD + A([0.5, -0.25, 0.4, -0.1, 0.2], [-0.3, 0.6, -0.35, 0.15, NAN])
    arrays = (LOGPS, OLD, ref, A([0.3] * 5, [-0.2] * 4 + [NAN]), MASK)
    value, slope = value_and_slope(losses.dar, *arrays, alpha=0.4, beta=0.5)
    weight = np.exp([0.4 * 0.75 + 0.3 / 0.5, 0.4 * 0.1 - 0.2 / 0.5])
    close(value, -weight * [-6.47, -3.87])
    close(slope, np.where(MASK, -weight[:, None], 0))
    held = losses.dar(*arrays, alpha=0.4, beta=0.5, weight_max=1.5)
    close(held[0], [1.5 * 6.47, value[1]])
    assert held[1]["clip_ratio/high_mean"].tolist() == [1, 0]


def test_pmd_is_the_squared_distance_from_the_mirror_step():
    value, slope = value_and_slope(losses.pmd, *SAMPLES, tau=0.25)
    moved, length, a = np.array([0.38, 0.78]), np.array([5, 4]), np.array([2.0, -1.5])
    close(value, 0.25 / 2 * (a / 0.25 - moved) ** 2 / length)
    close(slope, np.where(MASK, ((0.25 * moved - a) / length)[:, None], 0))


def test_clip_cov_and_kl_cov_have_the_value_and_the_gradient_of_verl_at_its_marks():
    marks = A([0, 0, 1, 0, 1], [0, 0, 1, 0, NAN])
    arrays = (LOGPS, OLD, ADVANTAGES, marks, MASK)
    value, slope = value_and_slope(losses.clip_cov, *arrays)
    close(value[0], [-2.4, -1.097623, 0.0, -2.4, 0.0])
    close(value[1], [2.352468, 1.2, 0.0, 3.020629, 0.0])
    close(slope[0], [0.0, -1.097623, 0.0, 0.0, 0.0])
    close(slope[1], [2.352468, 0.0, 0.0, 3.020629, 0.0])
    marks = A([1, 0, 0, 0, 0], [0, 0, 1, 0, NAN])
    value, slope = value_and_slope(losses.kl_cov, *arrays[:3], marks, MASK, cov_kl_coef=0.5)
    close(value[0], [-2.549718, -1.097623, -2.166574, -6.008332, -1.213061])
    close(value[1], [2.352468, 1.057032, 1.480298, 3.020629, 0.0])
    close(slope[0], [-2.199718, -1.097623, -2.166574, -6.008332, -1.213061])
    close(slope[1], [2.352468, 1.057032, 0.970298, 3.020629, 0.0])


def test_a_star_po_has_the_value_of_the_authors_code():
    ref = OLD + A([0.5, -0.25, 0.4, -0.1, 0.2], [-0.3, 0.6, -0.35, 0.15, NAN])
    advantages = A([1.5 - 0.9] * 5, [0.25 - 0.6] * 4 + [NAN])
    value, slope = value_and_slope(losses.a_star_po, LOGPS, ref, advantages, MASK, beta2=0.2)
    close(value, [0.454276, 0.236196])
    gap = np.array([0.2 * (0.38 - 0.75) - 0.6, 0.2 * (0.78 - 0.1) + 0.35])
    close(slope, np.where(MASK, (0.4 * gap)[:, None], 0))


def test_rebel_regresses_the_difference_of_rewards():
    pairs = A(-3.0, -2.5), A(-6.0, -4.0), A(-4.0, -2.0), A(-5.5, -4.75), A(0.5, -1.25)
    value, slope = value_and_slope(losses.rebel, *pairs, eta=2.0)
    gap = np.array([(1.0 + 0.5) / 2 - 0.5, (-0.5 - 0.75) / 2 + 1.25])
    close(value, gap**2)
    close(slope, 2 * gap / 2)


def test_vapo_trains_the_critic_first_and_imitates_correct_responses():
    values = A([0.5, 1.0, -0.25, 2.0, 0.1], [0.9, 1.4, 0.2, -0.5, NAN])
    returns = A([1.0, 0.5, 0.75, 1.5, 0.25], [0.1, -0.2, 0.6, 0.8, NAN])
    arrays = (*SAMPLES[:3], values, returns, A(1.0, 0.0))
    hyper = {"value_coef": 0.3, "positive_coef": 0.5, "value_pretraining_steps": 3}
    critic = np.where(MASK, 0.3 * (values - returns) ** 2 / 2, 0)
    for steps in (NAN, 2.0, 3.0):
        x = (*arrays, jnp.float32(steps), MASK)
        value, slope = value_and_slope(losses.vapo, *x, **hyper)
        policy, _ = losses.ppo_clip(*SAMPLES, clip_low=0.2, clip_high=0.28)
        policy = policy - jnp.where(MASK, 0.5 * jnp.array([[1.0], [0.0]]) * LOGPS, 0)
        learns = steps == 3.0
        close(value, critic + learns * np.asarray(policy))
        assert bool(slope.any()) == learns
        after = losses.vapo(*x, **hyper)[1]["value_steps"]
        assert float(after[0, 0]) == np.nan_to_num(steps) + 1


@pytest.mark.parametrize(
    ("loss", "hyper"),
    [
        ("sapo", {"tau_neg": 0.0}),
        ("gmpo", {"clip_high": 0.0}),
        ("vespo", {"k_pos": -1.0}),
        ("dppo_tv", {"delta_low": 1.5}),
        ("dppo_kl", {"ratio_max": 0.5}),
        ("pmd", {"tau": 0.0}),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(loss, hyper):
    with pytest.raises(ValueError, match=next(iter(hyper))):
        getattr(losses, loss)(*SAMPLES, **hyper)
