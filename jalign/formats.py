"""The kinds of data an algorithm learns from, as views of one `[B, K, R]` batch."""

import jax
import jax.numpy as jnp
from jax import Array

from jalign import losses
from jalign.core.format import Arrays, AuxLoss, Format
from jalign.core.reductions import (
    mean_over_chosen_tokens,
    mean_over_examples,
    mean_over_pretraining_tokens,
    mean_over_tokens,
)
from jalign.layout import Batch

Metrics = dict[str, tuple[Array, Array]]


def _sum(x: Array, mask: Array) -> Array:
    """Sum over scored tokens; what stands at unscored places, NaN too, does not count."""
    return jnp.sum(jnp.where(mask, x, 0.0), axis=-1)


def _last(x: Array, mask: Array) -> Array:
    """Value at the last scored token; the scored tokens of a response stand first."""
    at = jnp.maximum(jnp.sum(mask, -1) - 1, 0)
    at = at.reshape(*at.shape, *[1] * (x.ndim - at.ndim))
    return jnp.take_along_axis(x, at, axis=mask.ndim - 1).squeeze(mask.ndim - 1)


def _length(mask: Array) -> Array:
    """Scored tokens, at least 1 so that an empty place divides by something."""
    return jnp.maximum(jnp.sum(mask, -1), 1).astype(jnp.float32)


def _wins(a: Array, b: Array) -> Array:
    """1 where a > b; a tie is half a win, so that a policy that equals its reference stands at
    0.5.
    """
    return jnp.where(a == b, 0.5, (a > b).astype(jnp.float32))


def _plain(fields: Arrays, metrics: Arrays) -> Metrics:
    return {name: (x, fields["present"]) for name, x in metrics.items()}


# ---- supervised: one response per prompt, every scored token an example of its own

_PER_TOKEN = ("token_logps", "kl_to_ref", "kl_from_ref", "jsd_to_ref")


def _supervised(out: Arrays, batch: Batch) -> Arrays:
    named = {"mask": batch.mask[:, 0], "present": batch.present}
    return named | {name: out[name][:, 0] for name in _PER_TOKEN if name in out}


def _supervised_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    return {name: (x, fields["mask"]) for name, x in metrics.items()}


SUPERVISED = Format(
    name="supervised",
    k=1,
    view=_supervised,
    reads={name: (name,) for name in _PER_TOKEN},
    mask_fields=frozenset({"mask", "present"}),
    data_fields=frozenset(),
    axes=dict.fromkeys(("mask", *_PER_TOKEN, *(f"ref_{n}" for n in _PER_TOKEN)), "BR"),
    metrics=_supervised_metrics,
    aux_losses={
        "nll_coef": AuxLoss(losses.sft, 0.0, mean_over_tokens),
        "kl_coef": AuxLoss(losses.forward_kl, 0.0, mean_over_tokens, is_kl=True),
    },
    feedback="none",
)


# ---- pairs: a chosen and a rejected response

_SIDES = ("chosen", "rejected")
_SUMMED = {"logps": "token_logps", "log_sum_p_squared": None, "kl_from_ref": None}
_OF_TOKENS = ("token_logps", "token_scores", "competitor_logps")


def _pairs(out: Arrays, batch: Batch) -> Arrays:
    named = {"present": batch.present}
    for i, who in enumerate(_SIDES):
        mask = batch.mask[:, i]
        named |= {f"{who}_len": _length(mask), f"{who}_mask": mask}
        for name, read in _SUMMED.items():
            if (read or name) in out:
                named[f"{who}_{name}"] = _sum(out[read or name][:, i], mask)
        if "scores" in out:
            named[f"{who}_scores"] = _last(out["scores"][:, i], mask)
        for name in _OF_TOKENS:
            if (read := name.replace("token_scores", "scores")) in out:
                named[f"{who}_{name}"] = out[read][:, i]
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
    for who in _SIDES:
        if f"{who}_logps" in fields:
            metrics[f"logps/{who}"] = fields[f"{who}_logps"]
    if {"chosen_logps", "rejected_logps"} <= set(fields):
        metrics["logps/accuracies"] = _wins(fields["chosen_logps"], fields["rejected_logps"])
    return _plain(fields, metrics)


_PAIR_READS = {"logps": "token_logps", "token_logps": "token_logps", "scores": "scores"} | {
    "token_scores": "scores",
    "log_sum_p_squared": "log_sum_p_squared",
    "kl_from_ref": "kl_from_ref",
    "competitor_logps": "competitor_logps",
}
PAIRS = Format(
    name="pairs",
    k=2,
    view=_pairs,
    reads={f"{who}_{name}": (read,) for who in _SIDES for name, read in _PAIR_READS.items()},
    mask_fields=frozenset({"present", *(f"{w}_{n}" for w in _SIDES for n in ("len", "mask"))}),
    data_fields=frozenset(
        {"margin", "chosen_prob", "chosen_win_rate", "rejected_win_rate", "ref_response"}
    ),
    axes={
        f"{ref}{who}_{name}": "BR"
        for ref in ("", "ref_")
        for who in _SIDES
        for name in (*_OF_TOKENS, "mask")
    },
    metrics=_pair_metrics,
    aux_losses={
        "nll_coef": AuxLoss(losses.nll, 0.0, mean_over_chosen_tokens),
        "kl_coef": AuxLoss(losses.forward_kl_on_chosen, 0.0, mean_over_chosen_tokens, is_kl=True),
        "length_coef": AuxLoss(losses.length_margin, 0.0, mean_over_examples),
    },
    feedback="pair",
)


# ---- binary: one response that is desirable or not

_BINARY_READS = {"logps": "token_logps", "kl_logps": "token_logps", "scores": "scores"} | {
    name: name for name in ("token_logps", "competitor_logps", "kl_from_ref")
}


def _binary(out: Arrays, batch: Batch) -> Arrays:
    """Response 0 is the labelled one; response 1, where there is one, belongs to another prompt."""
    own = batch.mask[:, 0]
    named = {"present": own.any(-1), "len": _length(own), "mask": own}
    other = batch.mask[:, 1] if batch.mask.shape[1] > 1 else None
    if other is not None:
        named["kl_present"] = other.any(-1)
    if "token_logps" in out:
        named["logps"] = _sum(out["token_logps"][:, 0], own)
        named["token_logps"] = out["token_logps"][:, 0]
        if other is not None:
            named["kl_logps"] = _sum(out["token_logps"][:, 1], other)
    if "kl_from_ref" in out:
        named["kl_from_ref"] = _sum(out["kl_from_ref"][:, 0], own)
    if "competitor_logps" in out:
        named["competitor_logps"] = out["competitor_logps"][:, 0]
    if "scores" in out:
        named["scores"] = _last(out["scores"][:, 0], own)
    return named


def _binary_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    metrics, present = dict(metrics), fields["present"]
    good, bad = present & (fields["label"] > 0.5), present & ~(fields["label"] > 0.5)
    named = {}
    if "logps" in fields:
        named |= {"logps/chosen": (fields["logps"], good), "logps/rejected": (fields["logps"], bad)}
    if "rewards" in metrics:
        rewards = metrics.pop("rewards")
        named |= {"rewards/chosen": (rewards, good), "rewards/rejected": (rewards, bad)}
    per_token = {name: (x, fields["mask"]) for name, x in metrics.items() if x.ndim > 1}
    return named | per_token | {n: (x, present) for n, x in metrics.items() if x.ndim == 1}


BINARY = Format(
    name="binary",
    k=None,  # 2 where a loss reads `kl_` arrays: the mismatched response
    view=_binary,
    reads={name: (read,) for name, read in _BINARY_READS.items()},
    mask_fields=frozenset({"present", "kl_present", "len", "mask"}),
    data_fields=frozenset({"label", "density_ratio"}),
    axes=dict.fromkeys(("token_logps", "ref_token_logps", "competitor_logps", "mask"), "BR"),
    metrics=_binary_metrics,
    aux_losses={
        "nll_coef": AuxLoss(losses.nll_desirable, 0.0, mean_over_examples),
        "kl_coef": AuxLoss(losses.forward_kl_per_token, 0.0, mean_over_examples, is_kl=True),
    },
    feedback="binary",
    class_weights=("desirable_weight", "undesirable_weight"),
)


# ---- rated: one response with a number, or one number per attribute


def _rated(out: Arrays, batch: Batch) -> Arrays:
    mask = batch.mask[:, 0]
    named = {"present": batch.present, "len": _length(mask), "mask": mask}
    if "token_logps" in out:
        named["logps"] = _sum(out["token_logps"][:, 0], mask)
    if "scores" in out:
        named["scores"] = _last(out["scores"][:, 0], mask)
    if "attributes" in out:
        named["attribute_scores"] = _last(out["attributes"][:, 0], mask)
    if "values" in out:
        named["token_values"] = out["values"][:, 0]
    return named


RATED = Format(
    name="rated",
    k=1,
    view=_rated,
    reads={"logps": ("token_logps",), "scores": ("scores",), "token_values": ("values",)}
    | {"attribute_scores": ("attributes",)},
    mask_fields=frozenset({"present", "len", "mask"}),
    data_fields=frozenset({"rating", "attribute_ratings"}),
    axes={"token_values": "BR", "mask": "BR", "attribute_scores": "BA", "attribute_ratings": "BA"},
    metrics=_plain,
    feedback="rating",
)


# ---- lists: K rated responses to a prompt


def _lists(out: Arrays, batch: Batch) -> Arrays:
    mask = batch.mask
    named = {"present": batch.present, "valid": mask.any(-1), "lens": _length(mask)}
    if "token_logps" in out:
        named["logps"] = _sum(out["token_logps"], mask)
    if "scores" in out:
        named["scores"] = _last(out["scores"], mask)
    return named


def _list_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    """`rewards` [B, K] becomes the reward of the best and of the worst response and the share of
    pairs of different rating that the rewards put in the right order.
    """
    metrics = dict(metrics)
    ratings, valid = fields["ratings"], fields["valid"]
    best = jnp.argmax(jnp.where(valid, ratings, -jnp.inf), -1)[:, None]
    worst = jnp.argmin(jnp.where(valid, ratings, jnp.inf), -1)[:, None]

    def at(x: Array, i: Array) -> Array:
        return jnp.take_along_axis(x, i, -1)[:, 0]

    if "rewards" in metrics:
        rewards = metrics.pop("rewards")
        above = ratings[:, :, None] > ratings[:, None, :]
        above &= valid[:, :, None] & valid[:, None, :]
        right = jnp.where(above, _wins(rewards[:, :, None], rewards[:, None, :]), 0.0)
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
    return _plain(fields, metrics)


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


# ---- stepwise: one response whose steps are judged at their last tokens


def _stepwise(out: Arrays, batch: Batch) -> Arrays:
    mask = batch.mask[:, 0]
    named = {"present": batch.present, "mask": mask}
    if "step_labels" in batch.extras:
        labels = batch.extras["step_labels"].reshape(mask.shape[0], -1)
        # where every example has one step, the data say so with one column
        missing = mask.shape[1] - labels.shape[1]
        named["step_labels"] = jnp.pad(labels, ((0, 0), (0, missing)))
    if "scores" in out:
        named["token_scores"] = out["scores"][:, 0]
    return named


STEPWISE = Format(
    name="stepwise",
    k=1,
    view=_stepwise,
    reads={"token_scores": ("scores",)},
    mask_fields=frozenset({"present", "mask"}),
    data_fields=frozenset({"step_labels"}),
    axes=dict.fromkeys(("token_scores", "step_labels", "mask"), "BR"),
    metrics=_supervised_metrics,
    feedback="steps",
)

# ---- samples: responses of the policy itself, each an example of its own

_SAMPLE_READS = ("token_logps", "entropy", "values", "kl_to_ref")
_SAMPLE_DATA = ("old_token_logps", "advantages", "returns", "old_values", "win_prob")


def _samples(out: Arrays, batch: Batch) -> Arrays:
    """[B, K, ...] becomes [B * K, ...]. Without `old_token_logps` the policy that sampled is the
    one that is trained, and its log-probs are the present ones.
    """

    def flat(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:])

    mask = flat(batch.mask)
    text = jnp.zeros_like(mask)  # pretraining text, which stands beside the samples
    if "pretraining" in batch.extras:
        flag = (batch.extras["pretraining"] > 0.5)[:, None, None]
        mask, text = flat(batch.mask & ~flag), flat(batch.mask & flag)
    named = {"mask": mask, "present": mask.any(-1), "lens": _length(mask)}
    named |= {"pretraining_mask": text}
    named |= {name: flat(out[name]) for name in _SAMPLE_READS if name in out}
    named |= {n: flat(x) for n, x in batch.extras.items() if n in _SAMPLE_DATA}
    if "token_logps" in out and "old_token_logps" not in named:
        named["old_token_logps"] = jax.lax.stop_gradient(named["token_logps"])
    return named


def _sample_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    by_ndim = {1: fields["present"], 2: fields["mask"]}
    return {name: (x, by_ndim[x.ndim]) for name, x in metrics.items()}


SAMPLES = Format(
    name="samples",
    k=None,
    view=_samples,
    reads={name: (name,) for name in _SAMPLE_READS},
    mask_fields=frozenset({"mask", "present", "lens", "pretraining_mask"}),
    data_fields=frozenset(_SAMPLE_DATA),
    axes=dict.fromkeys(
        (
            "mask",
            "pretraining_mask",
            *_SAMPLE_READS,
            *(f"ref_{n}" for n in _SAMPLE_READS),
            *_SAMPLE_DATA[:-1],
        ),
        "BR",
    ),
    metrics=_sample_metrics,
    aux_losses={
        "kl_k2_coef": AuxLoss(losses.kl_k2, 0.0, mean_over_tokens, is_kl=True),
        "kl_k3_coef": AuxLoss(losses.kl_k3, 0.0, mean_over_tokens, is_kl=True),
        "kl_k3_ratio_coef": AuxLoss(losses.kl_k3_ratio, 0.0, mean_over_tokens, is_kl=True),
        "kl_exact_coef": AuxLoss(losses.kl_exact, 0.0, mean_over_tokens, is_kl=True),
        "entropy_coef": AuxLoss(losses.entropy_bonus, 0.0, mean_over_tokens),
        "ptx_coef": AuxLoss(losses.pretraining_nll, 0.0, mean_over_pretraining_tokens),
    },
    feedback="score",
    policy_samples=True,
)

FORMATS = {f.name: f for f in (SUPERVISED, PAIRS, BINARY, RATED, LISTS, STEPWISE, SAMPLES)}
