"""BCO: binary classifier optimization, on single responses labeled desirable or not.

Jung, Han, Nam, On 2024, "Binary Classifier Optimization for Large Language Model Alignment".
https://arxiv.org/abs/2404.04656. On pairs: `jalign.losses.pairwise.bco`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._running import Axis, ema, mean_where, total

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def bco(
    logps: Float[Array, "B"],
    ref_logps: Float[Array, "B"],
    label: Bool[Array, "B"] | Float[Array, "B"],
    present: Bool[Array, "B"],
    delta: Float[Array, ""],
    *,
    beta: float = 0.1,
    momentum: float = 0.9,
    axis_name: Axis = None,
) -> Out:
    """-log sigmoid(r - delta) if desirable, -log sigmoid(delta - r) if not; r = beta * log-ratio.

    A classifier of the two classes whose logit is the implicit reward (SUMMED log-ratio). delta,
    the reward shift, is half the sum of the mean reward of the desirable and the mean reward of the
    undesirable, a running mean over steps, this batch included, without gradient. Where the batch
    has one class only, its mean is used for both. The loss of an example so depends on the others:
    compute it on the global batch.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      label: True (or 1, as the data hold it) where the response is desirable.
      present: where there is an example at all.
      delta: the shift after the previous step, in reward units; NaN before the first.
      beta: scale of the implicit reward, > 0; 0.1.
      momentum: weight of the old delta, in [0, 1]; 0.9. 0 is the shift of this batch alone, 1 keeps
        delta as it comes in.
      axis_name: inside `jax.shard_map`, the mesh axis or axes that the batch is split over.
    Returns:
      The unreduced loss, `rewards` (r), and the new `delta` at every example.
    Raises:
      ValueError: a number out of its range.
    Deviations: TRL's trainer pools both classes in one cumulative mean without decay, which leans
      to the larger class. The paper averages the loss in each class apart; here every example
      counts the same, as in TRL.
    >>> import jax.numpy as jnp
    >>> logps, ref = jnp.array([-4.0, -9.5]), jnp.array([-5.0, -8.0])
    >>> label, there = jnp.array([True, False]), jnp.array([True, True])
    >>> loss, metrics = bco(logps, ref, label, there, jnp.array(jnp.nan), beta=0.5)
    >>> float(metrics["delta"][0]), [round(float(x), 4) for x in loss]
    (-0.125, [0.4287, 0.4287])
    """
    return _classify(logps, ref_logps, label, present, delta, 1.0, beta, momentum, axis_name)


def bco_udm(
    logps: Float[Array, "B"],
    ref_logps: Float[Array, "B"],
    label: Bool[Array, "B"] | Float[Array, "B"],
    present: Bool[Array, "B"],
    density_ratio: Float[Array, "B"],
    delta: Float[Array, ""],
    *,
    beta: float = 0.1,
    momentum: float = 0.9,
    min_ratio: float = 0.5,
    max_ratio: float = 10.0,
    axis_name: Axis = None,
) -> Out:
    """`bco` with the loss of an undesirable example times clip(density_ratio, min, max).

    The paper's underlying distribution matching: where desirable and undesirable responses belong
    to different prompts, the undesirable ones are reweighted to the prompts of the desirable.

    Args:
      logps, ref_logps, label, present, delta, beta, momentum: as in `bco`.
      density_ratio: p(desirable | prompt) / (1 - p(desirable | prompt)), > 0, from a classifier of
        prompts made beforehand; read at undesirable examples only.
      min_ratio, max_ratio: what it is clipped to, 0 <= min_ratio <= max_ratio; 0.5 and 10.
      axis_name: inside `jax.shard_map`, the mesh axis or axes that the batch is split over.
    Returns:
      The unreduced loss, `rewards` (r), and the new `delta` at every example.
    Raises:
      ValueError: a number out of its range.
    Deviations: as in `bco`; delta is not reweighted.
    >>> import jax.numpy as jnp
    >>> logps, ref = jnp.array([-4.0, -9.5]), jnp.array([-5.0, -8.0])
    >>> label, there = jnp.array([True, False]), jnp.array([True, True])
    >>> ratio, start = jnp.array([3.0, 2.0]), jnp.array(jnp.nan)
    >>> loss, _ = bco_udm(logps, ref, label, there, ratio, start, beta=0.5)
    >>> [round(float(x), 4) for x in loss]
    [0.4287, 0.8574]
    """
    require(min_ratio >= 0, f"min_ratio must be >= 0, got {min_ratio}")
    require(max_ratio >= min_ratio, f"max_ratio must be >= min_ratio, got {max_ratio}")
    (ratio,) = f32(density_ratio)
    # a prompt that the classifier is sure of has a ratio without bound
    weight = jnp.clip(ratio, min_ratio, max_ratio)
    return _classify(logps, ref_logps, label, present, delta, weight, beta, momentum, axis_name)


def _classify(
    logps: Array,
    ref_logps: Array,
    label: Array,
    present: Array,
    delta: Array,
    undesirable_weight: Array | float,
    beta: float,
    momentum: float,
    axis_name: Axis,
) -> Out:
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(0 <= momentum <= 1, f"momentum must be in [0, 1], got {momentum}")
    logps, ref_logps, old = f32(logps, ref_logps, delta)
    rewards = beta * jnp.where(present, logps - ref_logps, 0.0)
    good, bad = present & (label > 0.5), present & ~(label > 0.5)
    # the shift is a baseline: with a gradient the loss could fall by moving it alone
    fixed = jax.lax.stop_gradient(rewards)
    # a batch may hold one class only; averaging in the 0 of the other would halve the shift
    classes = sum((total(x, axis_name) > 0).astype(jnp.float32) for x in (good, bad))
    middle = sum(mean_where(fixed, x, axis_name) for x in (good, bad)) / jnp.maximum(classes, 1.0)
    shift = ema(old, middle, total(present, axis_name) > 0, momentum)
    logit = rewards - shift
    # Weights of other examples may be NaN, and NaN times a gradient of 0 is NaN.
    weight = jnp.where(bad, undesirable_weight, 1.0)
    loss = -weight * jax.nn.log_sigmoid(jnp.where(bad, -logit, logit))
    return loss, {"rewards": rewards, "delta": jnp.broadcast_to(shift, loss.shape)}
