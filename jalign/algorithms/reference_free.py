"""Rows that learn from preference pairs without a reference."""

from jalign import losses
from jalign.algorithms._shared import SFT, nll
from jalign.core import Algorithm
from jalign.formats import PAIRS

WITHOUT_REFERENCE = (
    Algorithm(
        "slic_hf",
        losses.slic_hf,
        PAIRS,
        "2305.10425",
        tags=SFT,
        about="A hinge on log-probabilities with a supervised term on the chosen response "
        "(sft_coef), without a reference. The paper's supervised target may be another text; its "
        "pairs come from the SFT model.",
    ),
    Algorithm(
        "simpo",
        losses.simpo,
        PAIRS,
        "2405.14734",
        about="The mean log-probability per token as the reward, with a margin gamma, without a "
        "reference. The authors tune both numbers for each model, beta from 2 to 10 and gamma / "
        "beta from 0.1 to 0.8. TRL's CPO trainer has it as loss_type simpo with cpo_alpha 0.",
    ),
    Algorithm(
        "simper",
        losses.simper,
        PAIRS,
        "2502.00883",
        about="The difference of the inverse perplexities of the two responses, without a "
        "reference and without any hyper-parameter to tune.",
    ),
    Algorithm(
        "repo",
        losses.repo,
        PAIRS,
        "2503.07426",
        about="simpo with a rectifier in the place of the log-sigmoid, which is its limit for a "
        "large beta: pairs beyond the margin gamma teach nothing, the others all the same.",
    ),
    Algorithm(
        "alphapo",
        losses.alphapo,
        PAIRS,
        "2501.03884",
        about="simpo with a reward function shaped by alpha; alpha to 0 is simpo.",
    ),
    Algorithm(
        "cpo",
        losses.cpo,
        PAIRS,
        "2401.08417",
        # a term beside the loss: it is a mean over tokens, the contrast one over pairs
        aux_losses=nll(1.0),
        about="Contrast of summed log-probabilities without a reference, plus the NLL of the "
        "chosen response (nll_coef 1, a mean over all chosen tokens of the step; TRL's counts "
        "prompt tokens too).",
    ),
    Algorithm(
        "cpo_simpo",
        losses.simpo,
        PAIRS,
        "2401.08417",
        aux_losses=nll(1.0),
        about="CPO-SimPO, a combination by the authors of CPO: the loss of simpo plus the NLL of "
        "the chosen response (nll_coef 1). TRL: loss_type simpo with cpo_alpha above 0.",
    ),
    Algorithm(
        # the NLL is a term of its own: its mean is over tokens, that of the odds over pairs
        "orpo",
        losses.orpo,
        PAIRS,
        "2403.07691",
        aux_losses=nll(1.0),
        about="The NLL of the chosen response (nll_coef 1, a mean over all chosen tokens of the "
        "step) plus beta times the odds-ratio term, in one stage from a pretrained model, without "
        "a reference. beta is the paper's lambda, 0.1.",
    ),
    Algorithm(
        # cpo's contrast alone: a uniform reference cancels in the difference
        "dpo_reference_free",
        losses.cpo,
        PAIRS,
        "2305.18290",
        about="dpo with a uniform reference, so that none is needed: the contrast of cpo without "
        "its NLL. DPO's code and TRL call it reference_free.",
    ),
)
