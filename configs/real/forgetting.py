"""SFT and alignment on a new skill, and what each way of doing both forgets:

    python configs/real/forgetting.py OUT [--steps 30] [--seeds 3] [--ways sft dft] [--minutes 60]

The model in the package writes stories. The new skill is to write them in capitals: demonstrations
are the chosen responses of its pairs in capitals, pairs are both responses in capitals. Every way
starts from the same weights and trains all of them, --steps of 16 examples in each stage. Measured
on held-out data:

* new nll: of the demonstrations, nats per token; accuracy: how often the chosen response has the
  larger log-prob;
* kept nll: of stories as they were, nats per token; forgot: its difference from the start;
* KL on new: KL(start || model) per token of the demonstrations, which predicts what is forgotten
  ("RL's Razor", arXiv 2509.04259); its quadratic law is fitted to all models at the end.

Models are trained seed by seed (the order of the data) and what was measured is kept in
OUT/results.jsonl: the same command continues. No model is begun after --minutes.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jalign
from jalign import embedded
from jalign.eval import metrics
from jalign.layout import Batch
from jalign.models import merge
from jalign.optim.online_merging import online_merging
from jalign.run.batches import held_source_of
from jalign.run.policy import Policy

Rows = list[dict[str, object]]
SFT_RATE, PREFERENCE_RATE = 1e-3, 1e-4
BATCH = 16


def read(path: object, limit: int) -> Rows:
    with gzip.open(str(path), "rt") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(limit), strict=False)]


def pairs_in_capitals(split: str, limit: int) -> Rows:
    return [
        {"prompt": r["prompt"], **{n: str(r[n]).upper() for n in ("chosen", "rejected")}}
        for r in read(embedded.pairs(split), limit)
    ]


PAIRS, HELD = pairs_in_capitals("train", 480), pairs_in_capitals("test", 200)
STORIES: Rows = [
    {"prompt": r["prompt"], "completion": " " + " ".join(r["completions"])}
    for r in read(embedded.steps("test"), 60)
]


def demonstrations(pairs: Rows) -> Rows:
    return [{"prompt": r["prompt"], "completion": r["chosen"]} for r in pairs]


def start() -> Policy:
    return jalign.load("embedded")


def trained(
    algorithm: str,
    policy: Policy,
    data: Rows,
    optimizer: optax.GradientTransformation,
    steps: int,
    seed: int,
) -> Policy:
    run = jalign.offline(algorithm, policy, data=data, holdout=0, batch_size=BATCH, seed=seed)
    with tempfile.TemporaryDirectory() as out:
        run.fit(steps=steps, optimizer=optimizer, out=out, checkpoint_every=0, console=None)
        return run.policy


def weights(policy: Policy) -> nnx.State:
    return policy.functional()[1]


def with_change(change: nnx.State) -> Policy:
    policy = start()
    nnx.update(
        policy.decoder, jax.tree.map(lambda w, d: w + d.astype(w.dtype), weights(policy), change)
    )
    return policy


def ways(steps: int, seed: int) -> dict[str, Callable[[], Policy]]:
    base = weights(start())
    shown = demonstrations(PAIRS)
    models: dict[str, Policy] = {}

    def once(name: str, make: Callable[[], Policy]) -> Policy:
        if name not in models:
            models[name] = make()
        return models[name]

    def sft(loss: str = "sft") -> Policy:
        return once(loss, lambda: trained(loss, start(), shown, optax.adamw(SFT_RATE), steps, seed))

    def dpo(policy: Policy, optimizer: optax.GradientTransformation | None = None) -> Policy:
        return trained("dpo", policy, PAIRS, optimizer or optax.adamw(PREFERENCE_RATE), steps, seed)

    def paft() -> Policy:
        changes = [
            jax.tree.map(lambda x, b: x - b, weights(p), base) for p in (sft(), dpo(start()))
        ]
        return with_change(merge.ties(changes, density=0.5))

    def merged(method: str, alpha: float) -> Policy:
        inner = optax.adamw(PREFERENCE_RATE)
        return dpo(sft(), online_merging(inner, base, alpha=alpha, method=method))  # type: ignore[arg-type]

    return {
        "start": start,
        "sft": sft,
        "sft, then dpo": lambda: dpo(sft()),
        "dft": lambda: sft("dft"),
        "dft, then dpo": lambda: dpo(sft("dft")),
        "orpo": lambda: trained("orpo", start(), PAIRS, optax.adamw(SFT_RATE), steps, seed),
        "paft (sft and dpo, ties)": paft,
        "sft, then dpo, OnDARE": lambda: merged("dare", 1e-3),
        "sft, then dpo, OnTIES": lambda: merged("ties", 1e-3),
    }


class Measure:
    """Held-out log-probs and the KL, by programs that are compiled once for all models."""

    def __init__(self) -> None:
        policy = start()
        self.apply, self.start, self.base = policy.functional()
        self.batches = {"dpo": HELD, "sft": STORIES}
        self.batches = {name: _batches(name, policy, rows) for name, rows in self.batches.items()}
        self.outputs = jax.jit(self._outputs, static_argnums=0)

    def _outputs(self, names: tuple[str, ...], params: Any, batch: Batch) -> dict[str, jax.Array]:
        reference = self.start if "kl_from_ref" in names else None
        out = self.apply(params, self.base, batch.layout, names, reference=reference)
        return {n: jnp.where(batch.mask, x.reshape(batch.mask.shape), 0.0) for n, x in out.items()}

    def sums(self, name: str, outputs: tuple[str, ...], params: Any) -> dict[str, np.ndarray]:
        """[examples, K] sums over the tokens of each response, and their number."""
        parts = []
        for batch in self.batches[name]:
            real = np.asarray(batch.extras["index"]) >= 0
            out = self.outputs(outputs, params, batch) | {"tokens": batch.mask}
            parts.append({n: np.asarray(x).sum(-1)[real] for n, x in out.items()})
        return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}

    def __call__(self, policy: Policy) -> dict[str, float]:
        """New nll and accuracy, kept nll, and KL(start || model) on the new task."""
        params = weights(policy)
        new = self.sums("dpo", ("token_logps", "kl_from_ref"), params)
        kept = self.sums("sft", ("token_logps",), params)
        logps, tokens = new["token_logps"], new["tokens"][:, 0].sum()
        return {
            "new": float(-logps[:, 0].sum() / tokens),
            "accuracy": float((logps[:, 0] > logps[:, 1]).mean()),
            "kept": float(-kept["token_logps"].sum() / kept["tokens"].sum()),
            "kl": float(new["kl_from_ref"][:, 0].sum() / tokens),
        }


def _batches(algorithm: str, policy: Policy, rows: Rows) -> list[Batch]:
    run = jalign.offline(algorithm, policy, data=rows, eval=rows)
    held = run.setup.held
    assert held is not None
    source = held_source_of(run.options, held, run.mesh, policy.decoder.spec)
    stacks = [stack for stacks in source.eval_batches() for stack in stacks]
    return [stack.micro_batch(i) for stack in stacks for i in range(int(stack.count))]


def run(out: Path, steps: int, seeds: int, only: list[str], minutes: float) -> None:
    """Measure what is not in OUT/results.jsonl, until the time is over."""
    out.mkdir(parents=True, exist_ok=True)
    done = {(r["way"], r["seed"]) for r in results(out)}
    end, measure = time.monotonic() + 60 * minutes, Measure()
    for seed in range(seeds):
        for name, make in ways(steps, seed).items():
            # the start has no seed
            if (name, seed) in done or (seed and name == "start") or (only and name not in only):
                continue
            if time.monotonic() > end:
                continue
            row = {"way": name, "seed": seed, **measure(make())}
            with (out / "results.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


def results(out: Path) -> list[dict[str, Any]]:
    file = out / "results.jsonl"
    return [json.loads(x) for x in file.read_text().splitlines()] if file.exists() else []


def table(out: Path) -> None:
    """Means over seeds and their standard deviations, and the law of what was forgotten."""
    rows = results(out)
    first = next(r["kept"] for r in rows if r["way"] == "start")
    rows = [r | {"forgot": r["kept"] - first} for r in rows]
    print("| trained by | seeds | new nll | accuracy | kept nll | forgot | KL on new |")
    print("|---|---|---|---|---|---|---|")
    for way in dict.fromkeys(r["way"] for r in rows):
        of = [r for r in rows if r["way"] == way]
        cells = [_mean([r[n] for r in of]) for n in ("new", "accuracy", "kept", "forgot", "kl")]
        print(f"| {way} | {len(of)} | {' | '.join(cells)} |")
    models = [r for r in rows if r["way"] != "start"]
    kl, forgot = ([max(r[n], 0.0) for r in models] for n in ("kl", "forgot"))
    law = metrics.fit_forgetting(kl, forgot)
    print(
        f"\nforgot = {law.linear:.3f} KL + {law.quadratic:.4f} KL^2 over {len(kl)} models: ", end=""
    )
    print(f"R^2 {law.r_squared:.2f}, {law.ordered:.2f} of the pairs of models in its order")


def _mean(values: list[float]) -> str:
    spread = f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=[], help="by their names in the table; all")
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    run(options.out, options.steps, options.seeds, options.ways, options.minutes)
    table(options.out)
