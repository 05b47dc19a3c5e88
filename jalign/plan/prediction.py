"""What a plan says of time: seconds of its programs and what they are spent on."""

from __future__ import annotations

from jalign.kernels.devices import Accelerator
from jalign.plan.calibration import CALIBRATIONS
from jalign.plan.timeline import Timeline

MOST_EXPENSIVE = 10  # lines of jalign that are printed
_KINDS = {
    "product": "matrix products", "kernel": "kernels", "copy": "copies between layouts",
    "collective": "exposed collectives", "transfer": "exposed copies",
}  # fmt: skip


def predicted_s(timeline: Timeline, accelerator: Accelerator) -> float:
    """Seconds of a program, times the factor of the calibration."""
    calibration = CALIBRATIONS.get(accelerator.kind)
    return timeline.seconds * (calibration.factor if calibration else 1.0)


def basis(accelerator: Accelerator) -> str:
    """What the seconds are computed from, and how far they were off where they can be compared."""
    if accelerator.platform != "tpu":
        return "a roofline: nothing was timed, and no compiler's estimate is in it"
    calibration = CALIBRATIONS.get(accelerator.kind)
    if calibration is None:
        return "the compiler's cycles, not calibrated on this generation"
    return (
        f"the compiler's cycles, calibrated by {calibration.factor:.2f} on {calibration.anchors}; "
        "other programs may be off by as much"
    )


def record(timeline: Timeline, accelerator: Accelerator) -> dict[str, object]:
    """As JSON: seconds, their shares by kind, and the most expensive lines."""
    factor = predicted_s(timeline, accelerator) / (timeline.seconds or 1.0)
    return {
        "seconds": timeline.seconds * factor,
        "factor": factor,
        "basis": basis(accelerator),
        "shares": {kind: timeline.share(kind) for kind in _KINDS},
        "collectives_s": timeline.links * factor,
        "exposed_collectives_s": timeline.of("collective") * factor,
        "kernels_not_counted": timeline.unknown,
        "costs": [
            {"kind": c.kind, "line": c.line, "seconds": c.seconds * factor, "bound": c.bound}
            for c in timeline.costs[:MOST_EXPENSIVE]
        ],
    }


def lines(name: str, timeline: Timeline, accelerator: Accelerator) -> list[str]:
    """As text."""
    total = predicted_s(timeline, accelerator)
    factor = total / (timeline.seconds or 1.0)
    shares = ", ".join(f"{timeline.share(k):.0%} {words}" for k, words in _KINDS.items())
    text = [
        f"  {name}: {total:.3g} s predicted: {shares}; "
        f"links busy for {timeline.links * factor:.3g} s"
    ]
    if timeline.unknown:
        text.append(f"    not counted: {timeline.unknown:.0f} calls of kernels without an estimate")
    for cost in timeline.costs[:MOST_EXPENSIVE]:
        share = f"{cost.seconds * factor:9.4f} s {cost.seconds / timeline.seconds:6.1%}"
        text.append(f"    {share}  {cost.kind:<11}{cost.line:<34}{cost.bound}")
    return text
