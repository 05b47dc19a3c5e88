"""Binary: one response that is desirable or not."""

from jalign import losses
from jalign.core.format import Arrays, AuxLoss, Format
from jalign.core.reductions import (
    mean_over_examples,
)
from jalign.formats._fields import Metrics, at_last_token, length, sum_over_response
from jalign.layout import Batch

_BINARY_READS = {"logps": "token_logps", "kl_logps": "token_logps", "scores": "scores"} | {
    name: name for name in ("token_logps", "competitor_logps", "kl_from_ref")
}


def _binary(out: Arrays, batch: Batch) -> Arrays:
    """Response 0 is the labeled one; response 1, where there is one, belongs to another prompt."""
    own = batch.mask[:, 0]
    named = {"present": own.any(-1), "len": length(own), "mask": own}
    # KTO estimates its baseline z0 on prompts paired with other prompts' responses
    other = batch.mask[:, 1] if batch.mask.shape[1] > 1 else None
    if other is not None:
        named["kl_present"] = other.any(-1)
    if "token_logps" in out:
        named["logps"] = sum_over_response(out["token_logps"][:, 0], own)
        named["token_logps"] = out["token_logps"][:, 0]
        if other is not None:
            named["kl_logps"] = sum_over_response(out["token_logps"][:, 1], other)
    if "kl_from_ref" in out:
        named["kl_from_ref"] = sum_over_response(out["kl_from_ref"][:, 0], own)
    if "competitor_logps" in out:
        named["competitor_logps"] = out["competitor_logps"][:, 0]
    if "scores" in out:
        named["scores"] = at_last_token(out["scores"][:, 0], own)
    return named


def _binary_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    # a copy, since `pop` below must not change the caller's
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
    data_fields=frozenset({"annotator", "label", "density_ratio"}),
    axes=dict.fromkeys(("token_logps", "ref_token_logps", "competitor_logps", "mask"), "BR"),
    metrics=_binary_metrics,
    aux_losses={
        "nll_coef": AuxLoss(losses.nll_desirable, 0.0, mean_over_examples),
        "kl_coef": AuxLoss(losses.forward_kl_per_token, 0.0, mean_over_examples, is_kl=True),
    },
    feedback="binary",
    class_weights=("desirable_weight", "undesirable_weight"),
)
