"""Records of runs, made by hand."""

import json

from jalign.report import RunRecord


def rows(kind, steps, **metrics):
    """One row per step, metric -> its values."""
    return [
        {"step": step, "kind": kind, "time": 1000.0 + step}
        | {name: values[i] for name, values in metrics.items()}
        for i, step in enumerate(steps)
    ]


def record(*parts, config=None, events=(), responses=(), name="run"):
    metrics = sorted((row for part in parts for row in part), key=lambda row: row["step"])
    return RunRecord(
        name=name,
        folder=f"runs/{name}",
        config=config or {},
        metrics=metrics,
        events=list(events),
        responses=list(responses),
        rollouts=len({row["rollout"] for row in responses}),
    )


def event(kind, time, step=0, **facts):
    return {"step": step, "kind": kind, "time": time, **facts}


def session(time, start=0, steps=8, **facts):
    given = {"id": "a" * 16, "loading_s": 2.0, "pid": 1, "host": "elsewhere"} | facts
    return event("session", time, start, start=start, steps=steps, **given)


def response(rollout, score, text="a text", prompt="a prompt", tokens=4, logp=-1.0):
    return {
        "rollout": rollout,
        "prompt": prompt,
        "response": text,
        "score": score,
        "advantage": score,
        "tokens": list(range(tokens)),
        "token_logps": [logp] * tokens,
        "finished": True,
    }


def write(folder, metrics, events=(), config=None):
    """The files of a run."""
    (folder / "checkpoints").mkdir(parents=True)
    for name, part in (("metrics.jsonl", metrics), ("events.jsonl", events)):
        if part:
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    (folder / "config.json").write_text(json.dumps(config or {"algorithm": {"name": "dpo"}}))
    return folder
