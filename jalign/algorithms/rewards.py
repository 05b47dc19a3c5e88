"""Reward models: one number or several for a response."""

from jalign import losses
from jalign.core import Algorithm, AuxLoss, mean_over_examples
from jalign.formats import LISTS, PAIRS, RATED

# off, as in TRL; the paper's weight is 0.01
_CENTER = {"center_coef": AuxLoss(losses.reward_centering, 0.0, mean_over_examples)}

REWARDS = (
    Algorithm(
        "bradley_terry",
        losses.bradley_terry,
        PAIRS,
        "2203.02155",
        aux_losses=_CENTER,
        about="The reward model of InstructGPT: a scalar head that scores the chosen response "
        "above the rejected one. One pair at a time; InstructGPT takes all pairs of a list "
        "together (k_wise). center_coef, as in TRL, draws scores to a sum of 0.",
    ),
    Algorithm(
        "bradley_terry_margin",
        losses.bradley_terry_margin,
        PAIRS,
        "2307.09288",
        aux_losses=_CENTER,
        about="The reward model of Llama 2: the score must lead by a margin that the data give "
        "(column margin).",
    ),
    Algorithm(
        "bradley_terry_soft",
        losses.bradley_terry_soft,
        PAIRS,
        "2309.00267",
        aux_losses=_CENTER,
        about="The reward model of RLAIF: against the probability that a judge gave (column "
        "chosen_prob), not a label.",
    ),
    Algorithm(
        "token_bradley_terry",
        losses.token_bradley_terry,
        PAIRS,
        "2404.12358",
        about="A reward of every token whose sum is the reward of the response.",
    ),
    Algorithm(
        # lists: as pairs a response is seen K - 1 times per epoch, and the model overfits
        "k_wise",
        losses.k_wise,
        LISTS,
        "2203.02155",
        about="InstructGPT's loss of a list: the mean over all its pairs, so that a long list "
        "weighs no more than a short one.",
    ),
    Algorithm(
        "pick_best",
        losses.pick_best,
        LISTS,
        "1909.08593",
        about="The first reward models for language: of several responses people picked the best "
        "(softmax).",
    ),
    Algorithm(
        "plackett_luce",
        losses.plackett_luce,
        LISTS,
        "2203.02155",
        about="The likelihood of a whole ranking of scores, the form for K responses that "
        "InstructGPT's pairs approximate.",
    ),
    Algorithm(
        "score_regression",
        losses.score_regression,
        RATED,
        "1909.08593",
        about="A score that predicts the rating of a response by least squares, an explicit "
        "reward on the raters' own scale.",
    ),
    Algorithm(
        "score_difference",
        losses.score_difference,
        PAIRS,
        "1909.08593",
        about="A score whose difference predicts, by least squares, by how much one response was "
        "rated above the other (column margin).",
    ),
    Algorithm(
        "multi_attribute",
        losses.multi_attribute,
        RATED,
        "2311.09528",
        about="One output for each rated attribute (HelpSteer's helpfulness, correctness ...): "
        "set model.heads to their number.",
    ),
)
