"""Distillation on the student's own samples, with the reverse KL of each token as its reward."""

from jalign import experience, losses
from jalign.algorithms._shared import TEACHER
from jalign.core import Algorithm, Experience, mean_over_tokens
from jalign.formats import SAMPLES

DEMONSTRATION = """{prompt}

This is an example of a response:
{demonstration}

Answer with a response of your own."""
FEEDBACK = """{prompt}

This is feedback on an earlier attempt:
{feedback}

Solve the original task correctly."""

# the teacher is a slow average of the policy, so that it does not chase its own changes
SLOW = {"ref_sync_steps": 1, "ref_mixup_alpha": 0.05}

DISTILLATION = (
    Algorithm(
        "opd",
        losses.reinforce,
        SAMPLES,
        "2306.08543",
        reduce=mean_over_tokens,
        tags=TEACHER,
        experience=Experience(experience.reverse_kl, 1),
        about="On-policy distillation of model.reference by policy gradient, as Thinking Machines "
        "do it (thinkingmachines.ai/blog/on-policy-distillation): the reward of each sampled "
        "token is log p_teacher - log p, without discount or baseline (in MiniLLM a token "
        "answers for those after it, too). It reads one log-prob per token where "
        "gkd_on_policy compares whole distributions. Without an importance ratio: take one "
        "step per rollout.",
    ),
    Algorithm(
        "iw_opd",
        losses.reinforce,
        SAMPLES,
        "2606.22600",
        reduce=mean_over_tokens,
        tags=TEACHER,
        experience=Experience(experience.weighted_reverse_kl, 1),
        about="opd with tokens weighted by 1 + prefix_gamma (1 - the part of the response's "
        "difference from the teacher that lies before the token): early tokens count more, "
        "where the teacher has seen fewer of the student's errors. prefix_gamma 0.5 as in "
        "TRL. Without an importance ratio: take one step per rollout.",
    ),
    Algorithm(
        "sdft",
        losses.reinforce,
        SAMPLES,
        "2601.19897",
        SLOW,
        reduce=mean_over_tokens,
        experience=Experience(experience.self_distilled, 1, teacher_prompt=DEMONSTRATION),
        about="Self-distillation from demonstrations: the teacher, which is the reference, takes "
        "ref_mixup_alpha 0.05 of the policy at every step (ref_sync_steps 1), and reads the "
        "data's column demonstration with the prompt before it scores the policy's own "
        "response (rollout.teacher_prompt has the words; data.columns names another column). "
        "The paper takes the KL over the whole vocabulary, this the log-prob of the sampled "
        "token (TRL's distillation_mode sampled_token). With adapters set ref_mixup_alpha to "
        "1 and ref_sync_steps higher. Without an importance ratio: take one step per "
        "rollout.",
    ),
    Algorithm(
        # sdpo is stepwise DPO
        "sdpo_feedback",
        losses.reinforce,
        SAMPLES,
        "2601.20802",
        SLOW,
        reduce=mean_over_tokens,
        experience=Experience(experience.self_distilled, 1, teacher_prompt=FEEDBACK),
        about="Self-distilled policy optimization: as sdft, with the same reference "
        "(ref_sync_steps 1, ref_mixup_alpha 0.05) as the teacher and the data's column "
        "feedback in place of a demonstration: what an environment or a judge said about an "
        "earlier attempt. In the paper the feedback is on the response itself, or a "
        "successful response of its group stands in for it; here it is a column of the "
        "prompt, so a new round needs new feedback. Log-probs of sampled tokens as in TRL's "
        "default, without its clipped ratio. Without an importance ratio: take one step per "
        "rollout.",
    ),
)
