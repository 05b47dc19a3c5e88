"""beta-DPO: DPO with a beta adapted to each batch, without pairs whose gap is an outlier.

Wu et al. 2024, "beta-DPO: Direct Preference Optimization with Dynamic beta".
https://arxiv.org/abs/2407.08639, at the scale of the authors' code (see Deviations).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._running import Axis, ema, mean_where, of_all_devices, of_this_device


def beta_dpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    present: Bool[Array, "B"],
    gumbel: Float[Array, "B"],
    gap_mean: Float[Array, ""],
    gap_std: Float[Array, ""],
    *,
    beta: float = 0.1,
    alpha: float = 0.6,
    momentum: float = 0.9,
    keep: float = 0.8,
    axis_name: Axis = None,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta_batch * D) on n sampled pairs, 0 on the others.

    D is the difference of the summed log-ratios and M its value without gradient. With mu, s the
    running mean and standard deviation of M, this batch included:
    pairs are drawn without replacement with probability ~ w = exp(-((M - mu) / s)^2 / 2), as the n
    largest log w + gumbel; beta_batch = max(1e-3, beta * (1 + alpha * (mean of the drawn M - mu))).
    n = floor(keep * pairs present), at least 1. What is drawn is scaled by present / n, so that the
    mean over the pairs present is the mean over the pairs drawn. The loss of a pair so depends on
    the others: compute it on the global batch.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      present: where there is a pair at all.
      gumbel: standard Gumbel noise, fresh at every step.
      gap_mean, gap_std: mu and s after the previous step, nats; NaN before the first.
      beta: beta_0, > 0; 0.1.
      alpha: how much beta follows the gap, per nat, >= 0; 0.6. 0 with keep = 1 is DPO.
      momentum: of mu and s, in [0, 1]; 1 keeps them as they come in.
      keep: fraction of the pairs drawn, in (0, 1]; the paper's rho, 0.8.
      axis_name: inside `jax.shard_map`, the mesh axis or axes that the batch is split over.
    Returns:
      The unreduced loss; `chosen_rewards`, `rejected_rewards` (beta * log-ratio, with beta_0);
      `beta_batch`, and the new `gap_mean`, `gap_std`, at every pair.
    Raises:
      ValueError: a number out of its range.
    Deviations: as the authors' code, not the paper, M is not multiplied by beta and one beta serves
      the whole batch. mu and s start from the first batch, the authors' from 0. An s of 0 counts as
      not started (at step 0 the policy is the reference and every gap is 0), else the next s would
      be a tenth of the spread. s divides by n - 1, as torch.std; one pair alone leaves s as it is.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> yes, mu, s = jnp.array([True]), jnp.array(0.0), jnp.array(1.0)
    >>> loss, metrics = beta_dpo(*x, yes, jnp.zeros(1), mu, s)
    >>> round(float(metrics["beta_batch"][0]), 4), round(float(loss[0]), 4)
    (0.208, 0.5066)
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(alpha >= 0, f"alpha must be >= 0, got {alpha}")
    require((momentum >= 0) & (momentum <= 1), f"momentum must be in [0, 1], got {momentum}")
    require((keep > 0) & (keep <= 1), f"keep must be in (0, 1], got {keep}")
    chosen, rejected, ref_chosen, ref_rejected, noise, old_mean, old_std = f32(
        chosen_logps,
        rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        gumbel,
        gap_mean,
        gap_std,
    )
    chosen_ratio = jnp.where(present, chosen - ref_chosen, 0.0)
    rejected_ratio = jnp.where(present, rejected - ref_rejected, 0.0)
    ratio_gap = chosen_ratio - rejected_ratio
    # M selects pairs and sets beta; with a gradient the policy could lower its loss through beta
    gap, noise, there = (
        of_all_devices(x, axis_name) for x in (jax.lax.stop_gradient(ratio_gap), noise, present)
    )
    count = there.sum()

    batch_mean = mean_where(gap, there)
    squares = jnp.where(there, (gap - batch_mean) ** 2, 0.0)
    batch_std = jnp.sqrt(squares.sum() / jnp.maximum(count - 1, 1))
    mean = ema(old_mean, batch_mean, count > 0, momentum)
    std = ema(jnp.where(old_std > 0, old_std, jnp.nan), batch_std, count > 1, momentum)

    log_w = -0.5 * ((gap - mean) / jnp.maximum(std, 1e-6)) ** 2
    # Relative to the largest: far from 0 a float32 has no digits left for the noise.
    log_w = log_w - jnp.max(jnp.where(there, log_w, -jnp.inf))
    rank = jnp.argsort(jnp.argsort(jnp.where(there, -(log_w + noise), jnp.inf)))
    n = jnp.maximum(jnp.floor(keep * count * (1 + 2.5e-7)), 1.0)  # 0.42 * 150 is 62.99.. in float32
    drawn = there & (rank < n)

    # beta <= 0 would reverse the preference, and one batch far below the running mean asks for it
    beta_batch = jnp.maximum(beta * (1 + alpha * (mean_where(gap, drawn) - mean)), 1e-3)
    drawn = of_this_device(drawn, axis_name)
    loss = jnp.where(drawn, -jax.nn.log_sigmoid(beta_batch * ratio_gap) * (count / n), 0.0)
    scalars = {"beta_batch": beta_batch, "gap_mean": mean, "gap_std": std}
    return loss, {
        "chosen_rewards": beta * chosen_ratio,
        "rejected_rewards": beta * rejected_ratio,
    } | {name: jnp.broadcast_to(x, loss.shape) for name, x in scalars.items()}
