"""Runs of comparisons: each `jalign` command in a process of its own, its cost kept beside it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def jalign(*words: str) -> None:
    """A command that must succeed; what it does is printed, what it prints is not."""
    print("+ jalign", *words, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "jalign", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def train(config: str, out: Path, *more: str) -> dict[str, float]:
    """`jalign train` into `out` unless it has ended before, and what it cost: CPU-seconds, seconds
    and peak resident GiB of the process, compilation included, of the last start.
    """
    cost = out / "cost.json"
    if not cost.exists():
        words = ["train", config, "--out", str(out), *more]
        print("+ jalign", *words, file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "jalign", *words]
        process, peak = subprocess.Popen(command, stdout=subprocess.DEVNULL), 0.0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, _peak_gib(process.pid))
            time.sleep(0.2)
        _, status, usage = ended
        if status:
            raise SystemExit(f"{out.name} failed")
        seconds = usage.ru_utime + usage.ru_stime
        cost.write_text(json.dumps({"cpu_seconds": seconds, "gib": peak}))
    return json.loads(cost.read_text())


def _peak_gib(pid: int) -> float:
    """Peak resident memory of a process so far. What wait4 says of it is at least what its parent
    had when it was started.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(x.split()[1]) / 2**20 for x in lines if x.startswith("VmHWM")), 0.0)


def evaluations(out: Path) -> list[dict[str, float]]:
    """The evaluations that a run recorded, the first before its first step."""
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == "eval"]
