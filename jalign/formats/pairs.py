"""Pairs: a chosen and a rejected response."""

from dataclasses import replace

import jax.numpy as jnp

from jalign import losses
from jalign.core.format import Arrays, AuxLoss, Format
from jalign.core.reductions import (
    mean_over_chosen_tokens,
    mean_over_examples,
)
from jalign.formats._fields import (
    Metrics,
    at_last_token,
    kl_to_trainer,
    length,
    logged,
    per_example,
    sum_over_response,
    wins,
)
from jalign.layout import Batch

_SIDES = ("chosen", "rejected")  # slots 0 and 1 of K, the order in which data packs a pair
# None: the scorer's output has the same name
# kl_to_ref and entropy of the reference weigh pairs; their gradient is read by no loss
_SUMMED = {"logps": "token_logps"} | dict.fromkeys(
    ("log_sum_p_squared", "kl_from_ref", "kl_to_ref", "entropy")
)
_OF_TOKENS = ("token_logps", "token_scores", "competitor_logps")


def _pairs(out: Arrays, batch: Batch) -> Arrays:
    named = {"present": batch.mask.any((1, 2))}
    # of both responses, which have about as many tokens
    named |= kl_to_trainer(out, batch, lambda x: jnp.nanmean(x, -1))
    for i, who in enumerate(_SIDES):
        mask = batch.mask[:, i]
        named |= {f"{who}_len": length(mask), f"{who}_mask": mask}
        for name, read in _SUMMED.items():
            if (read or name) in out:
                named[f"{who}_{name}"] = sum_over_response(out[read or name][:, i], mask)
        if "scores" in out:
            named[f"{who}_scores"] = at_last_token(out["scores"][:, i], mask)
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
            "rewards/accuracies": wins(chosen, rejected),
            "rewards/margins": chosen - rejected,
        }
    for who in _SIDES:
        if f"{who}_logps" in fields:
            metrics[f"logps/{who}"] = fields[f"{who}_logps"]
    if {"chosen_logps", "rejected_logps"} <= set(fields):
        metrics["logps/accuracies"] = wins(fields["chosen_logps"], fields["rejected_logps"])
    return per_example(fields, metrics) | logged(fields)


_PAIR_READS = {"logps": "token_logps", "token_logps": "token_logps", "scores": "scores"} | {
    "token_scores": "scores",
    "log_sum_p_squared": "log_sum_p_squared",
    "kl_from_ref": "kl_from_ref",
    "kl_to_ref": "kl_to_ref",
    "entropy": "entropy",
    "competitor_logps": "competitor_logps",
}
PAIRS = Format(
    name="pairs",
    k=2,
    view=_pairs,
    reads={f"{who}_{name}": (read,) for who in _SIDES for name, read in _PAIR_READS.items()},
    mask_fields=frozenset({"present", *(f"{w}_{n}" for w in _SIDES for n in ("len", "mask"))}),
    data_fields=frozenset(
        {
            "annotator",
            "margin",
            "chosen_prob",
            "chosen_win_rate",
            "rejected_win_rate",
            "ref_response",
        }
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


# Both candidates are in one prompt, and the model answers "A" or "B": likelihoods and lengths of
# single responses do not exist.
JOINT = replace(PAIRS, name="joint", aux_losses={}, joint_prompt=True)
