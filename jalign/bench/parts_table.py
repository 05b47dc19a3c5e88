"""The results of `jalign.bench.parts` as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PLAN = "plan_"  # the part `plan_X` is what `jalign plan` says of the part `X`
MIB_PER_GIB = 1024
COLUMNS = (
    "part", "result", "wall s", "step s", "tokens/s", "MFU", "of the bandwidth", "peak GiB",
    "planned GiB",
)  # fmt: skip


def markdown(names: Sequence[str], results: Mapping[str, Mapping[str, Any]]) -> str:
    """What the machine is, one row per part, and the last lines of those that did not end well."""
    lines = _machine(results)
    lines += [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for name in names:
        if not name.startswith(PLAN):
            plan = results.get(PLAN + name, {}).get("figures", {})
            lines.append(f"| {' | '.join(_row(name, results.get(name), plan))} |")
    wrong = [name for name in names if results.get(name, {}).get("error")]
    for name in wrong:
        result = results[name]
        lines += ["", f"`{name}`, {_state(result)}: `{result['command']}`"]
        lines += ["```", *result["error"].splitlines(), "```"]
    return "\n".join(lines) + "\n"


def _machine(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    facts = results.get("doctor", {}).get("figures", {})
    lines = [
        f"- {fact}" for name in ("devices", "memory", "versions") for fact in facts.get(name, [])
    ]
    return [*lines, ""] if lines else []


def _row(name: str, result: Mapping[str, Any] | None, plan: Mapping[str, Any]) -> list[str]:
    if result is None:
        return [f"`{name}`", "not reached", *[""] * 6, _number(plan.get("gib_peak"), 2)]
    f = result["figures"]
    rate = f.get("tokens_per_second", f.get("together_tokens_per_second"))
    return [
        f"`{name}`",
        _state(result),
        _number(result["seconds"], 0),
        _number(f.get("median_s"), 3),
        _number(rate, 0),
        _percent(f.get("mfu")),
        _percent(f.get("bandwidth_share")),
        _peak(f),
        _number(plan.get("gib_peak"), 2),
    ]


def _state(result: Mapping[str, Any]) -> str:
    code = result["exit_code"]
    return f"failed ({code})" if result["status"] == "failed" else result["status"]


def _peak(f: Mapping[str, Any]) -> str:
    """The device's peak; at most, where loading took as much as the steps did."""
    peak, loading = f.get("device_peak_mib"), f.get("loading_device_peak_mib")
    if peak is None:
        return ""
    return ("at most " if peak == loading else "") + _number(peak / MIB_PER_GIB, 2)


def _number(x: float | None, digits: int) -> str:
    return "" if x is None else f"{x:,.{digits}f}"


def _percent(x: float | None) -> str:
    return "" if x is None else f"{x:.1%}"
