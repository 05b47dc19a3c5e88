"""Lists: k rated responses to a prompt."""

import jax.numpy as jnp
from jax import Array

from jalign import losses
from jalign.core.format import Arrays, AuxLoss, Format
from jalign.core.reductions import (
    mean_over_examples,
)
from jalign.formats._fields import (
    Metrics,
    at_last_token,
    length,
    per_example,
    sum_over_response,
    wins,
)
from jalign.layout import Batch


def _lists(out: Arrays, batch: Batch) -> Arrays:
    mask, valid = batch.mask, batch.mask.any(-1)
    named = {"present": valid.any(-1), "valid": valid, "lens": length(mask)}
    if "token_logps" in out:
        named["logps"] = sum_over_response(out["token_logps"], mask)
    if "scores" in out:
        named["scores"] = at_last_token(out["scores"], mask)
    return named


def _list_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    """`rewards` [B, K] becomes the reward of the best and of the worst response and the share of
    pairs of different rating that the rewards put in the right order.
    """
    metrics = dict(metrics)
    ratings, valid = fields["ratings"], fields["valid"]
    # -inf and not 0: ratings may be negative, and a missing response must never be the best
    best = jnp.argmax(jnp.where(valid, ratings, -jnp.inf), -1)[:, None]
    worst = jnp.argmin(jnp.where(valid, ratings, jnp.inf), -1)[:, None]

    def at(x: Array, i: Array) -> Array:
        return jnp.take_along_axis(x, i, -1)[:, 0]

    if "rewards" in metrics:
        rewards = metrics.pop("rewards")
        above = ratings[:, :, None] > ratings[:, None, :]
        above &= valid[:, :, None] & valid[:, None, :]
        right = jnp.where(above, wins(rewards[:, :, None], rewards[:, None, :]), 0.0)
        # at least 1: a list of equal ratings has no pair, and an accuracy of 0
        pairs = jnp.maximum(above.sum((1, 2)), 1)
        high, low = at(rewards, best), at(rewards, worst)
        metrics |= {
            "rewards/chosen": high,
            "rewards/rejected": low,
            "rewards/margins": high - low,
            "rewards/accuracies": right.sum((1, 2)) / pairs,
        }
    if "logps" in fields:
        metrics["logps/chosen"] = at(fields["logps"], best)
        metrics["logps/rejected"] = at(fields["logps"], worst)
    return per_example(fields, metrics)


LISTS = Format(
    name="lists",
    k=None,
    view=_lists,
    reads={"logps": ("token_logps",), "scores": ("scores",)},
    mask_fields=frozenset({"present", "valid", "lens"}),
    data_fields=frozenset({"ratings"}),
    axes=dict.fromkeys(("logps", "ref_logps", "lens", "scores", "valid", "ratings"), "BK"),
    metrics=_list_metrics,
    aux_losses={"nll_coef": AuxLoss(losses.nll_best, 0.0, mean_over_examples)},
    feedback="list",
)
