"""What the page of one run shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jalign.report import charts, samples, timeline
from jalign.report.alerts import Alert, alerts_of, printed
from jalign.report.record import RunRecord
from jalign.report.rollouts import rollouts_of
from jalign.report.scale import compact, duration, gib
from jalign.report.state import state_of

TILES = (
    ("eval", "rewards/accuracies", "held-out accuracy"),
    ("eval", "reward", "held-out reward"),
    ("train", "reward", "reward in training"),
    ("samples", "samples/sentiment/mean", "sentiment of samples"),
    ("eval", "loss", "held-out loss"),
    ("eval", "rewards/margins", "held-out margin"),
    ("eval", "objective/kl", "KL to the reference, nats"),
    ("eval", "completions/mean_length", "length, tokens"),
)
_MOST_TILES = 6


def context(run: RunRecord) -> Mapping[str, object]:
    """Values of page/run.html."""
    main, others = charts.charts_of(run)
    pairs, note = samples.before_and_after(run)
    values: dict[str, Any] = {
        "title": f"{run.name}: {run.algorithm}",
        "run": run,
        "state": state_of(run),
        "subtitle": _subtitle(run),
        "warnings": _warnings(run),
        "tiles": _tiles(run),
        "facts": _facts(run),
        "charts": main,
        "others": others,
        "samples": pairs,
        "samples_note": note,
        "rollouts": rollouts_of(run),
        "timeline": _timeline(run),
        "memory": _memory(run),
        "commands": _commands(run),
        "versions": _versions(run),
        "config": json.dumps(run.config, indent=2) if run.config else "",
        "hashes": _hashes(run),
        "messages": [row["text"] for row in run.happened("message")],
        "damage": run.damage,
    }
    parts = {
        "run": ("What was run", "facts"),
        "curves": ("Curves", "charts"),
        "samples": ("Samples", "samples"),
        "rollouts": ("Rollouts", "rollouts"),
        "time": ("Time", "timeline"),
        "memory": ("Memory", "memory"),
    }
    sections = [(key, name) for key, (name, part) in parts.items() if values[part]]
    return values | {"sections": [*sections, ("repeat", "How to repeat it")]}


def _warnings(run: RunRecord) -> list[Alert]:
    damage = [Alert(f"a part of the record could not be read: {line}") for line in run.damage[:1]]
    return [*alerts_of(run), *printed(run), *damage]


def _subtitle(run: RunRecord) -> str:
    parts = [run.algorithm]
    if model := run.option("model.path"):
        parts.append(f"on {str(model).rstrip('/').split('/')[-1]}")
    steps = f" of {run.steps:,}" if run.steps else ""
    parts.append(f"step {run.step:,}{steps}")
    if run.last_time:
        parts.append(datetime.fromtimestamp(run.last_time).strftime("%Y-%m-%d %H:%M"))
    total = sum(session.seconds for session in timeline.sessions_of(run))
    return " · ".join([*parts, *([duration(total)] if total else [])])


def _tiles(run: RunRecord) -> list[dict[str, str]]:
    tiles = []
    for kind, name, label in TILES:
        values = run.series(kind, name).values
        if len(values) < 2 or len(tiles) == _MOST_TILES:
            continue
        # training rewards are of prompts that were learned from
        if kind == "train" and run.series("eval", name).values:
            continue
        if len(values) > 20:  # one line of a noisy metric says little
            tenth = len(values) // 10
            values = [sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth]
        before = f"{compact(values[0])} before"
        tiles.append({"name": label, "value": compact(values[-1]), "before": before})
    return tiles


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    # all hyper-parameters, where config.json has those that were given
    hyper = run.session.get("identity", {}).get("algorithm") or run.option("algorithm", {})
    given = {name: x for name, x in hyper.items() if isinstance(x, int | float) and x}
    shown = ", ".join(f"{name} {x:g}" for name, x in given.items())
    session = run.session
    model = run.option("model.path") or session.get("model", "")
    sizes, data, devices = (session.get(n, {}) for n in ("parameters", "data", "devices"))
    counts = f", {sizes['trained']:,} trained parameters" if sizes else ""
    frozen = f" and {sizes['frozen']:,} frozen" if sizes.get("frozen") else ""
    lora = run.option("model.lora")
    where = f"{devices['count']} x {devices['kind']} ({devices['platform']})" if devices else ""
    processes = devices.get("processes", 1)
    facts = {
        "algorithm": f"{run.algorithm}: {shown}" if shown else run.algorithm,
        "model": f"{model}{counts}{frozen}" if model else "",
        "adapters": f"LoRA of rank {lora.get('rank')}" if lora else "",
        "reference": str(run.option("model.reference", "")),
        "data": _data(run, data),
        "reward": ", ".join(map(str, run.option("reward.functions", {}))),
        "optimizer": _optimizer(run),
        "batches": f"{run.option('batch_size', '?')} examples, seed {run.option('seed', '?')}",
        "devices": where + (f", {processes} processes" if processes > 1 else ""),
        "restarts": ", ".join(f"after step {step}" for step in run.restarts),
    }
    return [(name, text) for name, text in facts.items() if text]


def _data(run: RunRecord, counts: dict[str, int]) -> str:
    train = run.option("data.train", "")
    name = train if isinstance(train, str) else json.dumps(train)
    if not counts:
        return name
    return f"{name}: {counts['examples']:,} examples, {counts.get('held out', 0):,} held out"


def _optimizer(run: RunRecord) -> str:
    if "optimizer" in run.session.get("from_python", ()):
        return "an object given from Python"
    c = run.option("optim", {})
    rate = c.get("learning_rate")
    if not c.get("name") or rate is None:
        return ""
    return f"{c['name']}, learning rate {rate:g}, {c.get('schedule', '')}".rstrip(", ")


def _timeline(run: RunRecord) -> list[dict[str, Any]]:
    result, before = [], None
    for session in timeline.sessions_of(run):
        begin = session.segments[0].begin
        when = datetime.fromtimestamp(begin).strftime("%Y-%m-%d %H:%M:%S")
        title = f"{when}, {duration(session.seconds)}"
        if before is not None:
            title = f"Resumed after step {session.start}: {title}; {duration(begin - before)} later"
        before = session.segments[-1].end
        # a share of 1/800 is a pixel of the bar, and a run may have thousands of phases
        segments = timeline.merged(session.segments, session.seconds / 800)
        result.append(
            {
                "title": title,
                "segments": [
                    {
                        "color": timeline.CATEGORIES.index(s.category),
                        "share": f"{s.seconds / max(session.seconds, 1e-9):.5f}",
                        "title": f"{s.category}: {duration(s.seconds)}",
                    }
                    for s in segments
                ],
                "legend": [
                    {
                        "color": timeline.CATEGORIES.index(name),
                        "text": f"{name} {duration(x)} ({_percent(x, session.seconds)})",
                    }
                    for name, x in session.totals().items()
                ],
            }
        )
    return result


def _percent(part: float, total: float) -> str:
    return f"{part / total:.0%}" if part >= 0.005 * total else "<1%"


def _memory(run: RunRecord) -> dict[str, Any] | None:
    """The compiler's account beside what was measured."""
    planned = run.happened("memory")
    rows: list[tuple[str, float, bool]] = []
    resident = run.session.get("resident_bytes", {})
    rows += [(f"{name}, resident", float(size), False) for name, size in resident.items()]
    if planned:
        sizes = planned[-1]["bytes"]
        rows.append(("training step as compiled", float(sum(sizes.values())), False))
        rows.append(("of it temporary", float(sizes["temporary"]), False))
    peaks = run.series("train", "memory/peak_gib").values
    if peaks:
        rows.append(("measured peak of the device", max(peaks) * 2**30, True))
    hosts = [row["host_peak_bytes"] for row in run.happened("end") if row.get("host_peak_bytes")]
    if hosts:
        rows.append(("measured peak of the process", float(max(hosts)), True))
    if not rows:
        return None
    # one scale for all bars: they are there to be compared
    most = max(size for _, size, _ in rows)
    note = "Bytes of one device: planned by the compiler, and measured."
    if hosts and not peaks:
        note += (
            " This backend reports no device memory; the peak of the process has the libraries, "
            "the compiler and the data in it, too."
        )
    bars = [
        {"name": name, "share": f"{100 * size / most:.1f}", "text": gib(size), "measured": measured}
        for name, size, measured in rows
    ]
    return {"note": note, "rows": bars}


def _commands(run: RunRecord) -> str:
    session = run.session
    command = str(session.get("command", ""))
    lines = []
    # a script, or a notebook, may need more than its command line
    if command.startswith("jalign "):
        lines.append(f"{command}   # as it was run")
    elif command:
        lines.append(f"# run from Python: {command}")
    if given := session.get("from_python"):
        lines.append(
            f"# objects given from Python, which config.json does not hold: {', '.join(given)}"
        )
        return "\n".join(lines)
    config = shlex.quote(f"{run.folder}/config.json")
    lines.append(f"jalign train {config} --out {shlex.quote(run.folder + '-again')}")
    return "\n".join(lines)


def _versions(run: RunRecord) -> list[tuple[str, str]]:
    session = run.session
    versions = session.get("versions", {})
    return [("versions", ", ".join(f"{n} {x}" for n, x in versions.items()))] if versions else []


def _hashes(run: RunRecord) -> list[tuple[str, str]]:
    session = run.session
    identity = session.get("identity", {})
    names = ("data", "held_out", "tokenizer", "base_model", "reference")
    known = [(name.replace("_", " "), identity[name]) for name in names if identity.get(name)]
    return [(name, str(x)) for name, x in known]
