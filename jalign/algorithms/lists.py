"""Rows that learn from lists of rated responses."""

from jalign import losses
from jalign.algorithms._shared import SFT
from jalign.core import Algorithm
from jalign.formats import LISTS

LISTWISE = (
    Algorithm(
        "lipo_lambda",
        losses.lipo_lambda,
        LISTS,
        "2402.01878",
        about="All pairs of a list, each weighed by what swapping the two would change in DCG "
        "(LambdaLoss): the loss that LiPO recommends. Ratings best lie in [0, 1].",
    ),
    Algorithm(
        "lipo_logistic",
        losses.lipo_logistic,
        LISTS,
        "2402.01878",
        about="dpo on all pairs of a list, each counting the same: LiPO's pairwise logistic "
        "baseline.",
    ),
    Algorithm(
        "lipo_hinge",
        losses.lipo_hinge,
        LISTS,
        "2402.01878",
        about="The hinge on all pairs of a list, each counting the same: LiPO's pairwise hinge "
        "baseline.",
    ),
    Algorithm(
        "list_mle",
        losses.list_mle,
        LISTS,
        "2402.01878",
        about="The likelihood of the whole order of a list (Plackett-Luce): LiPO's baseline that "
        "DPO's authors also give as the form for rankings.",
    ),
    Algorithm(
        "lipo_softmax",
        losses.lipo_softmax,
        LISTS,
        "2402.01878",
        about="The softmax cross-entropy of a list's ratings with its implicit rewards: LiPO's "
        "softmax baseline.",
    ),
    Algorithm(
        # the tag, since the NLL is inside the loss, where `taxonomy` cannot see it
        "rrhf",
        losses.rrhf,
        LISTS,
        "2304.05302",
        tags=SFT,
        about="Ranking by the mean log-probability per token, without a reference, plus the NLL "
        "of the best response of each list, which is part of the loss (nll_coef would add "
        "another).",
    ),
    Algorithm(
        "pro",
        losses.pro,
        LISTS,
        "2306.17492",
        tags=SFT,
        about="Each response of a list in turn against all below it, at temperatures from the "
        "differences of rating, without a reference, plus the NLL of the best (sft_coef).",
    ),
    Algorithm(
        "exo_list",
        losses.exo_list,
        LISTS,
        "2402.00856",
        about="The reverse KL divergence from the policy's distribution over a list to that of "
        "the ratings (EXO-rw).",
    ),
    Algorithm(
        "neural_ndcg",
        losses.neural_ndcg,
        LISTS,
        "2410.04346",
        about="The NDCG of the policy's ranking of a list, made differentiable by NeuralSort: the "
        "top of the list counts most (OPO). Ratings best lie in [0, 1]; lists of 8 in the paper.",
    ),
    Algorithm(
        # by means per token, the authors' scores; sums would rank long responses last
        "diff_ndcg",
        losses.diff_ndcg,
        LISTS,
        "2410.18127",
        about="The NDCG of the policy's ranking of a list by mean log-probabilities, made "
        "differentiable by a sorting network (DRPO), without a reference and without DRPO's margin "
        "by rank. Ratings best lie in [0, 1].",
    ),
    Algorithm(
        "swepo",
        losses.swepo,
        LISTS,
        "2412.04628",
        about="All responses rated above the mean of a list against all of it, the more the "
        "further a response is from that mean.",
    ),
    Algorithm(
        "dpo_list",
        losses.dpo_list,
        LISTS,
        "2402.00856",
        about="The forward KL divergence over a list, the twin that EXO compares itself with "
        "(DPO-rw); info_nca_list is the same loss with the numbers of its own paper.",
    ),
    Algorithm(
        "nca_list",
        losses.nca_list,
        LISTS,
        "2402.05369",
        about="Noise contrast of each response of a list with the reference by itself, weighed by "
        "the softmax of the ratings.",
    ),
    Algorithm(
        "info_nca_list",
        losses.info_nca_list,
        LISTS,
        "2402.05369",
        about="InfoNCA on a list: the softmax of the ratings as labels for the softmax of the "
        "implicit rewards, at the paper's beta 0.01.",
    ),
)
