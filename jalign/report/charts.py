"""Which metrics are drawn together, and in which order."""

from __future__ import annotations

from typing import Any, NamedTuple

from jalign.report.record import RunRecord, Series
from jalign.report.svg import COLORS, Chart, Line


class Panel(NamedTuple):
    """A chart of one run.

    Attributes:
      metrics: metric -> its label; lines of training and of held-out data.
      kinds: rows that it is drawn from.
      log: as in `Chart`.
    """

    title: str
    metrics: dict[str, str]
    unit: str = ""
    note: str = ""
    kinds: tuple[str, ...] = ("train", "eval")
    log: bool = False


PANELS = (
    Panel("Loss", {"loss": "loss"}),
    Panel("Reward", {"reward": "reward"}, note="mean over responses"),
    Panel(
        "Rewards of pairs",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
        note="implicit rewards: beta times the log-ratio of policy and reference",
    ),
    Panel("Margin", {"rewards/margins": "chosen - rejected"}),
    Panel("Accuracy", {"rewards/accuracies": "accuracy"}, note="pairs in the right order"),
    Panel(
        "Log-odds",
        {"log_odds_ratio": "log sigmoid of the ratio", "log_odds_chosen": "ratio"},
        note="chosen against rejected",
    ),
    Panel(
        "Log-probs",
        {"logps/chosen": "chosen", "logps/rejected": "rejected"},
        "nats per response",
        "if both fall, probability moves to responses that are in neither",
    ),
    Panel("KL to the reference", {"objective/kl": "KL"}, "nats per response"),
    Panel("KL to the reference", {"kl_k3": "k3"}, "nats per token", "the estimator k3"),
    Panel("Exact KL", {"kl": "KL"}, "nats per token"),
    Panel("Length", {"completions/mean_length": "mean"}, "tokens per response"),
    Panel(
        "Truncated", {"completions/clipped_ratio": "share"}, note="responses that reach the limit"
    ),
    Panel("Diversity", {"completions/distinct_2": "distinct-2"}, note="different pairs of tokens"),
    Panel("Entropy", {"entropy": "entropy"}, "nats per token"),
    Panel("Score of samples", {"samples/sentiment/mean": "sentiment"}, kinds=("samples",)),
    Panel("Spread of rewards", {"reward_std": "within a group"}, note="standard deviation"),
    Panel(
        "Clipped ratios",
        {"clip_ratio/low_mean": "low", "clip_ratio/high_mean": "high"},
        note="share of tokens",
    ),
    Panel("Value loss", {"value/loss": "loss"}),
    Panel("Explained variance", {"value/explained_variance": "of returns"}, note="by the critic"),
    Panel("Gradient norm", {"grad_norm": "before clipping"}, log=True),
    Panel("Learning rate", {"learning_rate": "learning rate"}),
    Panel("Speed", {"tokens_per_second": "speed"}, "tokens per second"),
)

HIDDEN = {
    "epoch", "eta_s", "step_time", "num_tokens", "skipped", "skipped_in_a_row", "memory/peak_gib",
    "rollout/idle_in_a_row", "rollout/attempts",
}  # fmt: skip
"""Clocks and counters, which other parts of the report show."""


def charts_of(run: RunRecord) -> tuple[list[Chart], list[Chart]]:
    """The charts of one run: those that `PANELS` names, and one for every other metric."""
    evaluations = run.series("eval", "loss").steps or [row["step"] for row in run.of("eval")]
    marks: dict[str, Any] = {"restarts": run.restarts, "evaluations": evaluations}
    drawn_panels = [
        Chart(title=p.title, unit=p.unit, note=p.note, lines=lines, log=p.log, **marks)
        for p in PANELS
        if (lines := _panel_lines(run, p))
    ]
    main = [chart for chart in drawn_panels if _varies(chart)]
    drawn = {name for panel in PANELS for name in panel.metrics} | HIDDEN
    names = dict.fromkeys((*run.names("train"), *run.names("eval"), *run.names("samples")))
    others = [
        Chart(title=name, lines=lines, **marks)
        for name in names
        if name not in drawn
        and (lines := _panel_lines(run, Panel(name, {name: name}, kinds=_KINDS)))
    ]
    constant = [chart for chart in drawn_panels if not _varies(chart)]
    return main, [*constant, *others]


def sampler_entropy(run: RunRecord) -> Series:
    """Mean of -log p of the sampled tokens, by rollout: an estimate of the entropy per token."""
    sums: dict[int, list[float]] = {}
    for row in run.responses:
        total = sums.setdefault(int(row["rollout"]), [0.0, 0.0])
        total[0] -= sum(row["token_logps"])
        total[1] += len(row["token_logps"])
    known = {number: a / b for number, (a, b) in sums.items() if b}
    return Series(list(known), list(known.values()))


_KINDS = ("train", "eval", "samples")


def _varies(chart: Chart) -> bool:
    """Whether there is anything to see: other metrics are one number all along."""
    return any(len(line.values) == 1 or len(set(line.values)) > 1 for line in chart.lines)


def _label(name: str, kind: str) -> str:
    """
    >>> _label("chosen", "train"), _label("chosen", "eval"), _label("", "train")
    ('chosen', 'chosen, held out', 'training')
    """
    what = {"train": "training", "eval": "held out"}.get(kind, kind)
    return what if not name else name if kind == "train" else f"{name}, {what}"


def _panel_lines(run: RunRecord, panel: Panel) -> list[Line]:
    lines = []
    for color, (name, label) in enumerate(panel.metrics.items()):
        for kind in panel.kinds:
            series = run.series(kind, name)
            if not series.values:
                continue
            held_out = kind == "eval"
            # of one quantity the two lines differ by color, of several by dashes
            several = len(panel.metrics) > 1
            lines.append(
                Line(
                    label=_label(label if several else "", kind),
                    steps=series.steps,
                    values=series.values,
                    color=(color if several else int(held_out)) % COLORS,
                    held_out=held_out or kind == "samples",
                )
            )
    return lines
