"""GRPO and its relatives: advantages from the group of responses to a prompt."""

from jalign import experience, losses
from jalign.algorithms._shared import rl
from jalign.core import AuxLoss, mean_over_examples, mean_over_responses, sum_over_longest

# reduced as grpo's loss is; the format's own KL terms are means over all tokens of the step
_K3 = {"kl_k3_coef": AuxLoss(losses.kl_k3, 0.04, mean_over_responses, is_kl=True)}

GRPO = (
    rl(
        "grpo",
        losses.ppo_clip,
        "2402.03300",
        experience.group_normalized,
        8,
        aux_losses=_K3,
        reduce=mean_over_responses,
        about="PPO's clip with advantages from the group of a prompt's responses, (score - mean) "
        "/ deviation, and k3 to the reference in the loss, weight 0.04, both means over responses "
        "of means over their tokens. TRL's default is another: no KL, and dapo's mean over "
        "tokens; its k3 carries the ratio (kl_k3_ratio_coef). Any further KL term is a mean over "
        "all tokens of the step.",
    ),
    rl(
        "grpo_process",
        losses.ppo_clip,
        "2402.03300",
        experience.steps_normalized,
        8,
        aux_losses=_K3,
        reduce=mean_over_responses,
        about="grpo with rewards of steps: a token's advantage is the sum of the normalized "
        "scores of the steps that end at it or later. Steps end at reward.step_separator.",
    ),
    rl(
        "dr_grpo",
        losses.ppo_clip,
        "2503.20783",
        experience.group_centred,
        8,
        # a constant: the longest response of a batch as divisor brings the length bias back
        reduce=sum_over_longest,
        about="grpo without its two biases: no division by the group's deviation, and the sum "
        "over tokens divided by the constant responses * rollout.max_new_tokens, not by lengths "
        "(TRL: loss_type dr_grpo, scale_rewards none). Responses that have no reward do not count "
        "in the divisor. KL terms that are set are means over all tokens of the step, not reduced "
        "as this loss is; TRL puts beta inside the loss of each token.",
    ),
    rl(
        "dapo",
        losses.ppo_clip,
        "2503.14476",
        experience.informative_groups,
        8,
        # clip_low stays: the paper raises only the bound that keeps rare tokens from growing
        defaults={"clip_high": 0.28},
        about="grpo with a higher upper clip (0.28), the mean over all tokens of the step, no KL, "
        "and groups left out whose scores are all equal; rollout.attempts above 1 samples others "
        "in their place (dynamic sampling). The paper's soft punishment of overlong answers is a "
        "reward to be set, and rollout.mask_truncated its filter. KL terms that are set are means "
        "over the same tokens.",
    ),
    rl(
        # mean over examples: the loss has one value per response
        "gspo",
        losses.gspo,
        "2507.18071",
        experience.group_normalized,
        8,
        reduce=mean_over_examples,
        about="grpo with one ratio for each response, the geometric mean of its tokens', and "
        "clips of a few 1e-4. KL terms that are set are means over all tokens of the step, not "
        "reduced as this loss is; TRL puts beta inside the loss of each token.",
    ),
    rl(
        # this mean makes value and gradient those of gspo
        "gspo_token",
        losses.gspo_token,
        "2507.18071",
        experience.group_normalized,
        8,
        reduce=mean_over_responses,
        about="gspo with an advantage for each token: with those of groups, as here, its value "
        "and gradient are gspo's. KL terms that are set are means over all tokens of the step, "
        "not reduced as this loss is; TRL puts beta inside the loss of each token.",
    ),
    rl(
        "cispo",
        losses.cispo,
        "2506.13585",
        experience.group_normalized,
        8,
        about="grpo's advantages on REINFORCE with a bounded, detached ratio (MiniMax-M1), the "
        "mean over all tokens of the step. ratio_max 5 is ScaleRL's; the paper does not tell its "
        "own. KL terms that are set are means over the same tokens.",
    ),
)
