"""Kill a run with SIGKILL at random moments, restart it each time, and compare its end with an
uninterrupted run's.

    python tests/faults/kill9.py [--kills 20] [--config configs/tiny/dpo.yaml] [--steps 60]

Prints one line per life and `EQUAL` when every parameter, optimizer moment and counter is the same
to the bit (the checkpoints hold a checksum of every leaf). Takes minutes, so it is not part of the
test suite.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def command(config: str, out: Path, steps: int) -> list[str]:
    every = ["--checkpoint.every", "2", "--log_every", "1", "--steps", str(steps)]
    return [sys.executable, "-m", "jalign", "train", config, "--out", str(out), *every]


def start(config: str, out: Path, steps: int) -> subprocess.Popen:
    return subprocess.Popen(
        command(config, out, steps),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def final_leaves(out: Path, steps: int) -> dict:
    """Shape, dtype and checksum of every leaf of the last checkpoint."""
    (meta,) = (out / "checkpoints" / str(steps) / "meta").glob("*.json")
    return json.loads(meta.read_text())["leaves"]


def steps_logged(out: Path) -> list[int]:
    path = out / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row["step"] for row in rows if row["kind"] == "train"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--config", default="configs/tiny/dpo.yaml")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, folder = random.Random(options.seed), Path(tempfile.mkdtemp())
    whole, broken = folder / "whole", folder / "broken"
    begin = time.perf_counter()
    run = start(options.config, whole, options.steps)
    output, _ = run.communicate()
    if run.returncode:
        print(output)
        return 1
    seconds = time.perf_counter() - begin
    print(f"uninterrupted: {seconds:.1f} s", flush=True)
    kills = 0
    while True:
        run = start(options.config, broken, options.steps)
        moment = rng.uniform(0.2, 1.0) * seconds if kills < options.kills else None
        try:
            output, _ = run.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            run.kill()
            output, _ = run.communicate()
        went_on = [line for line in output.splitlines() if line.startswith("going on")]
        kills += run.returncode == -9
        how = "killed" if run.returncode == -9 else f"exit {run.returncode}"
        where = went_on[0] if went_on else "fresh start"
        logged = max(steps_logged(broken), default=0)
        print(f"life {kills}: {how} after {moment or 0:.1f} s; {where}; step {logged}", flush=True)
        if run.returncode == 0:
            if kills >= options.kills:
                break
            shutil.rmtree(broken)  # it ended before it could be killed often enough: another one
        elif run.returncode != -9:
            print(output)
            return 1
    same = final_leaves(whole, options.steps) == final_leaves(broken, options.steps)
    logged = steps_logged(broken)
    print(f"every step logged once: {logged == sorted(set(logged))}")
    print("EQUAL" if same else "DIFFERENT")
    return not same


if __name__ == "__main__":
    raise SystemExit(main())
