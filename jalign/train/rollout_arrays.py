"""The arrays of a rollout that an experience reads (`core.ROLLOUT`), and their metrics."""

from __future__ import annotations

import jax
import numpy as np

from jalign.core import Algorithm
from jalign.rewards.types import Judged
from jalign.rollout.types import Rollout
from jalign.train.experience_fields import Arrays
from jalign.train.online_metrics import LOGPS, length_metrics, logp_metrics
from jalign.train.reward_arrays import reward_arrays
from jalign.train.rollout_spec import RolloutSpec


def rollout_arrays(
    algorithm: Algorithm,
    spec: RolloutSpec,
    rollout: Rollout,
    judged: Judged,
    greedy: Judged | None,
    key: jax.Array,
) -> tuple[Arrays, dict[str, float]]:
    """All arrays that no model computes, and the metrics of rewards.

    Args:
      rollout: with R = spec.response_len.
      judged: its rewards.
      greedy: rewards of the most probable responses, [B, 1], where the method compares with them.
      key: of the rollout.
    """
    read, (b, k) = set(algorithm.rollout_inputs()), rollout.finished.shape
    by_policy = policy_columns(algorithm, k)
    arrays, valid, metrics = reward_arrays(algorithm, judged, spec.response_len, by_policy)
    # A sampler that was interrupted leaves prompts without responses.
    valid = valid & rollout.mask.any(-1)
    if greedy is not None:
        assert greedy.scores is not None
        known = np.isfinite(greedy.scores[:, 0])  # no baseline: the prompt is not learned from
        arrays["greedy_scores"] = np.where(known, greedy.scores[:, 0], 0.0).astype(np.float32)
        valid &= known[:, None]
        metrics["rewards/greedy_failed"] = float((~known).sum())
    if spec.mask_truncated and not algorithm.format.policy_samples:
        # Truncated responses are never selected as best, chosen or rejected.
        valid &= rollout.finished
    if "uniforms" in read:
        uniform_key = jax.random.fold_in(key, 1 << 21)  # samplers fold in smaller numbers
        arrays["uniforms"] = np.asarray(jax.random.uniform(uniform_key, (b, k, k)))
    if "token_uniforms" in read:
        uniform_key = jax.random.fold_in(key, 1 << 22)
        arrays["token_uniforms"] = np.asarray(jax.random.uniform(uniform_key, rollout.mask.shape))
    arrays |= {
        "finished": rollout.finished,
        "valid": valid,
        "mask": rollout.mask & valid[..., None],
        "sampler_token_logps": rollout.token_logps,
    }
    return arrays, metrics


def rollout_metrics(algorithm: Algorithm, rollout: Rollout, arrays: Arrays) -> dict[str, float]:
    """Lengths, KL and the distance of sampler and trainer, of the responses of the policy."""
    by_policy = policy_columns(algorithm, rollout.finished.shape[1])
    logps = {n: arrays[n][:, by_policy] for n in LOGPS if n in arrays}
    mask, finished = rollout.mask[:, by_policy], rollout.finished[:, by_policy]
    return length_metrics(mask.sum(-1), finished) | logp_metrics(logps, mask)


def sampler_logps(algorithm: Algorithm, arrays: Arrays) -> np.ndarray:
    """[B, K, R] log-probs of the sampler; NaN for responses that the policy did not write."""
    logps = np.full_like(arrays["sampler_token_logps"], np.nan)
    by_policy = policy_columns(algorithm, logps.shape[1])
    logps[:, by_policy] = arrays["sampler_token_logps"][:, by_policy]
    return logps


def policy_columns(algorithm: Algorithm, responses: int) -> slice:
    """Which of the K responses the policy wrote; the opponent writes the last ones."""
    assert algorithm.experience is not None
    return slice(algorithm.experience.by_policy(responses))
