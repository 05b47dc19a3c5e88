"""Rewards and advantages of tokens: the building blocks of the experiences."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign import advantages as adv

Scores = Float[Array, "B K"]
Valid = Bool[Array, "B K"]
Tokens = Float[Array, "B K R"]
Mask = Bool[Array, "B K R"]
Fields = dict[str, Array]


def rows(x: Array) -> Array:
    """[B, K, R] as [B * K, R], the shape `jalign.advantages` works on."""
    return x.reshape(-1, x.shape[-1])


def on_tokens(x: Scores, mask: Mask) -> Tokens:
    """The same advantage at every token of a response."""
    # a response without a reward has NaN, and 0 * NaN in the loss would spread to the gradient
    return jnp.where(mask, jnp.nan_to_num(x)[..., None], 0.0)


def minus_sequence_kl(
    scores: Scores, logps: Tokens, ref_logps: Tokens, mask: Mask, kl_coef: float
) -> Scores:
    """score - kl_coef * k1 of the response."""
    # masked before the sum: log-probs of unscored positions are garbage in both models
    return scores - kl_coef * jnp.where(mask, logps - ref_logps, 0.0).sum(-1)


def token_rewards(
    scores: Scores, logps: Tokens, ref_logps: Tokens, mask: Mask, kl_coef: float
) -> Tokens:
    """The score at the last token, -kl_coef * k1 at every token."""
    # in a reward k1 has the unbiased gradient of the KL; k3, better in a loss, is biased there
    k1 = jnp.where(mask, logps - ref_logps, 0.0)
    flat = adv.token_rewards(scores.reshape(-1), rows(k1), rows(mask), kl_coef=kl_coef)
    return flat.reshape(mask.shape)


def rewards_to_go(rewards: Tokens, mask: Mask, gamma: float) -> Tokens:
    """The discounted sum of the rewards from a token on."""
    return adv.rewards_to_go(rows(rewards), rows(mask), gamma=gamma).reshape(mask.shape)


def whitened(x: Tokens, mask: Mask, *, shift_mean: bool = True) -> Tokens:
    """Scaled to a standard deviation of 1 over all tokens of the rollout."""
    return adv.whiten(rows(x), rows(mask), shift_mean=shift_mean).reshape(mask.shape)


def gae_fields(
    rewards: Tokens, values: Tokens, mask: Mask, gamma: float, gae_lambda: float
) -> Fields:
    """Whitened generalized advantages, and the critic's targets."""
    advantages, returns = adv.gae(
        rows(rewards), rows(values), rows(mask), gamma=gamma, lam=gae_lambda
    )
    return {
        # whitened after the returns are taken: the critic learns returns in the reward's own units
        "advantages": adv.whiten(advantages, rows(mask), shift_mean=True).reshape(mask.shape),
        "returns": returns.reshape(mask.shape),
        # unscored entries hold whatever the critic computed there
        "old_values": jnp.where(mask, values, 0.0),
    }
