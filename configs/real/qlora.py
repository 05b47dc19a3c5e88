"""QLoRA (arXiv 2305.14314) against LoRA: what a frozen base of 4 bits costs in quality.

    python configs/real/qlora.py MODEL_FOLDER PAIRS.jsonl.gz OUT [--key value ...]

DPO and a Bradley-Terry reward model with adapters of rank 16, two seeds each; prints the held-out
accuracy and loss in the end, for each seed. The base is decoded to
float32 where it is used, so that the difference is that of its values alone. More arguments go to
every run; a run that is finished is not run again.
"""

import sys
from pathlib import Path

from _process import evaluations, train

CONFIG = str(Path(__file__).with_name("stories15m_cpu.yaml"))
RATES = {"dpo": "1e-4", "bradley_terry": "1e-3"}  # the head of a reward model is new
SEEDS = (0, 1)


def main(model: str, pairs: str, out: str, *more: str) -> None:
    print("| run | accuracy | loss |")
    print("|---|---|---|")
    for algorithm, rate in RATES.items():
        for quant in ("none", "nf4"):
            ends = []
            for seed in SEEDS:
                folder = Path(out) / f"{algorithm}-{quant}-{seed}"
                given = ["--model.path", model, "--data.train", pairs, "--model.lora.rank", "16"]
                given += ["--model.quant", quant, "--seed", str(seed)]
                given += ["--optim.learning_rate", rate]
                train(CONFIG, folder, "--algorithm.name", algorithm, *given, *more)
                ends.append(evaluations(folder)[-1])
            cells = []
            for name in ("rewards/accuracies", "loss"):
                found = [end[name] for end in ends]
                cells.append(", ".join(f"{x:.3f}" for x in found))
            print(f"| {algorithm}, {quant} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
