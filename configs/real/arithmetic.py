"""GRPO on a verifiable reward: sums up to 9, learnt from right or wrong alone.

    python configs/real/arithmetic.py OUT [MODEL_FOLDER]

The small story model in the package (or another) cannot add. First it is shown what an answer looks
like: problems with answers drawn at random from 0 to 9, which say nothing of which is right. Then
GRPO with the reward `exact_match`: 1 if the response is the sum and ends, else 0; a little KL to
what was shown keeps it trying answers. Printed is the share of the 55 problems that are answered
right by sampling, before and after each. What is finished is not done again.
"""

import sys
from pathlib import Path

import numpy as np
from _process import evaluations, jalign, train

from jalign.data.write import write

CONFIG = str(Path(__file__).with_name("arithmetic.yaml"))
SFT = str(Path(__file__).with_name("stories15m_cpu.yaml"))


def problems(out: Path) -> tuple[str, str]:
    """All sums with their answers, and problems with random answers."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in range(10) for b in range(10 - a)]
    sums = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a, b in pairs]
    rows = [sums[i] for _ in range(60) for i in rng.permutation(len(sums))]
    shown = [{"prompt": r["prompt"], "completion": f" {rng.integers(10)}"} for r in rows]
    out.mkdir(parents=True, exist_ok=True)
    write(str(out / "sums.jsonl"), sums)
    write(str(out / "random_answers.jsonl"), shown)
    return str(out / "sums.jsonl"), str(out / "random_answers.jsonl")


def main(folder: str, model: str = "embedded") -> None:
    out = Path(folder)
    sums, shown = problems(out)
    sft = ["--algorithm.name", "sft", "--batch_size", "64", "--optim.learning_rate", "1e-3"]
    train(SFT, out / "format", "--model.path", model, "--data.train", shown, *sft)
    if not (out / "shown").exists():
        jalign("export", str(out / "format"), str(out / "shown"))
    common = ["--data.train", sums, "--data.eval", sums]
    before = ["--steps", "1", "--optim.learning_rate", "0", "--optim.warmup_steps", "0"]
    train(CONFIG, out / "start", "--model.path", model, *common, *before)
    cost = train(CONFIG, out / "grpo", "--model.path", str(out / "shown"), *common)
    print(f"the model as it is: {evaluations(out / 'start')[0]['reward']:.2f}")
    for row in evaluations(out / "grpo"):
        print(f"GRPO, {row['step']} steps: {row['reward']:.2f}")
    print(f"GRPO took {cost['cpu_seconds']:.0f} CPU-seconds and {cost['gib']:.2f} GiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
