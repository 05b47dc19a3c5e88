"""PERL (arXiv 2403.10704) checked: reward modelling and DPO with LoRA against full training.

    python configs/real/perl.py MODEL_FOLDER PAIRS.jsonl.gz OUT [--key value ...]

Prints for every run the held-out accuracy before and after, the median seconds of a step and the
peak resident memory of the process. More arguments go to every run.
"""

import json
import sys
from pathlib import Path
from statistics import median

from compare import train

LORA = ["--model.lora.rank", "16"]
# LoRA wants a higher learning rate than full training (Sec. 4 of the paper); the head is new.
RUNS = {
    "bradley_terry-full": ("bradley_terry", ["--optim.learning_rate", "1e-5"]),
    "bradley_terry-lora": ("bradley_terry", [*LORA, "--optim.learning_rate", "1e-4"]),
    "dpo-full": ("dpo", ["--optim.learning_rate", "2e-6"]),
    "dpo-lora": ("dpo", [*LORA, "--optim.learning_rate", "2e-5"]),
}


def main(model: str, pairs: str, out: str, *more: str) -> None:
    print("| run | accuracy | seconds per step | GiB |")
    print("|---|---|---|---|")
    for name, (algorithm, own) in RUNS.items():
        folder = Path(out) / name
        train(algorithm, model, pairs, folder, [*own, "--log_every", "1", *more])
        rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        first, *_, last = [r["rewards/accuracies"] for r in rows if r["kind"] == "eval"]
        seconds = [r["step_time"] for r in rows if r["kind"] == "train"][1:]  # the first compiles
        gib = json.loads((folder / "cost.json").read_text())["gib"]
        print(f"| {name} | {first:.3f} -> {last:.3f} | {median(seconds):.2f} | {gib:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
