"""`robust_kto` against `kto` where 0, 20 and 40 % of the thumbs are wrong, in three ways; 3 seeds.

    python configs/real/noise_stories.py OUT [--model embedded] [--methods kto robust_kto]
                                         [--minutes 60] [--report]

The pairs are those of the package: two continuations of an opening, of which the more cheerful one
is preferred. A pair gives one thumb up and one down, both wrong if the pair is inverted
(`data.flip`). Held-out pairs keep their true labels: accuracy is the share of them whose chosen
response has gained more log-prob than the rejected one.

The model is the small one of the package or a Hugging Face folder (stories15M; with LoRA). Cells
are trained one after another, seed by seed, and kept in OUT/results.jsonl: the same command
continues. No cell starts after --minutes. The table is printed at the end, or alone.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import jalign
from jalign import embedded
from jalign.data.noise import KINDS
from jalign.data.sources import read
from jalign.options import DataConfig, OptimConfig

NOISE = [("none", 0.0), *((kind, share) for share in (0.2, 0.4) for kind in KINDS)]
SEEDS = 3
PAIRS, HELD, STEPS, BATCH = 480, 192, 30, 32
LIMITS = {"max_prompt_len": 40, "max_response_len": 40}

Cell = dict[str, Any]


def cell(policy: jalign.Policy, start: np.ndarray, method: str, kind: str, share: float, seed: int):
    """Train one cell and measure it on the held-out pairs."""
    run = jalign.offline(
        method, policy, pairs("train"), eval=[], batch_size=BATCH, steps=STEPS, seed=seed,
        **({"flip": kind, "flip_share": share} if share else {}), **LIMITS,
    )  # fmt: skip
    optim = OptimConfig(learning_rate=2e-3, schedule="constant", warmup_steps=3)
    began = time.process_time()
    run.fit(STEPS, optim, checkpoint_every=0, log_every=1, console=None)
    gained = logps(run.policy) - start
    right = (gained[:, 0] > gained[:, 1]).mean()
    last = {k: v for k, v in run.record[-1].items() if k in ("loss", "eta", "posterior", "kl")}
    return {
        "method": method, "kind": kind, "share": share, "seed": seed, "accuracy": float(right),
        "margin": float((gained[:, 0] - gained[:, 1]).mean()),
        "cpu_seconds": time.process_time() - began, **last,
    }  # fmt: skip


def pairs(split: str) -> list[dict[str, object]]:
    return read(str(embedded.pairs(split)))[: PAIRS if split == "train" else HELD]


def logps(policy: jalign.Policy) -> np.ndarray:
    """[held-out pairs, 2] log-probs of the chosen and the rejected response."""
    return jalign.score(policy, pairs("test"), data=DataConfig(**LIMITS)).logps


def run_cells(model: str, methods: list[str], out: Path, minutes: float) -> None:
    """Train what is not in OUT/results.jsonl, until the time is over."""
    out.mkdir(parents=True, exist_ok=True)
    results, end = out / "results.jsonl", time.monotonic() + 60 * minutes
    policy = jalign.load(model, lora=0 if model == "embedded" else 16)
    start = logps(policy)
    done = {key(c) for c in cells(out)}
    for seed in range(SEEDS):
        for kind, share in NOISE:
            for method in methods:
                if (method, kind, share, seed) in done or time.monotonic() > end:
                    continue
                result = cell(policy, start, method, kind, share, seed)
                with results.open("a") as file:
                    file.write(json.dumps(result) + "\n")


def cells(out: Path) -> list[Cell]:
    file = out / "results.jsonl"
    return [json.loads(x) for x in file.read_text().splitlines()] if file.exists() else []


def key(c: Cell) -> tuple[str, str, float, int]:
    return c["method"], c["kind"], c["share"], c["seed"]


def table(methods: list[str], out: Path) -> None:
    """Print the mean accuracy over the seeds that all methods have, and its standard error."""
    by = {key(c): c["accuracy"] for c in cells(out)}
    print("| wrong labels |", " | ".join(methods), "| seeds |")
    print("|" + "---|" * (len(methods) + 2))
    for kind, share in NOISE:
        seeds = [s for s in range(SEEDS) if all((m, kind, share, s) in by for m in methods)]
        if not seeds:
            continue
        x = np.array([[by[m, kind, share, s] for s in seeds] for m in methods])
        error = x.std(1, ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else [np.nan] * len(x)
        shown = [f"{m:.3f} ± {e:.3f}" for m, e in zip(x.mean(1), error, strict=True)]
        title = kind if kind == "none" else f"{kind} {100 * share:.0f} %"
        print(f"| {title} |", " | ".join(shown), f"| {len(seeds)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--methods", nargs="+", default=["kto", "robust_kto"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if not options.report:
        run_cells(options.model, options.methods, options.out, options.minutes)
    table(options.methods, options.out)
