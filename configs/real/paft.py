"""PAFT (arXiv 2406.17923): SFT and DPO trained in parallel from one base and merged.

Against SFT and then DPO, and against ORPO, which does both at once:

    python configs/real/paft.py MODEL_FOLDER PAIRS.jsonl.gz OUT

SFT and DPO start from the same weights; the SFT adapters are kept sparse by an L1 penalty. `jalign
merge` adds the full-rank changes (TIES). Each model is then scored on the same held-out pairs:

* log-prob accuracy: how often the chosen response is the likelier one;
* nll: of the chosen responses, nats per token;
* sparsity: entries of the change from the base that are at most 1e-5; conflict: entries at which
  the changes of SFT and of preference training have different signs.
"""

import json
import sys
from pathlib import Path

import numpy as np
from _process import jalign
from compare import train

from jalign.models.merge import sign_conflict, sparsity
from jalign.models.safetensors_io import Checkpoint

LORA = ["--model.lora.rank", "16"]
L1 = "0.5"
FULL = ("--dtype", "float32", "--overwrite")  # deltas are smaller than bfloat16 can hold


def weights(folder: Path) -> dict[str, np.ndarray]:
    with Checkpoint(folder) as checkpoint:
        everything = {n: tuple(slice(None) for _ in s) for n, s in checkpoint.shapes.items()}
        return {n: checkpoint.read(n, i).astype(np.float32) for n, i in everything.items()}


def score(model: Path, base: str, pairs: str, out: Path) -> tuple[float, float]:
    """Held-out log-prob accuracy and the NLL of the chosen responses, by a run of no effect."""
    nothing = ["--steps", "1", "--optim.learning_rate", "0", "--optim.warmup_steps", "0"]
    train("orpo", str(model), pairs, out, [*nothing, "--model.tokenizer", base])
    rows = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    first = next(r for r in rows if r["kind"] == "eval")
    return first["logps/accuracies"], first["nll_loss"]


def main(model: str, pairs: str, out: str) -> None:
    folder, base = Path(out), weights(Path(model))
    sft = [*LORA, "--optim.learning_rate", "1e-3"]
    dpo = [*LORA, "--optim.learning_rate", "1e-4"]
    train("sft", model, pairs, folder / "sft", sft)
    train("sft", model, pairs, folder / "sft-l1", [*sft, "--optim.l1", L1])
    train("dpo", model, pairs, folder / "dpo", dpo)
    train("orpo", model, pairs, folder / "orpo", sft)
    exported = {}
    for name in ("sft", "sft-l1", "dpo", "orpo"):
        exported[name] = folder / "exported" / name
        jalign("export", str(folder / name), str(exported[name]), *FULL)
    train("dpo", str(exported["sft"]), pairs, folder / "sft-then-dpo", dpo)
    exported["sft-then-dpo"] = folder / "exported" / "sft-then-dpo"
    jalign("export", str(folder / "sft-then-dpo"), str(exported["sft-then-dpo"]), *FULL)
    for name, first in (("paft-ties", "sft-l1"), ("paft-ties without l1", "sft")):
        exported[name] = folder / "exported" / name
        both = [str(exported[first]), str(exported["dpo"])]
        given = ["--method", "ties", "--density", "0.5", "--base", model]
        jalign("merge", str(exported[name]), *given, "--models", *both)
    change = {n: {k: w - base[k] for k, w in weights(f).items()} for n, f in exported.items()}

    print("| model | log-prob accuracy | nll of chosen | sparsity | conflict with DPO |")
    print("|---|---|---|---|---|")
    accuracy, nll = score(Path(model), model, pairs, folder / "scores" / "base")
    print(f"| base | {accuracy:.3f} | {nll:.3f} | | |")
    for name, path in exported.items():
        accuracy, nll = score(path, model, pairs, folder / "scores" / name)
        zero, apart = (
            float(sparsity(change[name])),
            float(sign_conflict(change[name], change["dpo"])),
        )
        conflict = f"{apart:.3f}" if name.startswith("sft") else ""
        print(f"| {name} | {accuracy:.3f} | {nll:.3f} | {zero:.3f} | {conflict} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
