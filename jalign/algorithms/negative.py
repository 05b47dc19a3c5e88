"""Rows that learn from dispreferred responses."""

from jalign import losses
from jalign.algorithms._shared import NEGATIVE as FROM_NEGATIVES
from jalign.algorithms._shared import SFT, nll
from jalign.core import Algorithm, mean_over_tokens
from jalign.formats import BINARY, LISTS, PAIRS

NEGATIVE = (
    Algorithm(
        # pairs, though one side is read: the retain terms need a chosen response
        "npo",
        losses.npo,
        PAIRS,
        "2404.05868",
        about="Unlearning: rejected responses are made less likely than under the reference, "
        "until they are unlikely. Of the pair only the rejected response is read; the paper's "
        "retain terms are nll_coef and kl_coef on the chosen one, 0 unless set.",
    ),
    Algorithm(
        "gradient_ascent",
        losses.gradient_ascent,
        PAIRS,
        "2404.05868",
        about="Unlearning without any bound: the control that npo is compared with. It destroys "
        "the model if training continues.",
    ),
    Algorithm(
        "unlikelihood",
        losses.unlikelihood,
        PAIRS,
        "1908.04319",
        aux_losses=nll(1.0),
        about="Every token of the rejected response is made unlikely, plus the NLL of the chosen "
        "one (nll_coef 1, a mean over all chosen tokens of the step). The paper's negatives are "
        "repeated or frequent tokens.",
    ),
    Algorithm(
        "d2o",
        losses.d2o,
        LISTS,
        "2403.03419",
        tags=FROM_NEGATIVES,
        about="One negative response against the model's own samples as anchors, with one "
        "reference for both; the paper may take two.",
    ),
    Algorithm(
        # an alias, from the title of the paper
        "nn",
        losses.d2o,
        LISTS,
        "2403.03419",
        tags=FROM_NEGATIVES,
        about="Negating negatives: another name of d2o, from the title of its paper, with the "
        "same loss and numbers.",
    ),
    Algorithm(
        # mean over tokens: the authors divide by the tokens of good and bad responses together
        "cringe",
        losses.cringe,
        BINARY,
        "2211.05826",
        reduce=mean_over_tokens,
        tags=SFT,
        about="Good responses are imitated, and each token of a bad one must lose against a "
        "likely other token, without a reference. Every token of the step counts the same; top_k "
        "1 takes the likeliest competitor, the paper draws among several.",
    ),
    Algorithm(
        "pairwise_cringe",
        losses.pairwise_cringe,
        PAIRS,
        "2312.16682",
        tags=SFT,
        about="cringe on pairs, with a gate that closes once the margin is there: one iteration "
        "of the paper, on given pairs.",
    ),
)
