"""Compute the data fields of a loss from the arrays of a rollout."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jalign.advantages import adaptive_kl, importance_weights
from jalign.core import Algorithm
from jalign.train.rollout_spec import RolloutSpec

Arrays = dict[str, np.ndarray]


def experience_fields(
    algorithm: Algorithm, arrays: Arrays, *, kl_coef: float | None, importance_cap: float
) -> Arrays:
    """The fields that the experience computes from a rollout, and others that the loss reads.

    Args:
      algorithm: a row with an experience.
      arrays: those of `core.ROLLOUT` that are read, and `sampler_token_logps`.
      kl_coef: the adaptive coefficient, if the experience reads one.
      importance_cap: see `RolloutRules`.
    """
    assert algorithm.experience is not None
    hyper = algorithm.experience_hyper()
    if kl_coef is not None:
        # The adaptive coefficient; the configured one is only its first value.
        hyper["kl_coef"] = kl_coef
    inputs = (jnp.asarray(arrays[name]) for name in algorithm.rollout_inputs())
    fields = {n: np.asarray(x) for n, x in algorithm.experience.fn(*inputs, **hyper).items()}
    if importance_cap and "advantages" in fields:
        weights = rollout_weights(arrays, importance_cap, per_token=algorithm.loss_per_token)
        if "take" in fields:  # the advantages are of the responses that it names
            weights = np.take_along_axis(weights, fields["take"][..., None], 1)
        fields["advantages"] = fields["advantages"] * weights
    if "old_token_logps" in arrays:
        fields["old_token_logps"] = arrays["old_token_logps"]
    return fields


def rollout_weights(arrays: Arrays, cap: float, *, per_token: bool) -> np.ndarray:
    """[B, K, R] truncated importance weights of tokens, or [B, K, 1] of complete responses."""
    old, sampler, mask = (arrays[n] for n in ("old_token_logps", "sampler_token_logps", "mask"))
    if not per_token:
        old, sampler = (np.where(mask, x, 0).sum(-1, keepdims=True) for x in (old, sampler))
        mask = mask.any(-1, keepdims=True)
    old, sampler, mask = map(jnp.asarray, (old, sampler, mask))
    return np.asarray(importance_weights(old, sampler, mask, cap=cap))


def steered_kl_coef(spec: RolloutSpec, kl_coef: float, kl: float) -> float:
    """The KL coefficient of the next rollout; `kl` is that of this one, nats per response."""
    responses, horizon = spec.prompts * spec.responses, float(spec.kl_horizon)
    return float(adaptive_kl(kl_coef, kl, responses, target=spec.kl_target, horizon=horizon))
