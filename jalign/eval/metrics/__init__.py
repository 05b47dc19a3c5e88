"""Formulas of evaluation as pure functions of arrays: `from jalign.eval import metrics`.

Arrays are positional, numbers keyword-only; numpy or jax arrays go in, float64 numbers and
NamedTuples come out. No model, no config. Shares are in [0, 1]. `jalign/eval/README.md` lists every
formula, its source, and what it was compared with.
"""

from jalign.eval.metrics.agreement import Agreement, agreement
from jalign.eval.metrics.arena_hard import Battles, arena_hard, verdict_scores
from jalign.eval.metrics.bbq import BBQ, bbq
from jalign.eval.metrics.bootstrap import Difference, bootstrap, bootstrap_ratio, paired_bootstrap
from jalign.eval.metrics.bradley_terry import Ratings, bradley_terry, win_probabilities
from jalign.eval.metrics.calibration import Calibration, reliability
from jalign.eval.metrics.diversity import (
    distinct_n,
    mean_pairwise_distance,
    self_bleu,
    token_entropy,
)
from jalign.eval.metrics.estimate import Estimate
from jalign.eval.metrics.forgetting import NllChange, ScoreChange, nll_change, score_change
from jalign.eval.metrics.forgetting_law import (
    ForgettingFit,
    fit_forgetting,
    new_task_kl,
    predict_forgetting,
)
from jalign.eval.metrics.frontier import (
    MeanError,
    ScalingFit,
    fit_frontier,
    frontier_area,
    gold_at_kl,
    k1_kl,
    predict_gold,
)
from jalign.eval.metrics.holm import Holm, holm
from jalign.eval.metrics.judge_bias import (
    LengthBias,
    PositionBias,
    SelfPreference,
    length_bias,
    position_bias,
    self_preference,
)
from jalign.eval.metrics.label_noise import Reliability, holder_share, label_reliability
from jalign.eval.metrics.length_controlled import (
    Gamed,
    LengthControlled,
    LengthWeights,
    length_controlled,
    length_controlled_between,
    length_controlled_full,
)
from jalign.eval.metrics.proportions import sign_test, wilson
from jalign.eval.metrics.refusals import REFUSAL_PHRASES, is_refusal
from jalign.eval.metrics.reward_bench import (
    RewardBench,
    TiesScore,
    best_of_n_credit,
    reward_bench,
    reward_bench_2,
    ties_score,
)
from jalign.eval.metrics.safety import (
    Harmlessness,
    StrongReject,
    XSTest,
    harmlessness,
    strong_reject,
    xstest,
)
from jalign.eval.metrics.style import style_counts, style_features
from jalign.eval.metrics.style_control import StyleControlled, style_controlled
from jalign.eval.metrics.toxicity import Toxicity, lexicon_toxicity, read_lexicon, toxicity
from jalign.eval.metrics.win_rate import WinRate, preference, win_rate

__all__ = [
    "BBQ",
    "REFUSAL_PHRASES",
    "Agreement",
    "Battles",
    "Calibration",
    "Difference",
    "Estimate",
    "ForgettingFit",
    "Gamed",
    "Harmlessness",
    "Holm",
    "LengthBias",
    "LengthControlled",
    "LengthWeights",
    "MeanError",
    "NllChange",
    "PositionBias",
    "Ratings",
    "Reliability",
    "RewardBench",
    "ScalingFit",
    "ScoreChange",
    "SelfPreference",
    "StrongReject",
    "StyleControlled",
    "TiesScore",
    "Toxicity",
    "WinRate",
    "XSTest",
    "agreement",
    "arena_hard",
    "bbq",
    "best_of_n_credit",
    "bootstrap",
    "bootstrap_ratio",
    "bradley_terry",
    "distinct_n",
    "fit_forgetting",
    "fit_frontier",
    "frontier_area",
    "gold_at_kl",
    "harmlessness",
    "holder_share",
    "holm",
    "is_refusal",
    "k1_kl",
    "label_reliability",
    "length_bias",
    "length_controlled",
    "length_controlled_between",
    "length_controlled_full",
    "lexicon_toxicity",
    "mean_pairwise_distance",
    "new_task_kl",
    "nll_change",
    "paired_bootstrap",
    "position_bias",
    "predict_forgetting",
    "predict_gold",
    "preference",
    "read_lexicon",
    "reliability",
    "reward_bench",
    "reward_bench_2",
    "score_change",
    "self_bleu",
    "self_preference",
    "sign_test",
    "strong_reject",
    "style_controlled",
    "style_counts",
    "style_features",
    "ties_score",
    "token_entropy",
    "toxicity",
    "verdict_scores",
    "wilson",
    "win_probabilities",
    "win_rate",
    "xstest",
]
