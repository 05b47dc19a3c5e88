"""Pairs against a target other than a margin: anchors, transport, distributions, classifiers."""

from jalign import losses
from jalign.core import Algorithm, Carry
from jalign.formats import PAIRS

TARGETS = (
    Algorithm(
        "apo_zero",
        losses.apo_zero,
        PAIRS,
        "2408.06266",
        about="Anchored preferences where the chosen responses are better than what the model "
        "writes: chosen up, rejected down, each against the reference.",
    ),
    Algorithm(
        "apo_down",
        losses.apo_down,
        PAIRS,
        "2408.06266",
        about="Anchored preferences where the model already writes better than the chosen "
        "responses: both go down, the rejected one further.",
    ),
    Algorithm(
        "aot",
        losses.aot,
        PAIRS,
        "2406.05882",
        # ranks over the step: sorted per device or micro-batch it would be another loss
        batch_coupled=True,
        about="Optimal transport of margins: sorted margins of the policy against sorted margins "
        "of the reference, over the pairs of the whole step, on all devices and micro-batches; "
        "TRL sorts those of one device.",
    ),
    Algorithm(
        "aot_unpaired",
        losses.aot_unpaired,
        PAIRS,
        "2406.05882",
        batch_coupled=True,
        about="Optimal transport of rewards: sorted chosen against sorted rejected log-ratios of "
        "the whole step, so that which two responses make a pair does not matter. The data still "
        "come as pairs.",
    ),
    Algorithm(
        # EXO needs a soft label: with a hard one the reverse divergence is infinite
        "exo",
        losses.exo_pair,
        PAIRS,
        "2402.00856",
        about="The reverse KL divergence between what the policy and the labels say of a pair "
        "(EXO-pref); label_smoothing 0.001 as in TRL, since a hard label has no finite "
        "divergence.",
    ),
    Algorithm(
        "nca",
        losses.nca_pair,
        PAIRS,
        "2402.05369",
        about="Noise contrast of each response with the reference by itself, so that the chosen "
        "one does not become less likely. beta 0.01 is the paper's; TRL's nca_pair has 0.1.",
    ),
    Algorithm(
        "info_nca",
        losses.dpo,
        PAIRS,
        "2402.05369",
        {"beta": 0.01},
        about="InfoNCA of two responses with hard labels, which is dpo at the paper's beta 0.01.",
    ),
    Algorithm(
        "bco_pair",
        losses.bco_pair,
        PAIRS,
        "2404.04656",
        # in checkpoints: a shift that starts anew would move every reward after a resume
        carry=Carry(("delta",)),
        batch_coupled=True,
        about="A classifier of chosen against rejected responses whose logit is the implicit "
        "reward above a running shift, kept in checkpoints. bco_pair of TRL 1.16 has no shift; "
        "here momentum 1 would keep it where it starts.",
    ),
)
