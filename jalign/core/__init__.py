"""Core types shared by all algorithms: Format, Experience, Algorithm, TrainState.

Shape letters: B prompts, K responses per prompt, R scored tokens per response, T tokens, V words.
"""

from jalign.core.algorithm import Algorithm
from jalign.core.experience import ROLLOUT, Experience, Relative
from jalign.core.format import (
    LAST_HYPER,
    NOISE,
    REFERENCE_HYPER,
    SCORER_HYPER,
    TWO_MODELS,
    Arrays,
    AuxLoss,
    Format,
    LossFn,
    Term,
)
from jalign.core.reductions import (
    Mean,
    Reduction,
    SumOverLongest,
    mean_over_chosen_tokens,
    mean_over_examples,
    mean_over_pretraining_tokens,
    mean_over_responses,
    mean_over_tokens,
    sum_over_longest,
)
from jalign.core.state import Carry, Frozen, TrainState
from jalign.signatures import arrays_of, did_you_mean, hyper_of

__all__ = [
    "LAST_HYPER",
    "NOISE",
    "REFERENCE_HYPER",
    "ROLLOUT",
    "SCORER_HYPER",
    "TWO_MODELS",
    "Algorithm",
    "Arrays",
    "AuxLoss",
    "Carry",
    "Experience",
    "Format",
    "Frozen",
    "LossFn",
    "Mean",
    "Reduction",
    "Relative",
    "SumOverLongest",
    "Term",
    "TrainState",
    "arrays_of",
    "did_you_mean",
    "hyper_of",
    "mean_over_chosen_tokens",
    "mean_over_examples",
    "mean_over_pretraining_tokens",
    "mean_over_responses",
    "mean_over_tokens",
    "sum_over_longest",
]
