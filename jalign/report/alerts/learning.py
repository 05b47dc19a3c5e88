"""Signs that too much, too little or something else is learned."""

from __future__ import annotations

from statistics import fmean

from jalign.report.alerts.trend import Alert, best_kind, ends, halves
from jalign.report.record import RunRecord
from jalign.report.scale import compact


def saturated(run: RunRecord) -> Alert | None:
    """Training accuracy above 97 % while the held-out one falls by 3 points."""
    train, held = (run.series(kind, "rewards/accuracies") for kind in ("train", "eval"))
    if len(train.values) < 4 or len(held.values) < 2:
        return None
    end, best = halves(train.values)[1], max(held.values)
    if end < 0.97 or best - held.values[-1] < 0.03:
        return None
    step = held.steps[held.values.index(best)]
    return Alert(
        f"overfitting: training accuracy is {end:.0%}, held-out accuracy fell from {best:.0%} "
        f"(step {step}) to {held.values[-1]:.0%}.",
        severe=True,
    )


def held_out_loss_rises(run: RunRecord) -> Alert | None:
    """The held-out loss ends more than 5 % above its lowest while the training loss falls."""
    train, held = run.series("train", "loss"), run.series("eval", "loss")
    # rewards of online runs decide there: their loss stays near 0 whatever is learned
    if run.series("train", "reward").values or len(train.values) < 4 or len(held.values) < 3:
        return None
    best, last = min(held.values), held.values[-1]
    (before, after) = halves(train.values)
    if after >= before or last - best < 0.05 * abs(best):
        return None
    step = held.steps[held.values.index(best)]
    return Alert(
        f"the held-out loss rises since step {step} ({compact(best)} to {compact(last)}) while the "
        "training loss falls: stop.metric keeps the best checkpoint."
    )


def nothing_learned(run: RunRecord) -> Alert | None:
    """The held-out accuracy is that of chance after the last step."""
    held = run.series("eval", "rewards/accuracies")
    if len(held.values) < 2 or abs(held.values[-1] - 0.5) > 0.02:
        return None
    return Alert(
        f"held-out accuracy is {held.values[-1]:.1%}, as by chance: nothing was learned, or not "
        "yet.",
        severe=True,
    )


def best_was_earlier(run: RunRecord) -> Alert | None:
    """The last evaluation is clearly worse than the best one."""
    for name in ("reward", "rewards/accuracies"):
        held = run.series("eval", name)
        if len(held.values) < 3:
            continue
        best, last = max(held.values), held.values[-1]
        rise = best - held.values[0]
        if rise > 0 and best - last > 0.2 * rise and best - last > 0.01 * abs(best):
            step = held.steps[held.values.index(best)]
            return Alert(
                f"the best held-out {name} was {compact(best)} at step {step}, the last is "
                f"{compact(last)}."
            )
    return None


def both_fall(run: RunRecord) -> Alert | None:
    """The log-prob of chosen responses falls by more than 10 % and 5 nats."""
    kind = best_kind(run, "logps/chosen", least=2)
    series = run.series(kind or "train", "logps/chosen")
    if len(series.values) < 2:
        return None
    first, last = ends(series)
    if first - last < max(5.0, 0.1 * abs(first)):
        return None
    return Alert(
        f"chosen responses became less likely: log-prob {compact(first)} to {compact(last)} nats. "
        "Margins grow because rejected ones fall faster; a likelihood term (nll_coef) counters it."
    )


def empty_samples(run: RunRecord) -> Alert | None:
    """More than 10 % of the continuations are empty after training, and more than before."""
    rows = [row for row in run.of("generations") if row.get("rows")]
    if len(rows) < 2:
        return None
    texts = [[str(x.get("continuation", "")) for x in row["rows"]] for row in (rows[0], rows[-1])]
    before, after = (fmean(not t.strip() for t in ts) if ts else 0.0 for ts in texts)
    if after <= 0.1 or after <= before:
        return None
    return Alert(f"{after:.0%} of the continuations are empty after training, {before:.0%} before.")
