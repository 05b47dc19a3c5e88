"""Policy gradients with a critic, or with a baseline from the rollout."""

from jalign import experience, losses
from jalign.algorithms._shared import rl
from jalign.core import (
    Algorithm,
    AuxLoss,
    Carry,
    Experience,
    mean_over_examples,
    mean_over_pretraining_tokens,
    mean_over_tokens,
)
from jalign.formats import SAMPLES

# k2: as a loss its gradient is that of KL(policy || reference), which k3's is not
_K2 = {"kl_k2_coef": AuxLoss(losses.kl_k2, 0.01, mean_over_tokens, is_kl=True)}
_PTX = {"ptx_coef": AuxLoss(losses.pretraining_nll, 0.05, mean_over_pretraining_tokens)}

POLICY = (
    rl(
        # one response per prompt: the baseline is the critic, not the other responses
        "ppo",
        losses.ppo,
        "2203.02155",
        experience.gae,
        1,
        about="PPO with a critic: the score at the last token, -kl_coef * k1 at every token, GAE, "
        "advantages whitened over the rollout. kl_coef is 0.05 as in TRL, InstructGPT's 0.02.",
    ),
    rl(
        "ppo_whitened",
        losses.ppo,
        "1909.08593",
        experience.gae_whitened,
        1,
        about="ppo whose rewards are scaled to a standard deviation of 1 before GAE, as in "
        "lm-human-preferences (TRL: whiten_rewards).",
    ),
    rl(
        "ppo_ema",
        losses.ppo,
        "2404.10719",
        experience.gae,
        1,
        defaults={"ref_sync_steps": 1, "ref_mixup_alpha": 0.001},
        about="ppo whose reference is a slow average of the policy: at every step (ref_sync_steps "
        "1) it takes ref_mixup_alpha 0.001 of it. So the KL penalty lets the policy go as far as "
        "it likes, slowly.",
    ),
    Algorithm(
        "vapo",
        losses.vapo,
        SAMPLES,
        "2504.05118",
        reduce=mean_over_tokens,
        # the steps of the critic are counted in a running value, which checkpoints keep
        carry=Carry(("value_steps",)),
        experience=Experience(experience.gae_length_adaptive, 16),
        about="PPO for long responses: the critic learns alone for value_pretraining_steps 50, its "
        "returns have lambda 1, the policy's advantages a lambda by the length of the response; "
        "clip_high 0.28, the mean over all tokens, no KL, and the likelihood of correct responses "
        "(score above 0) with weight positive_coef 0.1. 16 responses per prompt as in the paper.",
    ),
    rl(
        "ppo_ptx",
        losses.ppo,
        "2203.02155",
        experience.gae,
        1,
        aux_losses=_PTX,
        about="ppo that keeps up the likelihood of other texts (data.pretraining) with weight "
        "ptx_coef 0.05, OpenRLHF's; InstructGPT has 27.8 beside rewards of its own scale. The NLL "
        "is taken at rollout.temperature, as all log-probs of a run: keep it at 1 where the "
        "likelihood as such is meant.",
    ),
    rl(
        # no ratio, so that a second step on a rollout would be biased: see needs_fresh_samples
        "reinforce",
        losses.reinforce,
        "2402.14740",
        experience.returns_minus_batch_mean,
        1,
        about="REINFORCE on whole responses with the mean of the rollout as its baseline, KL in "
        "the reward. Without an importance ratio: take one optimizer step per rollout.",
    ),
    rl(
        "reinforce_value",
        losses.reinforce_with_value,
        "2309.00267",
        experience.returns_minus_value,
        1,
        about="REINFORCE with a learned value as its baseline, as RLAIF trains. The reward is "
        "score - kl_coef * KL, where RLAIF's (A.3) is (1 - beta) * score - beta * KL: the same "
        "with kl_coef = beta / (1 - beta), up to a factor 1 - beta of all rewards. Without an "
        "importance ratio: one step per rollout.",
    ),
    rl(
        # whitening over the rollout needs no group, so one response per prompt is enough
        "reinforce_pp",
        losses.ppo_clip,
        "2501.03262",
        experience.returns_whitened,
        1,
        about="REINFORCE++: PPO's clip without a critic, rewards to go with the KL in them, "
        "whitened over all tokens of the rollout.",
    ),
    rl(
        "reinforce_pp_baseline",
        losses.ppo_clip,
        "2501.03262",
        experience.group_mean_whitened,
        8,
        aux_losses=_K2,
        about="REINFORCE++ with the mean of the group taken off first, then whitened over the "
        "rollout; the KL is the loss's, k2 with weight 0.01, a mean over all tokens of the step.",
    ),
    rl(
        # mean over examples: the response is the action, and the loss has one value for it
        "rloo",
        losses.rloo,
        "2402.14740",
        experience.leave_one_out,
        4,
        reduce=mean_over_examples,
        about="REINFORCE with the other responses to the prompt as the baseline, KL in the "
        "reward; a response is one action, and its ratio, which the paper does not have, is "
        "clipped as in TRL: take one step per rollout.",
    ),
    rl(
        "rloo_token",
        losses.ppo_clip,
        "2402.14740",
        experience.leave_one_out,
        4,
        about="rloo with PPO's clipped ratio of each token, as verl and OpenRLHF have it: for "
        "several steps per rollout. Its gradient is a mean over tokens, so a long response weighs "
        "more.",
    ),
    rl(
        "remax",
        losses.reinforce,
        "2310.10505",
        experience.minus_greedy,
        1,
        about="REINFORCE with the score of the greedy response as its baseline, which costs one "
        "more response per prompt. gamma 1, where ReMax's authors have 0.99. Without an "
        "importance ratio: take one step per rollout.",
    ),
)
