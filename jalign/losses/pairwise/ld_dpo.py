"""LD-DPO: DPO that downweights tokens beyond the length of the shorter response.

Liu et al. 2024, "Length Desensitization in Direct Preference Optimization".
https://arxiv.org/abs/2409.06411.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require


def ld_dpo(
    chosen_token_logps: Float[Array, "B R"],
    rejected_token_logps: Float[Array, "B R"],
    ref_chosen_token_logps: Float[Array, "B R"],
    ref_rejected_token_logps: Float[Array, "B R"],
    chosen_mask: Bool[Array, "B R"],
    rejected_mask: Bool[Array, "B R"],
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta * (d_w - d_l)), d = SUM_{t <= n} d_t + alpha * SUM_{t > n} d_t.

    d_t is the log-ratio of the t-th token of a response and n the length of the SHORTER response of
    the pair. The paper raises the probability of the excess tokens to the power alpha, in policy
    and reference alike. The shorter response keeps its whole log-ratio; the tail of the longer one,
    whose share of the gradient grows with its length, is damped.

    Args:
      chosen_token_logps, rejected_token_logps: nats, one per token.
      ref_chosen_token_logps, ref_rejected_token_logps: the same under the reference.
      chosen_mask, rejected_mask: where there is a scored token. Values elsewhere, NaN too,
        does not count, and positions are counted among scored tokens.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      alpha: weight of a token beyond the shorter response, in [0, 1]. 1 is DPO, 0 cuts both
        responses to the same length.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * the damped log-ratio).
    Raises:
      ValueError: a number out of its range.
    Deviations: the form is that of TRL 1.16 with `ld_alpha` (which has no default); alpha = 0.5 is
      from knowledge of the paper [PAPER], which tunes it for each model.
    >>> import jax.numpy as jnp
    >>> ratio = jnp.array([[0.5, 0.25, 2.0]]), jnp.array([[-1.0, 0.5, 9.0]])
    >>> there = jnp.array([[True, True, True]]), jnp.array([[True, True, False]])
    >>> x = (*ratio, jnp.zeros((1, 3)), jnp.zeros((1, 3)), *there)
    >>> [round(float(ld_dpo(*x, beta=0.5, alpha=a)[0][0]), 4) for a in (0.0, 1.0)]
    [0.4287, 0.1797]
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require((alpha >= 0) & (alpha <= 1), f"alpha must be in [0, 1], got {alpha}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_token_logps, rejected_token_logps, ref_chosen_token_logps, ref_rejected_token_logps
    )
    # counted per pair from the masks: the padded width is that of the longest in the batch
    shared = jnp.minimum(chosen_mask.sum(-1), rejected_mask.sum(-1))[:, None]

    def reward(logps: Array, ref_logps: Array, mask: Array) -> Array:
        ratio = jnp.where(mask, logps, 0.0) - jnp.where(mask, ref_logps, 0.0)
        # by count of scored tokens, so that masked tokens between them do not shift the boundary
        weight = jnp.where(jnp.cumsum(mask, -1) <= shared, 1.0, alpha)
        return beta * jnp.sum(weight * ratio, -1)

    chosen_rewards = reward(chosen, ref_chosen, chosen_mask)
    rejected_rewards = reward(rejected, ref_rejected, rejected_mask)
    loss = -jax.nn.log_sigmoid(chosen_rewards - rejected_rewards)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
