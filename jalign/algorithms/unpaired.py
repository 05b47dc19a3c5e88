"""Rows that learn from single responses: good or bad, or rated."""

from jalign import losses
from jalign.core import Algorithm, Carry
from jalign.formats import BINARY, RATED, SCORED

UNPAIRED = (
    Algorithm(
        "kto",
        losses.kto,
        BINARY,
        "2402.01306",
        # z0 is one mean of the global batch; TRL's mean per rank changes with the devices
        batch_coupled=True,
        about="Single responses, desirable or not; beta 0.1 and both weights 1 as in the paper and "
        "TRL. The mismatched response of an example is that of another prompt of the same step; z0 "
        "is the mean over the whole step, on all devices and micro-batches.",
    ),
    Algorithm(
        # the shift is averaged over steps, since one batch may hold one class only
        "bco",
        losses.bco,
        BINARY,
        "2404.04656",
        carry=Carry(("delta",)),
        batch_coupled=True,
        about="A classifier of single responses whose logit is the implicit reward above a running "
        "shift. The shift is an average with momentum 0.9 in which both classes weigh the same; "
        "TRL's is a cumulative mean of all rewards.",
    ),
    Algorithm(
        "bco_udm",
        losses.bco_udm,
        BINARY,
        "2404.04656",
        carry=Carry(("delta",)),
        batch_coupled=True,
        about="bco for data whose good and bad responses belong to different prompts: bad ones are "
        "weighted by a density ratio, from the column density_ratio or else from a logistic "
        "regression on the mean token embedding of each prompt. TRL takes an embedding model of "
        "the user's.",
    ),
    Algorithm(
        "apo_zero_unpaired",
        losses.apo_zero_unpaired,
        BINARY,
        "2408.06266",
        about="apo_zero on single responses, each half of its loss for one label: up where "
        "desirable, down where not, whatever the other class does.",
    ),
    Algorithm(
        "una",
        losses.una,
        SCORED,
        "2408.15339",
        about="The sigmoid of the implicit reward is fitted to a score between 0 and 1 by least "
        "squares. Any data become scores, also several kinds in one mixture: ratings as they are, "
        "labels and pairs 1 and 0, demonstrations 1. The paper takes dpo for pairs.",
    ),
    Algorithm(
        "una_bce",
        losses.una_bce,
        SCORED,
        "2408.15339",
        about="una by cross-entropy, which the authors compare on labels: it does not give up "
        "responses whose reward is far from their score.",
    ),
    Algorithm(
        # an alias, for what it is known for: SFT and alignment in one stage
        "uft",
        losses.una,
        SCORED,
        "2410.21438",
        {"beta": 0.01},
        about="SFT and alignment in one stage: una on a mixture of demonstrations, which score 1, "
        "and of feedback, from the pretrained model. The shares of the mixture decide between the "
        "two: data.train {source: weight}.",
    ),
    Algorithm(
        "dro_v",
        losses.dro_v,
        RATED,
        "2405.19107",
        about="Single rated responses: a second model learns their value, the policy's log-ratio "
        "what the rating has beyond it, each with a gradient of its own as in the paper's "
        "Algorithm 1. Ratings are taken as they are: standardize them over the data.",
    ),
    Algorithm(
        "dro_v_joint",
        losses.dro_v_joint,
        RATED,
        "2405.19107",
        about="The objective of dro_v as the one square of the paper, whose gradient policy and "
        "value share; unlike the loss of dro_v its value shows the progress of training.",
    ),
)
