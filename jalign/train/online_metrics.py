"""Metrics of a rollout, under TRL's names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain

import jax.numpy as jnp
import numpy as np

from jalign.advantages import explained_variance
from jalign.rollout.types import Rollout


def means_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of the finite values of each name; NaN if there are none."""
    names = dict.fromkeys(name for row in rows for name in row)
    known = {n: [row[n] for row in rows if n in row and np.isfinite(row[n])] for n in names}
    return {n: float(np.mean(x)) if x else float("nan") for n, x in known.items()}


def score_metrics(scores: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Mean and spread of the reward, and how many groups teach nothing."""
    known = np.where(valid, scores, np.nan)
    if not valid.any():
        return {"reward": float("nan")}
    # numpy warns about a group without any reward and gives NaN.
    some = valid.any(-1)
    spread = np.nanstd(known[some], -1)
    return {
        "reward": float(np.nanmean(known)),
        "reward_std": float(np.mean(spread)),
        "frac_reward_zero_std": float(np.mean(spread == 0)),
    }


def length_metrics(lengths: np.ndarray, finished: np.ndarray) -> dict[str, float]:
    """Tokens per response, and the fraction truncated by the limit, of [B, K] responses."""
    return {
        "completions/mean_length": float(np.mean(lengths)),
        "completions/clipped_ratio": float(1 - finished.mean()),
    }


def diversity_metrics(rollout: Rollout) -> dict[str, float]:
    """Diversity of all responses together, whatever their prompts."""
    responses = [ids.tolist() for ids in rollout.responses()]
    return {"completions/distinct_2": distinct(responses, 2)}


def distinct(responses: Sequence[Sequence[Hashable]], n: int) -> float:
    """Distinct n-grams over all n-grams of the responses together, in (0, 1]; 0 if there are none.

    distinct-n of Li et al. 2016, https://arxiv.org/abs/1510.03055, there of words, here of token
    ids, the EOS included. More text repeats more: compare as many responses of about the same
    length.

    >>> distinct([[1, 2, 3], [1, 2]], 2)  # (1, 2) twice and (2, 3)
    0.6666666666666666
    """
    grams = list(
        chain.from_iterable(zip(*(r[i:] for i in range(n)), strict=False) for r in responses)
    )
    return len(set(grams)) / len(grams) if grams else 0.0


# inputs of `logp_metrics`
LOGPS = ("old_token_logps", "ref_token_logps", "teacher_token_logps", "sampler_token_logps")


def logp_metrics(arrays: Mapping[str, np.ndarray], mask: np.ndarray) -> dict[str, float]:
    """KL of the policy to its reference and to a teacher with another prompt (k1, nats per
    response), and sampler against trainer: `rollout/kl_to_trainer` is KL(sampler || trainer), nats
    per token.
    """
    metrics: dict[str, float] = {}
    kl = {"objective/kl": "ref_token_logps", "objective/kl_to_teacher": "teacher_token_logps"}
    for metric, of in kl.items():
        if {"old_token_logps", of} <= set(arrays):
            k1 = np.where(mask, arrays["old_token_logps"] - arrays[of], 0)
            metrics[metric] = float(k1.sum(-1).mean())
    if "old_token_logps" in arrays:
        off = np.abs(arrays["old_token_logps"] - arrays["sampler_token_logps"])[mask]
        metrics["sampling/logp_difference_mean"] = float(off.mean()) if off.size else 0.0
        metrics["sampling/logp_difference_max"] = float(off.max(initial=0))
        gap = arrays["old_token_logps"] - arrays["sampler_token_logps"]
        gap = np.where(mask, np.clip(gap.astype(np.float64), -20, 20), 0)
        # as `formats.kl_to_trainer`: the mean of each response, then over responses
        kl = (np.expm1(gap) - gap).sum(-1) / np.maximum(mask.sum(-1), 1)
        written = mask.any(-1)
        metrics["rollout/kl_to_trainer"] = float(kl[written].mean()) if written.any() else 0.0
    return metrics


def critic_metrics(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How much of the returns' variance the critic explains; {} without a critic."""
    if not {"values", "returns"} <= set(arrays):
        return {}
    values, returns, mask = (jnp.asarray(arrays[n]) for n in ("values", "returns", "mask"))
    return {"value/explained_variance": float(explained_variance(values, returns, mask))}
