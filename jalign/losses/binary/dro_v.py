"""DRO-V: direct reward optimization with a learned value, from single rated responses.

Richemond et al. 2024, "Offline Regularized Reinforcement Learning for Large Language Models
Alignment". https://arxiv.org/abs/2405.19107, Sec. 3.3 and Algorithm 1.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def dro_v(
    logps: Float[Array, "B"],
    ref_logps: Float[Array, "B"],
    rating: Float[Array, "B"],
    token_values: Float[Array, "B R"],
    mask: Bool[Array, "B R"],
    *,
    tau: float = 1.0,
) -> Out:
    """-(logp * sg(r - V) - tau d^2 / 2) + mean_t (v_t - sg(r - tau d))^2 / 2, d the log-ratio.

    Algorithm 1 of the paper. The first part trains the policy: its gradient is that of the joint
    square (`dro_v_joint`) divided by tau. The second part trains the critic towards the same target
    at every token. d and logp are SUMMED over tokens, V is the mean of v_t, sg stops the gradient.
    Policy and critic are separate networks and each part sends no gradient to the other's, so one
    sum trains both.

    Do not monitor this loss: the policy part has the right gradient, but its VALUE has no meaning
    and may rise while training goes well. Monitor `joint`, which should fall.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      rating: r, the reward that came with the response, standardized over the dataset to mean 0 and
        standard deviation 1.
      token_values: v_t, what the critic expects before each token, in units of the rating.
      mask: where there is a token.
      tau: strength of the pull to the reference, in units of the rating per nat, > 0; 1.
    Returns:
      The unreduced loss, `rewards` (tau * d), `policy_loss` and `value_loss` (its two parts), and
      `joint`, (r - V - tau d)^2 / 2.
    Raises:
      ValueError: tau <= 0.
    Deviations: the paper also writes the joint square; this takes the two parts, as it recommends.
      A value per token is its "multiple values"; that V is their mean is our reading. V is more
      than a baseline: the responses are not the policy's own, so without it the optimum is another.
    >>> import jax.numpy as jnp
    >>> logps, ref, rating = jnp.array([-4.0]), jnp.array([-4.5]), jnp.array([1.0])
    >>> values, mask = jnp.array([[0.25, 0.75, 9.0]]), jnp.array([[True, True, False]])
    >>> loss, metrics = dro_v(logps, ref, rating, values, mask, tau=0.5)
    >>> [float(x[0]) for x in (loss, metrics["joint"])]
    [2.125, 0.03125]
    """
    logps, rating, values, count, ratio, value, joint = _parts(
        logps, ref_logps, rating, token_values, mask, tau
    )
    # a constant: else the critic would be trained to make the policy's term small
    advantage = jax.lax.stop_gradient(rating - value)
    policy_loss = -(logps * advantage - 0.5 * tau * ratio**2)
    # each model has the other's output as a constant, as in Algorithm 1
    target = jax.lax.stop_gradient(rating - tau * ratio)
    squares = jnp.where(mask, (values - target[:, None]) ** 2, 0.0)
    value_loss = 0.5 * squares.sum(-1) / count
    return policy_loss + value_loss, {
        "rewards": tau * ratio,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "joint": joint,
    }


def dro_v_joint(
    logps: Float[Array, "B"],
    ref_logps: Float[Array, "B"],
    rating: Float[Array, "B"],
    token_values: Float[Array, "B R"],
    mask: Bool[Array, "B R"],
    *,
    tau: float = 1.0,
) -> Out:
    """(r - V - tau d)^2 / 2, with d the summed log-ratio and V the mean of the token values.

    One square whose gradient trains policy and critic together; 0 where the policy is the optimum
    for the rating and V its soft value. Unlike that of `dro_v`, its value shows progress.

    Args:
      logps, ref_logps, rating, token_values, mask: as in `dro_v`.
      tau: strength of the pull to the reference, in units of the rating per nat, > 0; 1.
    Returns:
      The unreduced loss, and `rewards` (tau * d).
    Raises:
      ValueError: tau <= 0.
    Deviations: the paper recommends Algorithm 1 (`dro_v`), whose policy gradient is this one's
      divided by tau and whose every token value is pulled to the target, not only their mean.
    >>> import jax.numpy as jnp
    >>> logps, ref, rating = jnp.array([-4.0]), jnp.array([-4.5]), jnp.array([1.0])
    >>> values, mask = jnp.array([[0.25, 0.75, 9.0]]), jnp.array([[True, True, False]])
    >>> dro_v_joint(logps, ref, rating, values, mask, tau=0.5)[0].tolist()
    [0.03125]
    """
    *_, ratio, _, joint = _parts(logps, ref_logps, rating, token_values, mask, tau)
    return joint, {"rewards": tau * ratio}


def _parts(
    logps: Array, ref_logps: Array, rating: Array, token_values: Array, mask: Array, tau: float
) -> tuple[Array, ...]:
    """logps, rating and token values in float32; token count, log-ratio, V and the joint square."""
    require(tau > 0, f"tau must be > 0, got {tau}")
    logps, ref_logps, rating, values = f32(logps, ref_logps, rating, token_values)
    # before the mean: padded positions hold whatever the critic computed there
    values = jnp.where(mask, values, 0.0)
    count = jnp.maximum(mask.sum(-1), 1)
    value, ratio = values.sum(-1) / count, logps - ref_logps
    return logps, rating, values, count, ratio, value, 0.5 * (rating - value - tau * ratio) ** 2
