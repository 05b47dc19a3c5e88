"""Verifiers of answers and steps, and models that compare two responses."""

from jalign import losses
from jalign.core import Algorithm, mean_over_tokens
from jalign.formats import BINARY, JOINT, STEPWISE

VERIFIERS = (
    Algorithm(
        # binary data: right and wrong are its labels
        "orm",
        losses.outcome,
        BINARY,
        "2110.14168",
        about="A verifier of whole answers, right or wrong, read at the last token only; the "
        "authors also train at every token.",
    ),
    Algorithm(
        "prm",
        losses.process_reward,
        STEPWISE,
        "2305.20050",
        reduce=mean_over_tokens,
        about="A verifier of steps: one judgment at the end of each, the mean over all steps of "
        "the batch. The paper has three labels; here a number in [0, 1].",
    ),
    Algorithm(
        # a joint prompt: no response has a score of its own, as a run's reward.model needs
        "pair_rm",
        losses.pair_rm,
        JOINT,
        "2306.02561",
        about="A ranker that reads both candidates of a pair in one prompt and scores each in "
        "sight of the other; its logits are no rewards of single responses.",
    ),
    Algorithm(
        "preference_ab",
        losses.preference_ab,
        JOINT,
        "2405.07863",
        about="A language model that reads both candidates and answers with a letter: RLHFlow's "
        "pairwise preference model.",
    ),
)
