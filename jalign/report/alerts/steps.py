"""Signs that steps are not what they should be: clipped, skipped, late, or taken twice."""

from __future__ import annotations

from statistics import fmean

from jalign.report.alerts.trend import Alert
from jalign.report.record import RunRecord
from jalign.report.scale import compact, duration


def always_clipped(run: RunRecord) -> Alert | None:
    """At least 95 % of the logged gradient norms are above optim.clip_norm."""
    limit, norms = run.option("optim.clip_norm", 0), run.series("train", "grad_norm").values
    if not limit or len(norms) < 5:
        return None
    share = fmean(norm > limit for norm in norms)
    if share < 0.95:
        return None
    return Alert(
        f"the gradient norm is above optim.clip_norm ({limit:g}) in {share:.0%} of the lines "
        f"(median {compact(sorted(norms)[len(norms) // 2])}): every step has the same length, and "
        "the learning rate alone sets it."
    )


def skipped(run: RunRecord) -> Alert | None:
    """Steps were skipped because loss or gradient was not finite."""
    series = run.series("train", "skipped")
    if not series.values or not series.values[-1]:
        return None
    return Alert(
        f"{series.values[-1]:.0f} steps were skipped: their loss or gradient was not finite.",
        severe=series.values[-1] > 0.02 * max(series.steps[-1], 1),
    )


def waits_for_data(run: RunRecord) -> Alert | None:
    """The host waits for batches during more than 20 % of the time of training steps."""
    waited = sum(r["seconds"] for r in run.happened("phase") if r["name"] == "waiting for data")
    times = run.series("train", "step_time")
    if not waited or not times.values:
        return None
    total = fmean(times.values) * times.steps[-1]
    if waited < 0.2 * total or waited < 1:
        return None
    return Alert(
        f"the host waited {duration(waited)} for batches, {waited / total:.0%} of the training "
        "time."
    )


def lost_work(run: RunRecord) -> Alert | None:
    """Restarts after steps that were not saved."""
    lost, reached = 0, 0
    for row in run.events:
        if row["kind"] == "session":
            lost += max(reached - int(row["start"]), 0)
        reached = max(int(row["step"]), reached) if row["kind"] != "session" else int(row["start"])
    if not lost:
        return None
    times = "once" if len(run.restarts) == 1 else f"{len(run.restarts)} times"
    return Alert(
        f"{lost} steps were taken twice: the run was resumed {times} from an earlier "
        "checkpoint; checkpoint.every bounds that."
    )
