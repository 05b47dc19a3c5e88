"""Held-out metrics before and after every run under a folder, as a Markdown table: python
configs/real/table.py OUT
"""

import json
import sys
from pathlib import Path

COLUMNS = {
    "loss": "loss",
    "rewards/accuracies": "reward accuracy",
    "logps/accuracies": "log-prob accuracy",
    "rewards/margins": "margin",
}


def evaluations(run: Path) -> list[dict]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == "eval"]


def main(folder: Path) -> None:
    print(f"| run | {' | '.join(COLUMNS.values())} |")
    print(f"| --- |{' --- |' * len(COLUMNS)}")
    for run in sorted(p.parent for p in folder.glob("*/done")):
        first, last = evaluations(run)[0], evaluations(run)[-1]
        cells = [f"{first[c]:.3f} -> {last[c]:.3f}" if c in first else "" for c in COLUMNS]
        print(f"| {run.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
