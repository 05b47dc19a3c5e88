"""Experiences: how an online method turns a rollout into training data, as pure functions.

A function reads arrays of a rollout by the names of its positional parameters (`core.ROLLOUT`) and
returns data fields of its format, and perhaps `take` [B, k], the responses that become the example,
and `keep` [B], the prompts that become one. Keyword-only parameters are hyper-parameters of the
algorithm. `advantages` and `baselines` weigh every response, `selection` picks some, `tokens` has
their steps.

Letters: B prompts, K responses per prompt, R tokens per response. Log-probs and KL are in nats. The
log-probs are those of the policy that sampled, so log p - log p_ref (k1) is an unbiased estimate of
the KL divergence, and its sum over a response is the KL of the response.
"""

from jalign.experience.advantages import (
    gae,
    gae_length_adaptive,
    gae_whitened,
    group_centred,
    group_mean_whitened,
    group_normalized,
    informative_groups,
    leave_one_out,
    minus_greedy,
    returns_minus_batch_mean,
    returns_minus_value,
    returns_whitened,
    steps_normalized,
    win_rate_leave_one_out,
    win_rates,
    win_rates_over_others,
)
from jalign.experience.baselines import (
    gdpo,
    lite_ppo,
    maxrl,
    opo,
    optimal_advantage,
    otb,
    others_mean,
    pass_at_k,
)
from jalign.experience.covariance import highest_covariance, random_high_covariance
from jalign.experience.distillation import reverse_kl, self_distilled, weighted_reverse_kl
from jalign.experience.relative import relative_to
from jalign.experience.selection import (
    against_last,
    best,
    best_and_worst,
    best_and_worst_win_rate,
    best_and_worst_with_margin,
    best_and_worst_with_origin,
    data_against_sample,
    everything,
    optimistic_pair,
    pair_against_last,
    rejection_sampled,
    top_share,
)

__all__ = [
    "against_last",
    "best",
    "best_and_worst",
    "best_and_worst_win_rate",
    "best_and_worst_with_margin",
    "best_and_worst_with_origin",
    "data_against_sample",
    "everything",
    "gae",
    "gae_length_adaptive",
    "gae_whitened",
    "gdpo",
    "group_centred",
    "group_mean_whitened",
    "group_normalized",
    "highest_covariance",
    "informative_groups",
    "leave_one_out",
    "lite_ppo",
    "maxrl",
    "minus_greedy",
    "opo",
    "optimal_advantage",
    "optimistic_pair",
    "otb",
    "others_mean",
    "pair_against_last",
    "pass_at_k",
    "random_high_covariance",
    "rejection_sampled",
    "relative_to",
    "returns_minus_batch_mean",
    "returns_minus_value",
    "returns_whitened",
    "reverse_kl",
    "self_distilled",
    "steps_normalized",
    "top_share",
    "weighted_reverse_kl",
    "win_rate_leave_one_out",
    "win_rates",
    "win_rates_over_others",
]
