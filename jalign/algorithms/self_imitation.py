"""Imitation of the policy's own samples: the best of them, or a teacher on all of them."""

from jalign import experience, losses
from jalign.core import Algorithm, Experience, mean_over_tokens
from jalign.formats import SUPERVISED

SELF_IMITATION = (
    Algorithm(
        "gkd_on_policy",
        losses.gkd,
        SUPERVISED,
        "2306.13649",
        reduce=mean_over_tokens,
        experience=Experience(experience.everything, 1),
        about="gkd on responses that the student writes: on-policy distillation of "
        "model.reference, the paper's lambda = 1. No gradient goes through sampling.",
    ),
    Algorithm(
        "raft",
        losses.sft,
        SUPERVISED,
        "2304.06767",
        reduce=mean_over_tokens,
        experience=Experience(experience.best, 4),
        about="Imitation of the best of four samples of each prompt (best-of-n distillation). The "
        "paper ranks once per iteration and trains on all of it; rollout.prompts makes iterations "
        "longer than a step.",
    ),
    Algorithm(
        # ranked over all prompts, where raft ranks the responses to each
        "raft_top",
        losses.sft,
        SUPERVISED,
        "2304.06767",
        reduce=mean_over_tokens,
        experience=Experience(experience.top_share, 1),
        about="Imitation of the share alpha of a rollout's responses with the highest scores, "
        "over all prompts: so easy prompts are learned from more. alpha 0.2 of the prompts of one "
        "rollout, so let rollout.prompts be a few times batch_size.",
    ),
)
