"""GRPO on a verifiable reward: sums up to 9, learned from right or wrong alone.

    python configs/real/arithmetic.py OUT [MODEL_FOLDER]

The small story model in the package (or another) cannot add. First it is shown what digits and
answers look like, and no right answer: the number line from each digit on (3, then 4 5 6 7 8 9),
and problems with answers drawn at random from 0 to 9, which say nothing of which is right. Then
GRPO with the reward `exact_match`: 1 if the response is the sum, else 0. The KL penalty to what was
shown is large on purpose: it keeps every answer possible until the right one has been found.
Printed is the share of answers that are right, of ten sampled at temperature 1 to each of the 55
problems: of the model as it is, and by GRPO's steps. What is finished is not done again.
"""

import sys
from pathlib import Path

import numpy as np
from _process import evaluations, jalign, train

from jalign.data.write import write

CONFIG = str(Path(__file__).with_name("arithmetic.yaml"))
SFT = str(Path(__file__).with_name("stories15m_cpu.yaml"))


def data(out: Path) -> list[str]:
    """Files: all sums with their answers, these ten times over, and what is shown first."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in range(10) for b in range(10 - a)]
    sums = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a, b in pairs]
    line = [{"prompt": f"{a}", "completion": "".join(f" {i}" for i in range(a + 1, 10))}
            for a in range(9)]  # fmt: skip
    shown = [{"prompt": r["prompt"], "completion": f" {rng.integers(10)}"} for r in sums * 60]
    shown += [line[i] for i in rng.integers(len(line), size=len(shown))]
    out.mkdir(parents=True, exist_ok=True)
    files = {"sums": sums, "sums_x10": sums * 10, "shown": shown}
    for name, rows in files.items():
        write(str(out / f"{name}.jsonl"), rows)
    return [str(out / f"{name}.jsonl") for name in files]


def main(folder: str, model: str = "embedded") -> None:
    out = Path(folder)
    sums, sums_x10, shown = data(out)
    sft = ["--algorithm.name", "sft", "--batch_size", "64", "--steps", "120"]
    sft += ["--optim.learning_rate", "1e-3", "--data.limit", "0", "--data.holdout", "0"]
    train(SFT, out / "format", "--model.path", model, "--data.train", shown, *sft)
    if not (out / "shown").exists():
        jalign("export", str(out / "format"), str(out / "shown"), "--dtype", "float32")
    common = ["--data.train", sums, "--data.eval", sums_x10]
    before = ["--steps", "1", "--optim.learning_rate", "0", "--optim.warmup_steps", "0"]
    train(CONFIG, out / "start", "--model.path", model, *common, *before)
    cost = train(CONFIG, out / "grpo", "--model.path", str(out / "shown"), *common)
    print(f"the model as it is: {evaluations(out / 'start')[0]['reward']:.2f}")
    for row in evaluations(out / "grpo"):
        print(f"GRPO, {row['step']} steps: {row['reward']:.2f}")
    print(f"GRPO took {cost['cpu_seconds']:.0f} CPU-seconds and {cost['gib']:.2f} GiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
