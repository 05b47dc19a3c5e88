"""Sums, lengths and metrics that several formats share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jalign.core.format import Arrays
from jalign.layout import Batch

Metrics = dict[str, tuple[Array, Array]]


def sum_over_response(x: Array, mask: Array) -> Array:
    """Sum over scored tokens; values at unscored positions are ignored, NaN too."""
    return jnp.sum(jnp.where(mask, x, 0.0), axis=-1)


def at_last_token(x: Array, mask: Array) -> Array:
    """Value at the last scored token; the scored tokens of a response come first."""
    # the scored tokens come first, so the last one is at their count - 1; an empty slot reads 0
    at = jnp.maximum(jnp.sum(mask, -1) - 1, 0)
    at = at.reshape(*at.shape, *[1] * (x.ndim - at.ndim))
    return jnp.take_along_axis(x, at, axis=mask.ndim - 1).squeeze(mask.ndim - 1)


KL_TO_TRAINER = "rollout/kl_to_trainer"


def kl_to_trainer(
    out: Arrays, batch: Batch, flat: Callable[[Array], Array] = lambda x: x
) -> Arrays:
    """KL(sampler || trainer) of each response, nats per token, where the batch has the sampler's
    log-probs and the trainer's are those of the step: ratio - 1 - log ratio, >= 0.
    """
    data, mask = batch.extras, batch.mask
    # with log-probs computed before the step the rollout itself has measured it
    if "token_logps" not in out or "sampler_token_logps" not in data or "old_token_logps" in data:
        return {}
    off = jnp.where(mask, out["token_logps"] - data["sampler_token_logps"], 0.0)
    off = jnp.clip(jax.lax.stop_gradient(off), -20.0, 20.0)
    return {KL_TO_TRAINER: flat((jnp.expm1(off) - off).sum(-1) / length(mask))}


def logged(fields: Arrays) -> Metrics:
    """The metric of `kl_to_trainer`, if there is one, over responses that the policy wrote."""
    if KL_TO_TRAINER not in fields:
        return {}
    # NaN marks the others, of a reference or the data
    known = ~jnp.isnan(fields[KL_TO_TRAINER])
    return {KL_TO_TRAINER: (fields[KL_TO_TRAINER], fields["present"] & known)}


def length(mask: Array) -> Array:
    """Number of scored tokens, at least 1, so that an empty slot can be divided by it."""
    return jnp.maximum(jnp.sum(mask, -1), 1).astype(jnp.float32)


def wins(a: Array, b: Array) -> Array:
    """1 where a > b; a tie is half a win, so that a policy that equals its reference gets
    0.5.
    """
    return jnp.where(a == b, 0.5, (a > b).astype(jnp.float32))


def per_example(fields: Arrays, metrics: Arrays) -> Metrics:
    return {name: (x, fields["present"]) for name, x in metrics.items()}


def per_token(fields: Arrays, metrics: Arrays) -> Metrics:
    """Metrics of a loss with one value per token."""
    return {name: (x, fields["mask"]) for name, x in metrics.items()}
