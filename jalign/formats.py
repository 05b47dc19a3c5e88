"""Supervised text, pairs and binary labels as views of one `[B, K, R]` batch."""

import jax.numpy as jnp
from jax import Array

from jalign.core import Arrays, Batch, Format

Metrics = dict[str, tuple[Array, Array]]


def _sum(x: Array, mask: Array) -> Array:
    """Sum over scored tokens; what stands at unscored places, NaN too, does not count."""
    return jnp.sum(jnp.where(mask, x, 0.0), axis=-1)


def _last(x: Array, mask: Array) -> Array:
    """Value at the last scored token; the scored tokens of a response stand first."""
    at = jnp.maximum(jnp.sum(mask, -1) - 1, 0)
    return jnp.take_along_axis(x, at[..., None], axis=-1)[..., 0]


def _length(mask: Array) -> Array:
    """Scored tokens, at least 1 so that an empty place divides by something."""
    return jnp.maximum(jnp.sum(mask, -1), 1).astype(jnp.float32)


def _wins(a: Array, b: Array) -> Array:
    """1 where a > b; a tie is half a win, so that a policy that equals its reference stands at
    0.5.
    """
    return jnp.where(a == b, 0.5, (a > b).astype(jnp.float32))


def _supervised(out: Arrays, batch: Batch) -> Arrays:
    named = {"mask": batch.mask[:, 0], "present": batch.present}
    if "token_logps" in out:
        named["token_logps"] = out["token_logps"][:, 0]
    return named


def _supervised_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    return {name: (x, fields["mask"]) for name, x in metrics.items()}


def _pairs(out: Arrays, batch: Batch) -> Arrays:
    named = {"present": batch.present}
    for i, who in enumerate(("chosen", "rejected")):
        mask = batch.mask[:, i]
        named[f"{who}_len"] = _length(mask)
        if "token_logps" in out:
            named[f"{who}_logps"] = _sum(out["token_logps"][:, i], mask)
        if "scores" in out:
            named[f"{who}_scores"] = _last(out["scores"][:, i], mask)
    return named


def _pair_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    metrics = dict(metrics)
    if "chosen_rewards" in metrics:
        chosen, rejected = metrics.pop("chosen_rewards"), metrics.pop("rejected_rewards")
        metrics |= {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": _wins(chosen, rejected),
            "rewards/margins": chosen - rejected,
        }
    for who in ("chosen", "rejected"):
        if f"{who}_logps" in fields:
            metrics[f"logps/{who}"] = fields[f"{who}_logps"]
    if "chosen_logps" in fields:
        metrics["logps/accuracies"] = _wins(fields["chosen_logps"], fields["rejected_logps"])
    return {name: (x, fields["present"]) for name, x in metrics.items()}


def _binary(out: Arrays, batch: Batch) -> Arrays:
    """Response 0 is the labelled one; response 1, where there is one, belongs to another prompt."""
    own, other = batch.mask[:, 0], batch.mask[:, 1]
    named = {"present": own.any(-1), "kl_present": other.any(-1), "len": _length(own)}
    if "token_logps" in out:
        named["logps"] = _sum(out["token_logps"][:, 0], own)
        named["kl_logps"] = _sum(out["token_logps"][:, 1], other)
    return named


def _binary_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    metrics, present = dict(metrics), fields["present"]
    good, bad = present & (fields["label"] > 0), present & ~(fields["label"] > 0)
    named = {"logps/chosen": (fields["logps"], good), "logps/rejected": (fields["logps"], bad)}
    if "rewards" in metrics:
        rewards = metrics.pop("rewards")
        named |= {"rewards/chosen": (rewards, good), "rewards/rejected": (rewards, bad)}
    return named | {name: (x, present) for name, x in metrics.items()}


SUPERVISED = Format(
    name="supervised",
    k=1,
    view=_supervised,
    reads={"token_logps": ("token_logps",)},
    mask_fields=frozenset({"mask", "present"}),
    data_fields=frozenset(),
    metrics=_supervised_metrics,
)
PAIRS = Format(
    name="pairs",
    k=2,
    view=_pairs,
    reads={
        "chosen_logps": ("token_logps",),
        "rejected_logps": ("token_logps",),
        "chosen_scores": ("scores",),
        "rejected_scores": ("scores",),
    },
    mask_fields=frozenset({"chosen_len", "rejected_len", "present"}),
    data_fields=frozenset({"margin"}),
    metrics=_pair_metrics,
)
BINARY = Format(
    name="binary",
    k=2,
    view=_binary,
    reads={"logps": ("token_logps",), "kl_logps": ("token_logps",)},
    mask_fields=frozenset({"present", "kl_present", "len"}),
    data_fields=frozenset({"label"}),
    metrics=_binary_metrics,
)
FORMATS = {f.name: f for f in (SUPERVISED, PAIRS, BINARY)}
