"""Policy gradients of 2025 and 2026 with other bounds than PPO's clip: gates, masks and weights."""

from jalign import experience, losses
from jalign.algorithms._shared import rl
from jalign.core import mean_over_examples, mean_over_responses, sum_over_longest

TRUST_REGION = (
    rl(
        # the paper's mean, whose gate needs no mean over tokens to hold long responses
        "sapo",
        losses.sapo,
        "2511.20347",
        experience.group_normalized,
        8,
        reduce=mean_over_responses,
        about="grpo's advantages with a smooth gate in place of the clip (Qwen): a token that has "
        "moved keeps part of its gradient, less of it where A < 0. The mean is over responses of "
        "means over their tokens, as in the paper and TRL. KL terms that are set are means over "
        "all tokens of the step.",
    ),
    rl(
        # mean over examples: the loss has one value per response
        "gmpo",
        losses.gmpo,
        "2507.20673",
        experience.group_normalized,
        8,
        reduce=mean_over_examples,
        about="grpo with the geometric mean of a response's ratios, each clipped by itself at "
        "exp(0.4) on the side that the advantage pulls to: wider than PPO's clip, and without its "
        "outliers. KL terms that are set are means over all tokens of the step.",
    ),
    rl(
        "vespo",
        losses.vespo,
        "2602.10693",
        experience.group_normalized,
        8,
        about="grpo's advantages on REINFORCE with a smooth weight of the response's importance "
        "ratio, which is 1 on-policy and falls to 0 for responses that are far off: for stale "
        "samples. The mean over all tokens of the step, as in TRL.",
    ),
    rl(
        # a constant divisor, as in dr_grpo, and its advantages
        "dppo_tv",
        losses.dppo_tv,
        "2602.04879",
        experience.group_centred,
        8,
        reduce=sum_over_longest,
        about="A trust region in probabilities: tokens whose probability has moved by more than "
        "0.15 are left out, the others have a detached ratio, at most 20. The sum over tokens is "
        "divided by responses * rollout.max_new_tokens and advantages are dr_grpo's, as in the "
        "authors' runs (verl, examples/dppo_trainer).",
    ),
    rl(
        "dppo_kl",
        losses.dppo_kl,
        "2602.04879",
        experience.group_centred,
        8,
        reduce=sum_over_longest,
        about="dppo_tv with the binary KL(old || new) of a token, at most 0.05 nats, as its "
        "distance: it also frees rare tokens, and holds a token that becomes certain sooner.",
    ),
    rl(
        "clip_cov",
        losses.clip_cov,
        "2505.22617",
        experience.random_high_covariance,
        8,
        about="grpo's advantages and PPO's clip, with a few random tokens left out of those whose "
        "log-prob and advantage go together most: their gradient is what makes the entropy fall. "
        "The mean over all tokens of the step, no KL.",
    ),
    rl(
        "kl_cov",
        losses.kl_cov,
        "2505.22617",
        experience.highest_covariance,
        8,
        about="clip_cov with a penalty |log ratio| on the tokens of highest covariance, and no "
        "clip; the penalty is felt from the second step of a rollout on. cov_kl_coef 1 is the "
        "paper's, verl's config has 0.1; a share of 2e-4 of the tokens is marked.",
    ),
)
