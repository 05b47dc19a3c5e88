"""Samples: responses of the policy itself, one example each."""

from functools import partial

import jax
import jax.numpy as jnp

from jalign import losses
from jalign.core.format import Arrays, AuxLoss, Format
from jalign.core.reductions import (
    mean_over_pretraining_tokens,
    mean_over_tokens,
)
from jalign.formats._fields import (
    Metrics,
    kl_to_trainer,
    length,
    logged,
)
from jalign.layout import Batch

_SAMPLE_READS = ("token_logps", "entropy", "values", "kl_to_ref")
_TOKEN_DATA = ("old_token_logps", "sampler_token_logps", "advantages", "returns", "old_values")
_TOKEN_DATA += ("high_covariance",)
_SAMPLE_DATA = (*_TOKEN_DATA, "win_prob", "correct")


def _samples(out: Arrays, batch: Batch) -> Arrays:
    """[B, K, ...] becomes [B * K, ...]. Without `old_token_logps` the policy that sampled is the
    one that is trained, and its log-probs are the present ones.
    """
    flat = partial(jax.lax.collapse, start_dimension=0, stop_dimension=2)
    mask = flat(batch.mask)
    text = jnp.zeros_like(mask)  # pretraining text beside the samples
    if "pretraining" in batch.extras:
        flag = (batch.extras["pretraining"] > 0.5)[:, None, None]
        mask, text = flat(batch.mask & ~flag), flat(batch.mask & flag)
    named = {"mask": mask, "present": mask.any(-1), "lens": length(mask)}
    named |= {"pretraining_mask": text} | kl_to_trainer(out, batch, flat)
    named |= {name: flat(out[name]) for name in _SAMPLE_READS if name in out}
    named |= {n: flat(x) for n, x in batch.extras.items() if n in _SAMPLE_DATA}
    if "token_logps" in out and "old_token_logps" not in named:
        # the ratio is then 1 in value and still has the gradient of the policy
        named["old_token_logps"] = jax.lax.stop_gradient(named["token_logps"])
    return named


def _sample_metrics(fields: Arrays, metrics: Arrays) -> Metrics:
    by_ndim = {1: fields["present"], 2: fields["mask"]}
    return {name: (x, by_ndim[x.ndim]) for name, x in metrics.items()} | logged(fields)


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
            *_TOKEN_DATA,
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
