"""`robust_kto` against `kto` where 0, 20 and 40 % of the thumbs are wrong, in three ways; 3 seeds.

    python configs/real/noise_stories.py OUT [--model embedded] [--methods kto robust_kto]
                                         [--steps 30] [--batch 32] [--rate 2e-3] [--tokens 40]
                                         [--minutes 60] [--report]

The pairs are those of the package: two continuations of an opening, of which the more cheerful one
is preferred. A pair gives one thumb up and one down, both wrong if the pair is inverted
(`data.flip`); --steps are one epoch. Held-out pairs keep their true labels: accuracy is the share
of them whose chosen response has gained more log-prob than the rejected one, 0.5 by chance.

The model is the small one of the package or a Hugging Face folder (stories15M; with LoRA). Cells
are trained one after another, seed by seed, and kept in OUT/results.jsonl: the same command
continues. No cell starts after --minutes. The table is printed at the end, or alone.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jalign
from jalign import embedded
from jalign.algorithms import get
from jalign.core import Algorithm, Frozen
from jalign.data.noise import KINDS
from jalign.data.sources import read
from jalign.eval.metrics.bootstrap import paired_bootstrap
from jalign.options import DataConfig
from jalign.run.batches import source_of
from jalign.train.step import TrainStepFn, create_state, make_train_step

NOISE = [("none", 0.0), *((kind, share) for share in (0.2, 0.4) for kind in KINDS)]
SEEDS = 3
WARMUP = 3

Cell = dict[str, Any]


class Setting(NamedTuple):
    """What all cells share, so that they run one compiled step per method."""

    policy: jalign.Policy
    limits: dict[str, int]
    count: int  # of steps
    batch: int  # thumbs of each
    optimizer: optax.GradientTransformation
    start: nnx.State
    logps: np.ndarray  # of the held-out pairs, at the start
    steps: dict[str, TrainStepFn]


def setting(
    model: str, methods: list[str], count: int, batch: int, rate: float, tokens: int
) -> Setting:
    policy = jalign.load(model, lora=0 if model == "embedded" else 16)
    apply, params, _ = policy.functional()
    ramp = optax.linear_schedule(rate / WARMUP, rate, WARMUP - 1)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(ramp))
    limits = {"max_prompt_len": tokens, "max_response_len": tokens}
    steps = {
        # a run compiles its own step: 40 runs would compile 40 times
        name: jax.jit(make_train_step(get(name), apply, optimizer), donate_argnums=0)
        for name in methods
    }
    start = jax.tree.map(jnp.copy, params)
    logps = held_logps(policy, limits)
    return Setting(policy, limits, count, batch, optimizer, start, logps, steps)


def cell(s: Setting, method: str, kind: str, share: float, seed: int) -> Cell:
    """Train one cell and measure it on the held-out pairs."""
    began, row = time.process_time(), get(method)
    batches = batches_of(s, row, kind, share, seed)
    base = s.policy.functional()[2]
    frozen = Frozen(base, s.start)
    state = create_state(jax.tree.map(jnp.copy, s.start), s.optimizer, row, jax.random.key(seed))
    with jax.set_mesh(s.policy.mesh):
        for i in range(s.count):
            state, metrics = s.steps[method](state, frozen, batches.batch(i))
    nnx.update(s.policy.decoder, state.params)
    gained = held_logps(s.policy, s.limits) - s.logps
    kept = {k: float(v) for k, v in metrics.items() if k in ("loss", "eta", "posterior", "kl")}
    return {
        "method": method, "kind": kind, "share": share, "seed": seed,
        "right": (gained[:, 0] > gained[:, 1]).astype(int).tolist(),
        "gained": gained.mean(0).tolist(), "cpu_seconds": time.process_time() - began, **kept,
    }  # fmt: skip


def batches_of(s: Setting, row: Algorithm, kind: str, share: float, seed: int):
    """The batches of a run on the training pairs, with labels inverted."""
    flip = {"flip": kind, "flip_share": share} if share else {}
    run = jalign.offline(
        row, s.policy, read(str(embedded.pairs("train")))[: s.count * s.batch // 2], eval=[],
        batch_size=s.batch, steps=s.count, seed=seed, max_tokens=4096, **flip, **s.limits,
    )  # fmt: skip
    examples, spec = run.setup.examples, s.policy.decoder.spec
    assert examples is not None
    batches = source_of(run.options, examples, s.policy.mesh, spec).batches
    # KTO's baseline couples the examples of a batch: in one micro-batch it takes one pass, not two
    response = s.limits["max_response_len"]
    scored = 2 * s.batch * response
    (shape, *_) = batches.shapes.shapes
    shape = shape._replace(
        tokens=s.batch * s.limits["max_prompt_len"] + scored + 8, rows=2 * s.batch, scored=scored,
        row_len=max(x.row_len for x in batches.shapes.shapes), prompts=s.batch,
        response_len=response,
    )  # fmt: skip
    batches.shapes = replace(batches.shapes, shapes=(shape,), bounds=(1,))
    return batches


def held_logps(policy: jalign.Policy, limits: dict[str, int]) -> np.ndarray:
    """[held-out pairs, 2] log-probs of the chosen and the rejected response."""
    return jalign.score(policy, read(str(embedded.pairs("test"))), data=DataConfig(**limits)).logps


def run_cells(s: Setting, out: Path, minutes: float) -> None:
    """Train what is not in OUT/results.jsonl, until the time is over."""
    out.mkdir(parents=True, exist_ok=True)
    done, end = {key(c) for c in cells(out)}, time.monotonic() + 60 * minutes
    for seed in range(SEEDS):
        for kind, share in NOISE:
            for method in s.steps:
                if (method, kind, share, seed) in done or time.monotonic() > end:
                    continue
                result = cell(s, method, kind, share, seed)
                with (out / "results.jsonl").open("a") as file:
                    file.write(json.dumps(result) + "\n")


def cells(out: Path) -> list[Cell]:
    file = out / "results.jsonl"
    return [json.loads(x) for x in file.read_text().splitlines()] if file.exists() else []


def key(c: Cell) -> tuple[str, str, float, int]:
    return c["method"], c["kind"], c["share"], c["seed"]


def table(methods: list[str], out: Path) -> None:
    """Print the mean accuracy over the seeds that all methods have, with its standard error between
    seeds, and what each method has more than the first one, with the 95 % interval of a bootstrap
    over seeds and pairs.
    """
    by = {key(c): c["right"] for c in cells(out)}
    more = [f"{m} - {methods[0]}" for m in methods[1:]]
    print("| wrong labels |", " | ".join([*methods, *more]), "| seeds |")
    print("|" + "---|" * (len(methods) + len(more) + 2))
    for kind, share in NOISE:
        seeds = [s for s in range(SEEDS) if all((m, kind, share, s) in by for m in methods)]
        if not seeds:
            continue
        first, *others = (np.array([by[m, kind, share, s] for s in seeds]) for m in methods)
        shown = [_mean(x) for x in (first, *others)]
        shown += ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*_more(x, first)) for x in others]
        title = kind if kind == "none" else f"{kind} {100 * share:.0f} %"
        print(f"| {title} |", " | ".join(shown), f"| {len(seeds)} |")


def _mean(right: np.ndarray) -> str:
    """[seeds, pairs] -> mean and its standard error between seeds."""
    each = right.mean(1)
    error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
    return f"{each.mean():.3f} ± {error:.3f}"


def _more(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    return tuple(paired_bootstrap(a, b, samples=4000).estimate)  # type: ignore[return-value]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--methods", nargs="+", default=["kto", "robust_kto"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if not options.report:
        made = setting(
            *(getattr(options, n) for n in ("model", "methods", "steps", "batch", "rate", "tokens"))
        )
        run_cells(made, options.out, options.minutes)
    table(options.methods, options.out)
