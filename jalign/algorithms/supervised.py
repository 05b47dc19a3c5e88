"""Rows that imitate given responses, or a teacher on them."""

from jalign import losses
from jalign.core import Algorithm, mean_over_tokens
from jalign.formats import SUPERVISED

SUPERVISION = (
    Algorithm(
        "sft",
        losses.sft,
        SUPERVISED,
        "2203.02155",
        reduce=mean_over_tokens,
        about="Imitation of given responses, the start of most other methods. Every scored token "
        "of the step counts the same; the prompt's are scored where data.loss_on says so.",
    ),
    Algorithm(
        "dft",
        losses.dft,
        SUPERVISED,
        "2508.05629",
        reduce=mean_over_tokens,
        about="sft whose tokens count by their own probability, without gradient through it, so "
        "that tokens which the model thinks unlikely do not dominate: less of what it knew is "
        "lost, and text far from the model is hardly learned.",
    ),
    Algorithm(
        "gkd",
        losses.gkd,
        SUPERVISED,
        "2306.13649",
        reduce=mean_over_tokens,
        about="Distillation of a teacher (model.reference) on given responses by the generalized "
        "Jensen-Shannon divergence; jsd_beta 0.5 as in TRL. The paper and TRL mix given and "
        "sampled responses by a share lambda; here samples are a method of their own, "
        "gkd_on_policy.",
    ),
    Algorithm(
        # a row of its own: one sweep over the vocabulary, where gkd with jsd_beta 0 takes two
        "gkd_forward",
        losses.forward_kl,
        SUPERVISED,
        "2306.13649",
        reduce=mean_over_tokens,
        about="Distillation of a teacher (model.reference) on given responses by the forward "
        "divergence KL(teacher || student), at temperature 1: gkd with jsd_beta 0, in one sweep "
        "over the vocabulary.",
    ),
    Algorithm(
        "gkd_reverse",
        losses.reverse_kl,
        SUPERVISED,
        "2306.13649",
        reduce=mean_over_tokens,
        about="Distillation of a teacher (model.reference) on given responses by the reverse "
        "divergence KL(student || teacher), at temperature 1: gkd with jsd_beta 1. MiniLLM takes "
        "it on samples, with a policy gradient.",
    ),
)
