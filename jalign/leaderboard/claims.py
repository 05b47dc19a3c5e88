"""Claims of the literature, confirmed, refuted or open by the results of a leaderboard.

"A over B" is confirmed where A's mean exceeds B's and the paired bootstrap over prompts and seeds,
Holm-corrected over all claims of this kind, rejects equality; refuted where B's exceeds A's in the
same way. "A equals B" is confirmed where the interval of the difference lies within the margin, and
refuted where it lies outside. Everything else is open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from jalign.eval import metrics
from jalign.eval.metrics import Difference, Estimate
from jalign.eval.metrics.bootstrap import resample
from jalign.leaderboard.games import against, common, win_at_equal_length
from jalign.leaderboard.results import MethodResult, Point
from jalign.leaderboard.table import KL_MARKS

Verdict = Literal["confirmed", "refuted", "open"]
MARGIN = 0.05
"""Differences in mean true reward below this count as equal."""

SEEDS = 3
"""Fewer common seeds leave every claim open: prompts alone say nothing of other seeds."""
RESAMPLES = 10_000
"""The least p is 2 / (1 + RESAMPLES), and Holm multiplies it by the number of claims."""


class Definition(NamedTuple):
    """A claim about two methods.

    Attributes:
      a, b: names of methods; `of` compares them.
      text: what is claimed.
      equal: whether equality is claimed.
      source: arXiv number.
    """

    a: str
    b: str
    text: str
    of: Callable[[MethodResult, MethodResult], Difference]
    source: str
    equal: bool = False


class Claim(NamedTuple):
    """What the results say.

    Attributes:
      estimate: of A - B with its 95 % interval, in the unit of the claim; None without results.
      p_value: Holm-corrected; None for equality, and without results.
      needs: methods whose cells it needs.
      note: what is missing.
    """

    text: str
    verdict: Verdict
    estimate: Estimate | None
    p_value: float | None
    needs: tuple[str, ...]
    source: str
    note: str = ""


def reward(a: MethodResult, b: MethodResult) -> Difference:
    """Difference in mean true reward."""
    return metrics.paired_bootstrap(*common(a, b, "true"), samples=RESAMPLES)


def shorter(a: MethodResult, b: MethodResult) -> Difference:
    """Tokens per response by which A is shorter."""
    x, y = common(a, b, "lengths")
    return metrics.paired_bootstrap(y, x, samples=RESAMPLES)


def at_equal_length(a: MethodResult, b: MethodResult) -> Difference:
    """Win rate of A over B by true reward at equal length, minus 1/2. p is that of a normal
    distribution with the interval of the bootstrap.
    """
    wins = against(*common(a, b, "true"))
    controlled = win_at_equal_length(wins, *common(a, b, "lengths"))
    if controlled is None:
        return Difference(Estimate(0.0, -0.5, 0.5), 1.0)
    value, low, high = (float(x) - 0.5 for x in controlled.win_rate)
    standard_error = (high - low) / (2 * special.ndtri(0.975))
    z = abs(value) / max(standard_error, 1e-12)
    return Difference(Estimate(value, low, high), float(2 * special.ndtr(-z)))


def frontier(a: MethodResult, b: MethodResult, samples: int = 2000) -> Difference:
    """Difference in the area of the frontiers of true reward over KL, resampled over prompts."""
    n = len(a.points[0].true)
    counts = np.concatenate(list(resample(n, samples, 0))) / n
    draws = np.array([_area(a.points, c) - _area(b.points, c) for c in counts])
    even = np.full(n, 1 / n)
    low, high = np.quantile(draws, [0.025, 0.975])
    tail = (1 + min((draws <= 0).sum(), (draws >= 0).sum())) / (1 + samples)
    value = _area(a.points, even) - _area(b.points, even)
    return Difference(Estimate(value, float(low), float(high)), min(1.0, float(2 * tail)))


def _area(points: Sequence[Point], weights: np.ndarray) -> float:
    kl = np.array([max(0.0, float(p.kl @ weights)) for p in points])
    true = np.array([float(p.true @ weights) for p in points])
    # the start has the reward of the least trained point or less: it is a point of every method
    return metrics.frontier_area(kl, true, start=float(true.min()), max_kl=KL_MARKS[-1])


CLAIMS = (
    Definition("rloo", "rloo_2", "RLOO with 4 responses over 2", reward, "2402.14740"),
    Definition("rloo_2", "raft", "RLOO with 2 responses over RAFT", reward, "2402.14740"),
    Definition("raft", "ppo", "RAFT over PPO", reward, "2402.14740"),
    Definition("ppo", "dpo", "PPO over DPO", reward, "2402.14740"),
    Definition("dpo", "ppo", "DPO's frontier over PPO's", frontier, "2305.18290"),
    Definition("online_dpo", "dpo", "online over offline DPO", reward, "2402.04792"),
    Definition("ppo", "iterative_dpo", "PPO over iterative DPO", reward, "2404.10719"),
    Definition("iterative_dpo", "dpo", "iterative over offline DPO", reward, "2404.10719"),
    Definition("kto_50", "dpo", "KTO on 50:50 data equals DPO", reward, "2402.01306", True),
    Definition("kto_80", "dpo", "KTO on 80:20 data equals DPO", reward, "2402.01306", True),
    Definition("orpo", "sft_dpo", "ORPO over SFT, then DPO", reward, "2403.07691"),
    Definition("simpo", "dpo", "SimPO over DPO at equal length", at_equal_length, "2405.14734"),
    Definition("r_dpo", "dpo", "R-DPO is shorter than DPO", shorter, "2403.19159"),
    Definition("ld_dpo", "dpo", "LD-DPO is shorter than DPO", shorter, "2409.06411"),
    Definition("dpo", "dpo_beta_0.2", "DPO: beta 0.1 over 0.2", reward, "2305.18290"),
    Definition("dpo_lora", "dpo", "LoRA equals full fine-tuning", reward, "2106.09685", True),
    Definition("dpo", "dpo_uniform_20", "20 % uniform noise costs reward", reward, "2403.00409"),
    Definition("dpo", "dpo_uniform_40", "40 % uniform noise costs reward", reward, "2403.00409"),
    Definition("dpo", "dpo_annotator_20", "20 % wrong annotators cost reward", reward, ""),
    Definition("dpo", "dpo_annotator_40", "40 % wrong annotators cost reward", reward, ""),
    Definition("dpo_uniform_20", "dpo_clearest_20",
               "the clearest 20 % inverted cost more than uniform noise", reward, ""),
    Definition("dpo_uniform_40", "dpo_clearest_40",
               "the clearest 40 % inverted cost more than uniform noise", reward, ""),
    Definition("robust_uniform_40", "dpo_uniform_40",
               "robust DPO over DPO at 40 % uniform noise", reward, "2403.00409"),
)  # fmt: skip


def judge_claims(
    methods: Mapping[str, MethodResult], definitions: Sequence[Definition] = CLAIMS
) -> list[Claim]:
    """The verdict on every claim, in their order."""
    differences: dict[int, Difference] = {}
    for i, d in enumerate(definitions):
        if d.a in methods and d.b in methods and set(methods[d.a].seeds) & set(methods[d.b].seeds):
            differences[i] = d.of(methods[d.a], methods[d.b])
    tested = [i for i in differences if not definitions[i].equal]
    p_values = [differences[i].p_value for i in tested]
    adjusted = dict(zip(tested, metrics.holm(p_values).adjusted, strict=True)) if tested else {}
    return [
        _claim(d, differences.get(i), adjusted.get(i), methods) for i, d in enumerate(definitions)
    ]


def _claim(
    d: Definition,
    difference: Difference | None,
    p_value: float | None,
    methods: Mapping[str, MethodResult],
) -> Claim:
    needs = (d.a, d.b)
    if difference is None:
        missing = ", ".join(name for name in needs if name not in methods) or "common seeds"
        return Claim(d.text, "open", None, None, needs, d.source, f"not run: {missing}")
    estimate = difference.estimate
    seeds = len(set(methods[d.a].seeds) & set(methods[d.b].seeds))
    if seeds < SEEDS:
        note = f"{seeds} of {SEEDS} seeds"
        return Claim(d.text, "open", estimate, p_value, needs, d.source, note)
    if d.equal:
        return Claim(d.text, equality(estimate), estimate, None, needs, d.source)
    assert p_value is not None
    return Claim(d.text, order(estimate, p_value), estimate, float(p_value), needs, d.source)


def order(estimate: Estimate, p_value: float, alpha: float = 0.05) -> Verdict:
    """The verdict on "A over B"."""
    if p_value > alpha or estimate.value == 0:
        return "open"
    return "confirmed" if estimate.value > 0 else "refuted"


def equality(estimate: Estimate, margin: float = MARGIN) -> Verdict:
    """The verdict on "A equals B": by the interval of the difference and the margin."""
    if -margin < estimate.low and estimate.high < margin:
        return "confirmed"
    return "refuted" if estimate.low > margin or estimate.high < -margin else "open"
