"""Policy gradients of 2025 and 2026 that differ in the baseline and the scale of the advantages."""

from jalign import experience, losses
from jalign.algorithms._shared import rl

BASELINES = (
    rl(
        "gdpo",
        losses.ppo_clip,
        "2601.05242",
        experience.gdpo,
        8,
        about="grpo for several rewards: each is normalized within its group, then they are "
        "weighted, added and normalized over the rollout, so that none is drowned by the spread "
        "of another (TRL: multi_objective_aggregation normalize_then_sum). Missing-EOS penalties "
        "and clips, which act on the sum, do not apply.",
    ),
    rl(
        # the order of the expansion is the size of the group less 1: 16 is not 8
        "maxrl",
        losses.ppo_clip,
        "2602.02710",
        experience.maxrl,
        16,
        about="grpo whose advantages are divided by the group's mean, not by its deviation: for "
        "scores of 0 and 1 the gradient is that of log P(right) to the order of the group's size, "
        "so prompts that are rarely solved weigh more. Scores are to be >= 0; a group without "
        "success teaches nothing. 16 responses as in the authors' runs.",
    ),
    rl(
        # the clip holds nothing in a first step, and later ones need it
        "opo",
        losses.ppo_clip,
        "2505.23585",
        experience.opo,
        8,
        about="The baseline of least variance for whole responses: the mean of the group's scores "
        "weighted by length; no division by a deviation, no KL. The paper takes one step per "
        "rollout, where the ratio is 1 and the clip does nothing.",
    ),
    rl(
        "pass_at_k",
        losses.ppo_clip,
        "2503.19595",
        experience.pass_at_k,
        8,
        about="Maximizes the best of the group: only the best response is learned from, by how far "
        "it is above the second, over the group's deviation (verl: grpo_passk). With scores of 0 "
        "and 1 that is where exactly one answer is right.",
    ),
    rl(
        "lite_ppo",
        losses.ppo_clip,
        "2508.08221",
        experience.lite_ppo,
        8,
        about="PPO's clip with the group's mean as its baseline and the deviation of the rollout "
        "as its scale, the mean over all tokens of the step: the two tricks that the paper keeps "
        "of many. No critic, no KL (TRL: scale_rewards batch).",
    ),
    rl(
        "otb",
        losses.ppo_clip,
        "2602.07078",
        experience.otb,
        8,
        about="A baseline for each token of the group: the mean score of the responses that reach "
        "it, weighted by their uncertainty so far, the sum of squared gradients by the logits. "
        "It costs one sum over the vocabulary in the pass that scores the rollout (verl: "
        "optimal_token_baseline).",
    ),
)
