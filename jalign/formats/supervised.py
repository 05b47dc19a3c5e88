"""Supervised: one response per prompt, with a loss per scored token."""

from jalign import losses
from jalign.core.format import Arrays, AuxLoss, Format
from jalign.core.reductions import (
    mean_over_tokens,
)
from jalign.formats._fields import Metrics, kl_to_trainer, logged, per_token
from jalign.layout import Batch

_PER_TOKEN = ("token_logps", "kl_to_ref", "kl_from_ref", "jsd_to_ref")


def _supervised(out: Arrays, batch: Batch) -> Arrays:
    # the mask is a field, since the loss is one value per token and only the reduction masks it
    mask = batch.mask[:, 0]
    named = {"mask": mask, "present": mask.any(-1)}
    named |= kl_to_trainer(out, batch, lambda x: x[:, 0])
    return named | {name: out[name][:, 0] for name in _PER_TOKEN if name in out}


def _supervised_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    return per_token(fields, metrics) | logged(fields)


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
