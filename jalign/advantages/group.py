"""Advantages of responses from scores: against a group, the batch, a greedy response, each other.

Scores are [B, K], K responses to each of B prompts; `valid` marks the slots that hold one. Other
slots are ignored, even if NaN, and their advantage is 0. Advantages are used without gradient.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.advantages._arrays import centered, kept, over_deviation
from jalign.losses._math import require

Scores = Float[Array, "B K"]
Valid = Bool[Array, "B K"]


def group_normalized(scores: Scores, valid: Valid, *, epsilon: float = 1e-4) -> Scores:
    """(score - mean of the group) / (standard deviation of the group + epsilon): GRPO.

    Shao et al. 2024, "DeepSeekMath", https://arxiv.org/abs/2402.03300, section 4.1.2. The deviation
    is that of a sample: squares are divided by n - 1, as TRL, verl and OpenRLHF do. A group whose
    scores are all equal, or with one response, has advantages of exactly 0.

    Args:
      epsilon: added to the deviation, not under its root, >= 0; 1e-4 (TRL; verl has 1e-6).
    Raises:
      ValueError: epsilon < 0.
    Deviations: the paper leaves n or n - 1 open and has no epsilon.
    >>> group_normalized(jnp.array([[1.0, 3.0, 2.0]]), jnp.ones((1, 3), bool), epsilon=0.0).tolist()
    [[-1.0, 1.0, 0.0]]
    """
    require(epsilon >= 0, f"epsilon must be >= 0, got {epsilon}")
    return _normalized(scores, valid, -1, epsilon)


def group_centred(scores: Scores, valid: Valid) -> Scores:
    """score - mean of the group: Dr. GRPO, whose groups weigh by how far their scores lie apart.

    Liu et al. 2025, "Understanding R1-Zero-Like Training", https://arxiv.org/abs/2503.20783.

    >>> group_centred(jnp.array([[1.0, 3.0, 5.0]]), jnp.ones((1, 3), bool)).tolist()
    [[-2.0, 0.0, 2.0]]
    """
    return centered(scores, valid, -1)


def leave_one_out(scores: Scores, valid: Valid) -> Scores:
    """score - mean of the OTHER responses to the prompt = n / (n - 1) * (score - mean): RLOO.

    Ahmadian et al. 2024, "Back to Basics", https://arxiv.org/abs/2402.14740. A baseline that does
    not depend on the response leaves the gradient unbiased. A response without others has nothing
    to be compared with: 0.

    >>> leave_one_out(jnp.array([[1.0, 3.0, 5.0]]), jnp.ones((1, 3), bool)).tolist()
    [[-3.0, 0.0, 3.0]]
    """
    # n / (n - 1) times the distance from the mean of all is that from the mean of the others
    n = jnp.sum(valid, -1, keepdims=True)
    return centered(scores, valid, -1) * (n / jnp.maximum(n - 1, 1))


def batch_centred(scores: Scores, valid: Valid) -> Scores:
    """score - mean of all scores of the batch: REINFORCE with the simplest baseline.

    >>> batch_centred(jnp.array([[1.0], [3.0], [8.0]]), jnp.ones((3, 1), bool)).tolist()
    [[-3.0], [-1.0], [4.0]]
    """
    return centered(scores, valid)


def greedy_baseline(scores: Scores, greedy_scores: Float[Array, "B"]) -> Scores:
    """score - score of the most probable response to the prompt: ReMax.

    Li et al. 2023, https://arxiv.org/abs/2310.10505. The authors clip the difference, then discount
    it; here that is left to the caller (`clip_scores`, `rewards_to_go`). A score that is missing
    stays as it is.

    >>> greedy_baseline(jnp.array([[1.0, 4.0]]), jnp.array([3.0])).tolist()
    [[-2.0, 1.0]]
    """
    # no mask: a missing score is NaN and stays NaN, so that the caller can tell it from 0
    greedy_scores = jnp.asarray(greedy_scores, jnp.float32)
    return jnp.asarray(scores, jnp.float32) - greedy_scores[:, None]


def win_rates_over_others(win_probs: Float[Array, "B K K"]) -> Scores:
    """Mean of P(i is preferred to j) over the OTHER responses j: the reward of SPO.

    Swamy et al. 2024, "A Minimaximalist Approach to Reinforcement Learning from Human Feedback",
    https://arxiv.org/abs/2401.04056. In [0, 1], and 1/2 on average where P is antisymmetric.

    Args:
      win_probs: [b, i, j] is P(i preferred to j); the diagonal does not matter. NaN is a comparison
        that was not made: it is left out, and a response without any has 1/2.
    >>> beats = jnp.array([[[0.5, 1.0, 0.5], [0.0, 0.5, 0.25], [0.5, 0.75, 0.5]]])
    >>> win_rates_over_others(beats).tolist()
    [[0.75, 0.125, 0.625]]
    """
    # a response is not compared with itself: counted as 1/2 it would pull rates to the middle
    itself = jnp.eye(win_probs.shape[-1], dtype=bool)
    compared = ~jnp.isnan(win_probs) & ~itself
    wins = jnp.sum(kept(win_probs, compared), -1)
    n = jnp.sum(compared, -1)
    return jnp.where(n > 0, wins / jnp.maximum(n, 1), 0.5)


def win_rates(win_probs: Float[Array, "B K K"]) -> Scores:
    """The mean of P(i is preferred to j) over ALL responses j, i itself with 1/2: SPPO's win rate.

    Wu et al. 2024, "Self-Play Preference Optimization", https://arxiv.org/abs/2405.00675, as in the
    authors' code. With K responses, (K - 1) / K of the way from 1/2 to `win_rates_over_others`.

    Args:
      win_probs: as in `win_rates_over_others`; the diagonal counts as 1/2 whatever its values.
    >>> win_rates(jnp.array([[[0.0, 1.0], [0.0, 0.0]]])).tolist()
    [[0.75, 0.25]]
    """
    itself = jnp.eye(win_probs.shape[-1], dtype=bool)
    # itself counts as 1/2 (the authors' code), so no response is without a comparison
    compared = ~jnp.isnan(win_probs) | itself
    return jnp.sum(kept(jnp.where(itself, 0.5, win_probs), compared), -1) / jnp.sum(compared, -1)


def process_advantages(
    step_scores: Float[Array, "B K R"], ends: Bool[Array, "B K R"], *, epsilon: float = 1e-4
) -> Float[Array, "B K R"]:
    """A_t = sum of the normalized scores of the steps that end at or after t: GRPO by steps.

    Shao et al. 2024, "DeepSeekMath", https://arxiv.org/abs/2402.03300, section 4.1.3. Scores are
    normalized over all steps of all responses to a prompt. Every step adds, so a response with more
    steps of the mean score gains nothing, and one with more good steps does.

    Args:
      step_scores: the score of each step at its last token.
      ends: where a step ends. Nothing else is read; a response without any gets 0.
      epsilon: as in `group_normalized`.
    Returns:
      The advantage of every token, 0 after the last step. Mask tokens outside of the response.
    Raises:
      ValueError: epsilon < 0.
    Deviations: as in `group_normalized`.
    >>> scores = jnp.array([[[0.0, 1.0, 3.0], [2.0, 0.0, 0.0]]])
    >>> process_advantages(scores, scores > 0, epsilon=0.0).tolist()
    [[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]
    """
    require(epsilon >= 0, f"epsilon must be >= 0, got {epsilon}")
    # over steps at or after the token: what came before cannot be its doing
    return jax.lax.cumsum(_normalized(step_scores, ends, (-2, -1), epsilon), 2, reverse=True)


def _normalized(
    x: Array, where: Array, axis: int | tuple[int, ...], epsilon: float
) -> Float[Array, "..."]:
    return over_deviation(centered(x, where, axis), x, where, axis, epsilon)
