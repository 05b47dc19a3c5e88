"""Many algorithms on the same pairs with the same budget, and one table of what came of each:

    python configs/real/compare.py MODEL_FOLDER PAIRS.jsonl.gz OUT [ALGORITHM ...]

Every run is `jalign train configs/real/stories15m_cpu.yaml` with its algorithm, in a process of its
own. Then all are measured alike, whatever their loss: with d = log p(response) - log p_start
(response), summed, on the held-out pairs

* accuracy: how often d(chosen) > d(rejected); margin: the mean difference, nats;
* chosen: mean change of the chosen response's log-prob, nats per token;
* KL: exact KL(policy || start) over the vocabulary, nats per scored token;
* CPU-seconds and peak memory (resident, GiB) of the whole process, compilation included.

A run that is finished is not run again.
"""

import json
import sys
from pathlib import Path

import _process
import jax
import jax.numpy as jnp
import numpy as np

from jalign.core import Frozen
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run.batches import held_source_of
from jalign.run.decoders import Source
from jalign.run.devices import mesh_of
from jalign.run.roles import load_roles

CONFIG = str(Path(__file__).with_name("stories15m_cpu.yaml"))
# Each with what its paper leaves to the user on data of this kind; the learning rate is one for
# all, except where the scale of the loss forbids it.
ALGORITHMS = {
    "sft": [],
    "dpo": [],
    "ipo": [],
    "kto": [],
    "orpo": [],
    "simpo": [],
    "cpo": [],
    "slic_hf": [],
    "rrhf": [],
    "lipo_lambda": [],
    "npo": [],
    "tdpo2": [],
    "beta_dpo": [],
    "sppo_hard": ["--algorithm.beta", "0.1"],
}


def train(name: str, model: str, pairs: str, out: Path, more: list[str]) -> None:
    """One run in a process of its own; its time and memory are kept beside it."""
    given = ["--model.path", model, "--data.train", pairs, "--algorithm.name", name]
    _process.train(CONFIG, out, *given, *more)


def measure(out: Path, pairs_run: Path) -> dict[str, float]:
    """The common measures of a run, on the held-out pairs of a run that reads pairs."""
    _, trained, state, _ = runs.newest(str(out))
    config = runs.options_of(str(pairs_run))
    mesh = mesh_of(config.mesh)
    model = load_roles(config, Source(mesh), trained.tokenizer)
    _, held = build_data.examples_of(config, trained.tokenizer)
    names = ("token_logps", "ref_token_logps", "kl_to_ref")

    @jax.jit
    def of_batch(params, frozen: Frozen, batch):
        layout, ref = batch.layout, frozen.ref
        found = trained.apply(params, frozen.base, layout, names, None, reference=ref)
        found = {n: jnp.where(batch.mask, x.reshape(batch.mask.shape), 0) for n, x in found.items()}
        ratio = (found["token_logps"] - found["ref_token_logps"]).sum(-1)
        length = jnp.maximum(batch.mask.sum(-1), 1)
        here = batch.present
        d, change = ratio[:, 0] - ratio[:, 1], ratio[:, 0] / length[:, 0]
        wins = jnp.where(d == 0, 0.5, d > 0)
        return {
            "accuracy": (jnp.where(here, wins, 0).sum(), here.sum()),
            "margin": (jnp.where(here, d, 0).sum(), here.sum()),
            "chosen": (jnp.where(here, change, 0).sum(), here.sum()),
            "kl": (found["kl_to_ref"].sum(), batch.mask.sum()),
        }

    totals: dict[str, np.ndarray] = {}
    frozen = Frozen(trained.base, model.params)
    with jax.set_mesh(mesh):
        for parts in held_source_of(config, held, mesh, model.decoder.spec).eval_batches():
            for part in parts:
                for i in range(int(part.count)):
                    batch = jax.tree.map(lambda x, i=i: x[i], part.batch)
                    for name, pair in of_batch(state.params, frozen, batch).items():
                        totals[name] = totals.get(name, 0) + np.array(pair, float)
    cost = json.loads((out / "cost.json").read_text())
    return {name: total / count for name, (total, count) in totals.items()} | cost


def main(model: str, pairs: str, out: str, *chosen: str) -> None:
    folder = Path(out)
    names = chosen or tuple(ALGORITHMS)
    for name in dict.fromkeys(("dpo", *names)):
        train(name, model, pairs, folder / name, ALGORITHMS.get(name, []))
    print("| algorithm | accuracy | margin | chosen | KL | CPU-s | GiB |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        m = measure(folder / name, folder / "dpo")
        print(
            f"| {name} | {m['accuracy']:.3f} | {m['margin']:+.2f} | {m['chosen']:+.3f} | "
            f"{m['kl']:.4f} | {m['cpu_seconds']:.0f} | {m['gib']:.2f} |"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
