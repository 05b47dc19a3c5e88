"""Rollout corrections on stale samples of a coarser sampler, with and without them.

    python configs/real/off_policy.py OUT [SEEDS]

The small story model in the package learns by grpo, without a KL term. A rollout serves eight
optimizer steps, and the sampler's matrices are rounded to int8 with one scale each, so that samples
come from another policy than the trained one twice over. OUT/NAME-SEED/result.json is the record; a
finished run is not computed again. The table has means and standard deviations over seeds.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _process import evaluations

import jalign
from jalign.options import RolloutConfig
from jalign.rollout.groups import respond
from jalign.rollout.types import Rollout
from jalign.run.policy import eos_ids
from jalign.run.rollouts import settings_of

STEPS, PER_ROLLOUT, BATCH, RATE = 32, 8, 6, 1e-3
VARIANTS = {
    "none": {},
    "tis": {"tis": 2.0},
    "mis": {"mis": 2.0},
    "tis, opsm": {"tis": 2.0, "opsm": 0.05},
}
COLUMNS = {
    "reward": "held-out reward",
    "reward_std": "reward spread",
    "completions/distinct_2": "distinct-2",
    "rollout/kl_to_trainer": "KL(sampler to trainer)",
    "rollout/weight": "mean weight",
    "rollout/rejected": "rejected",
    "approx_kl": "KL(old to new)",
}


def in_int8(x: jax.Array) -> jax.Array:
    """A matrix rounded to 255 levels with one scale; other arrays as they are."""
    if x.ndim < 2 or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    scale = jnp.max(jnp.abs(x)) / 127
    return jnp.round(x / scale) * scale


def run(name: str, seed: int, out: Path) -> dict[str, float]:
    """Train unless it has ended before; what the run measured."""
    path = out / "result.json"
    if path.exists():
        return json.loads(path.read_text())
    rounded = jax.jit(lambda weights: jax.tree.map(in_int8, weights))

    def sampler(state, frozen, indices, key) -> Rollout:
        del frozen
        roles, table = job.setup.roles, job.setup.table
        graphdef, weights = roles.sampling_weights(state.params)
        prompts = [table[i].ids for i in indices]
        settings = settings_of(job.options, eos_ids(roles.path, roles.tokenizer))
        model = graphdef, rounded(weights)
        return respond(model, prompts, settings, key, batch_size=len(prompts))

    corrections = VARIANTS[name]
    rollout = RolloutConfig(prompts=PER_ROLLOUT * BATCH, max_new_tokens=24, corrections=corrections)
    sizes = {"limit": 256, "eval_limit": 64, "max_prompt_len": 32}
    job = jalign.online(
        "grpo",
        jalign.load("embedded"),
        prompts="embedded",
        rewards={"sentiment_reward": 1.0},
        sampler=sampler,
        batch_size=BATCH,
        seed=seed,
        rollout=rollout,
        kl_k3_coef=0.0,
        **sizes,
    )
    job.fit(STEPS, optax.adamw(RATE), str(out), log_every=1, checkpoint_every=0, console=None)
    result = measured(out)
    path.write_text(json.dumps(result))
    return result


def measured(out: Path) -> dict[str, float]:
    """The last evaluation, and means over the steps of what the training log has."""
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    steps = [row for row in rows if row["kind"] == "train"]
    mean = {n: [row[n] for row in steps if n in row] for n in COLUMNS}
    result = {n: float(np.mean(x)) for n, x in mean.items() if x}
    first, *_, last = evaluations(out)
    return result | {n: last[n] for n in COLUMNS if n in last} | {"before": first["reward"]}


def table(results: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """Lines of Markdown: a variant each, mean (standard deviation) over seeds."""
    yield "| corrections | seeds | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---" * (len(COLUMNS) + 2) + "|"
    for name, runs in results.items():
        cells = []
        for column in COLUMNS:
            x = [r[column] for r in runs if column in r]
            cells.append(f"{np.mean(x):.3g} ({np.std(x):.2g})" if x else "-")
        yield f"| {name} | {len(runs)} | {' | '.join(cells)} |"


if __name__ == "__main__":
    folder, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    results: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in range(seeds):
        for name in VARIANTS:
            out = folder / f"{name.replace(', ', '-')}-{seed}"
            results[name].append(run(name, seed, out))
            print(name, seed, results[name][-1], file=sys.stderr, flush=True)
    print("\n".join(table(results)))
