"""Process reward models: a score per step, and aggregates of the steps' scores.

Uesato et al. 2022. https://arxiv.org/abs/2211.14275; Lightman et al. 2023, "Let's Verify Step by
Step". https://arxiv.org/abs/2305.20050; Wang et al. 2023, "Math-Shepherd".
https://arxiv.org/abs/2312.08935, Eq. 2.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32


def process_reward(
    token_scores: Float[Array, "B R"], step_labels: Float[Array, "B R"]
) -> tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]:
    """-y log sigmoid(score) - (1 - y) log sigmoid(-score), one value per step.

    The scored tokens are the ends of steps: the last token of what separates two steps.

    Args:
      token_scores: logit of "this step is right" at the end of each step.
      step_labels: y in [0, 1]. Math-Shepherd: 1 if ANY continuation from here reaches the right
        answer (hard), or the share of those that do (soft).
    Returns:
      The unreduced loss [B, R]; `step_prob`, the probability that the step is right;
      `step_accuracy`, 1 where the logit is on the label's side of 1/2. Unscored positions hold
      garbage: mask them.
    Deviations: one logit, where TRL and OpenRLHF take the softmax of two: the same loss, with the
      difference of the two as the logit. Averaged over all steps of the batch, as there.
    >>> import jax.numpy as jnp
    >>> loss, _ = process_reward(jnp.array([[1.0, -2.0]]), jnp.array([[1.0, 0.25]]))
    >>> [round(float(x), 4) for x in loss[0]]
    [0.3133, 0.6269]
    """
    scores, labels = f32(token_scores, step_labels)
    loss = -labels * jax.nn.log_sigmoid(scores) - (1 - labels) * jax.nn.log_sigmoid(-scores)
    # above 1/2, since soft labels (the share of right continuations) are not classes
    right = ((scores > 0) == (labels > 0.5)).astype(jnp.float32)
    return loss, {"step_prob": jax.nn.sigmoid(scores), "step_accuracy": right}


def step_product(token_scores: Float[Array, "B R"], mask: Bool[Array, "B R"]) -> Float[Array, "B"]:
    """Product of the steps' probabilities: that all steps are right (PRM800K).

    Args:
      token_scores: logits, as in `process_reward`.
      mask: which positions end a step.
    Returns:
      One number in [0, 1] per response, to rank responses by; 0 without any step, so that a
      response that was not judged does not win.
    Deviations: a response of many steps has a low product however good they are.
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, -2.0, 9.0]]), jnp.array([[True, True, False]])
    >>> round(float(step_product(*x)[0]), 4)
    0.0871
    """
    logs = jnp.where(mask, jax.nn.log_sigmoid(_kept(token_scores, mask)), 0.0)
    # the empty product is 1 and would rank a response without any judged step first
    return jnp.where(mask.any(-1), jnp.exp(logs.sum(-1)), 0.0)


def step_min(token_scores: Float[Array, "B R"], mask: Bool[Array, "B R"]) -> Float[Array, "B"]:
    """Probability of the worst step (Math-Shepherd).

    Args, Returns: as `step_product`.
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, -2.0, -9.0]]), jnp.array([[True, True, False]])
    >>> round(float(step_min(*x)[0]), 4)
    0.1192
    """
    probs = jnp.where(mask, jax.nn.sigmoid(_kept(token_scores, mask)), 1.0)
    # likewise: the minimum over no steps is 1
    return jnp.where(mask.any(-1), probs.min(-1), 0.0)


def step_last(token_scores: Float[Array, "B R"], mask: Bool[Array, "B R"]) -> Float[Array, "B"]:
    """Probability of the last step: the outcome, judged by the process model.

    Args, Returns: as `step_product`.
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, -2.0, 9.0]]), jnp.array([[True, True, False]])
    >>> round(float(step_last(*x)[0]), 4)
    0.1192
    """
    # the last True, not the count of them: steps end at scattered positions
    last = jnp.max(jnp.where(mask, jnp.arange(mask.shape[-1]), 0), -1, keepdims=True)
    score = jnp.take_along_axis(_kept(token_scores, mask), last, -1)[:, 0]
    return jnp.where(mask.any(-1), jax.nn.sigmoid(score), 0.0)


def potential_differences(
    token_scores: Float[Array, "B R"], mask: Bool[Array, "B R"]
) -> Float[Array, "B R"]:
    """r_t - r_(t-1), with r = 0 before the first position: dense rewards from a score of prefixes.

    Their sum is the last score, so over an episode nothing is added or lost. Their running sum
    gives the scores back.

    Args:
      token_scores: the score of the response up to each position, in any unit.
      mask: scored positions; they come first.
    Returns:
      One reward per scored position, 0 at the others.
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, -2.0, 9.0]]), jnp.array([[True, True, False]])
    >>> potential_differences(*x)[0].tolist()
    [1.0, -3.0, 0.0]
    """
    scores = _kept(token_scores, mask)
    # shifted by one with a 0 in front, so that the sum telescopes to the last score
    before = jnp.pad(scores[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(mask, scores - before, 0.0)


def _kept(scores: Array, mask: Array) -> Array:
    """The scores in float32, 0 at masked positions, even if NaN there."""
    return jnp.where(mask, f32(scores)[0], 0.0)
