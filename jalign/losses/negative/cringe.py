"""CRINGE: contrast each token of a bad response with a likely other token; token-wise and on pairs.

Adolphs et al. 2022, "The CRINGE Loss: Learning what language not to model".
https://arxiv.org/abs/2211.05826. Xu et al. 2023, "Some things are more CRINGE than others:
Iterative Preference Optimization with the Pairwise Cringe Loss". https://arxiv.org/abs/2312.16682.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require


def cringe(
    token_logps: Float[Array, "B R"],
    competitor_logps: Float[Array, "B R"],
    mask: Bool[Array, "B R"],
    label: Bool[Array, "B"] | Float[Array, "B"],
    *,
    alpha: float = 1.0,
) -> tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]:
    """-log p(token) if desirable, alpha * softplus(log p(token) - log p(competitor)) if not.

    The competitor is a token drawn among the model's top k others there. The difference of
    two log-probabilities is that of their logits, so the second form is the paper's
    -log(exp(z_s) / (exp(z_s) + exp(z_y))): the token must lose against its competitor.

    Args:
      token_logps: log-probability of each token of the response, nats, <= 0.
      competitor_logps: that of the competitor at the same position; it has a gradient, too.
      mask: where there is a token.
      label: True (or 1, as the data hold it) where the response is desirable.
      alpha: weight of the undesirable tokens, >= 0; 1.
    Returns:
      The unreduced loss [B, R], 0 at masked positions, and no metrics. The authors divide the sum
      by the number of tokens of both kinds.
    Raises:
      ValueError: alpha < 0.
    Deviations: none known from the authors' code (ParlAI) at k = 1; k belongs to the scorer.
    >>> import jax.numpy as jnp
    >>> logps, other = jnp.array([[-1.5], [-1.0]]), jnp.array([[-2.0], [-3.0]])
    >>> loss, _ = cringe(logps, other, jnp.ones((2, 1), bool), jnp.array([True, False]))
    >>> [round(float(x), 4) for x in loss[:, 0]]
    [1.5, 2.1269]
    """
    require(alpha >= 0, f"alpha must be >= 0, got {alpha}")
    logps, competitor = f32(token_logps, competitor_logps)
    # masked before the softplus, whose derivative would pass a NaN on
    logps, competitor = jnp.where(mask, logps, 0.0), jnp.where(mask, competitor, 0.0)
    loss = jnp.where((label > 0.5)[:, None], -logps, alpha * _contrast(logps, competitor))
    return jnp.where(mask, loss, 0.0), {}


def pairwise_cringe(
    chosen_token_logps: Float[Array, "B R"],
    rejected_token_logps: Float[Array, "B R"],
    rejected_competitor_logps: Float[Array, "B R"],
    chosen_mask: Bool[Array, "B R"],
    rejected_mask: Bool[Array, "B R"],
    *,
    alpha: float = 1.0,
    bias: float = 0.0,
    temperature: float = 1.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """g * (NLL(chosen) + alpha * contrast(rejected)), gate g = sigmoid((bias - M) / temperature).

    M is log p(chosen) - log p(rejected), SUMMED over tokens. The gate has no gradient: it closes on
    pairs whose margin is beyond `bias`. NLL and contrast (`cringe`) are each the mean over the
    tokens of that response, so neither a long response nor a long partner outweighs the other.

    Args:
      chosen_token_logps, rejected_token_logps: log-probability of each token, nats, <= 0.
      rejected_competitor_logps: of the competitor at each position of the rejected response.
      chosen_mask, rejected_mask: where there is a token.
      alpha: weight of the contrast, >= 0; 1.
      bias: margin at which the gate is half open, nats; 0. The paper tunes it for each task.
      temperature: nats over which the gate closes, > 0; 1. The paper tunes it, too: M is a sum, so
        with long responses a gate of 1 nat is all but a step.
    Returns:
      The unreduced loss; log p of both responses as `chosen_rewards`, `rejected_rewards` (their
      difference is M); `gate`.
    Raises:
      ValueError: a number out of its range.
    Deviations: g is held constant; whether the paper differentiates it is not known to us. Sums
      over tokens are divided by the response's own length, where the token loss is divided by all
      tokens of the batch.
    >>> import jax.numpy as jnp
    >>> chosen, rejected, other = jnp.array([[-1.5]]), jnp.array([[-1.0]]), jnp.array([[-3.0]])
    >>> there = jnp.array([[True]])
    >>> loss, metrics = pairwise_cringe(chosen, rejected, other, there, there)
    >>> round(float(metrics["gate"][0]), 4), round(float(loss[0]), 4)
    (0.6225, 2.2576)
    """
    require(alpha >= 0, f"alpha must be >= 0, got {alpha}")
    require(temperature > 0, f"temperature must be > 0, got {temperature}")
    chosen, rejected, competitor = f32(
        chosen_token_logps, rejected_token_logps, rejected_competitor_logps
    )
    chosen = jnp.where(chosen_mask, chosen, 0.0)
    rejected = jnp.where(rejected_mask, rejected, 0.0)
    competitor = jnp.where(rejected_mask, competitor, 0.0)
    chosen_sum, rejected_sum = chosen.sum(-1), rejected.sum(-1)
    # the gate only weighs a pair: with a gradient, closing it would lower the loss
    gate = jax.lax.stop_gradient(jax.nn.sigmoid((bias - chosen_sum + rejected_sum) / temperature))
    # each by its own length: one divisor for both lets a long response shrink its partner's term
    nll = -chosen_sum / jnp.maximum(chosen_mask.sum(-1), 1)
    contrast = jnp.where(rejected_mask, _contrast(rejected, competitor), 0.0).sum(-1)
    contrast = contrast / jnp.maximum(rejected_mask.sum(-1), 1)
    loss = gate * (nll + alpha * contrast)
    return loss, {"chosen_rewards": chosen_sum, "rejected_rewards": rejected_sum, "gate": gate}


def _contrast(logps: Array, competitor: Array) -> Array:
    """softplus(log p(token) - log p(competitor)), overflowing nowhere."""
    # log(1 + exp(x)) as written overflows from x = 89 on
    return -jax.nn.log_sigmoid(competitor - logps)
