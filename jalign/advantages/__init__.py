"""Advantages and other transformations of rewards: pure functions of arrays, in float32.

Letters: B prompts, K responses per prompt, N responses, R tokens. Nothing here depends on a
model, a loss or a reduction. Entries outside of `valid` or a mask may be NaN.
"""

from jalign.advantages.baselines import (
    gdpo,
    lite_ppo,
    log_mean_exp,
    maxrl,
    opo,
    otb,
    pass_at_k,
)
from jalign.advantages.covariance import covariances, highest, random_between
from jalign.advantages.distillation import prefix_weights
from jalign.advantages.group import (
    batch_centred,
    greedy_baseline,
    group_centred,
    group_normalized,
    leave_one_out,
    process_advantages,
    win_rates,
    win_rates_over_others,
)
from jalign.advantages.selection import (
    best_and_worst,
    best_of_n_kl,
    expected_best_of_n,
    informative_groups,
    statistical_rejection,
    top_share,
)
from jalign.advantages.shaping import (
    adaptive_kl,
    clip_scores,
    importance_weights,
    missing_eos,
    soft_over_long,
)
from jalign.advantages.tokens import (
    explained_variance,
    gae,
    k1,
    k3,
    length_adaptive_lambda,
    rewards_to_go,
    token_rewards,
    whiten,
)

__all__ = [
    "adaptive_kl",
    "batch_centred",
    "best_and_worst",
    "best_of_n_kl",
    "clip_scores",
    "covariances",
    "expected_best_of_n",
    "explained_variance",
    "gae",
    "gdpo",
    "greedy_baseline",
    "group_centred",
    "group_normalized",
    "highest",
    "importance_weights",
    "informative_groups",
    "k1",
    "k3",
    "leave_one_out",
    "length_adaptive_lambda",
    "lite_ppo",
    "log_mean_exp",
    "maxrl",
    "missing_eos",
    "opo",
    "otb",
    "pass_at_k",
    "prefix_weights",
    "process_advantages",
    "random_between",
    "rewards_to_go",
    "soft_over_long",
    "statistical_rejection",
    "token_rewards",
    "top_share",
    "whiten",
    "win_rates",
    "win_rates_over_others",
]
