"""Train one cell through the library and measure it at every mark."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pyarrow as pa
import pyarrow.parquet as pq

from jalign import store
from jalign.leaderboard.cells import Cell, Result
from jalign.leaderboard.cost import Stopwatch, models_held, seconds_per_step
from jalign.leaderboard.measure import Answers, Measure
from jalign.leaderboard.noise import binary
from jalign.leaderboard.setting import Interrupted, Setting, finite
from jalign.leaderboard.spec import Method
from jalign.options import CheckpointConfig, RolloutConfig
from jalign.run import api
from jalign.run.load import load
from jalign.run.policy import Policy
from jalign.run.run import Run
from jalign.train.exit_code import ExitCode
from jalign.train.online_metrics import distinct

SAMPLES = "samples.parquet"
MODEL = "model"
WARMUP = 0.1
RESPONSES = {"pair": 2, "list": 2}
"""Responses of a row by the kind of feedback; others have one."""


def train_cell(
    setting: Setting, measure: Measure, cell: Cell, folder: Path, start: str | None, keep: bool
) -> Result:
    """Train a cell, or continue it, and measure it; its result, to be written.

    Args:
      start: folder of the policy that it starts from; None: the start of the leaderboard.
      keep: write the trained policy to the folder, for methods that start from it.

    Raises:
      Interrupted: the process was asked to stop.
    """
    method = setting.spec.methods[cell.method]
    steps = setting.steps(cell.tokens)
    run = _run_of(setting, method, cell, start)
    marks = setting.spec.marks
    run.options = replace(run.options, checkpoint=CheckpointConfig(keep=marks + 1))
    with Stopwatch() as watch:
        code = run.fit(
            steps,
            optimizer(cell.rate, round(WARMUP * steps)),
            str(folder),
            checkpoint_every=steps // marks,
            log_every=1,
            console=None,
        )
    if code is ExitCode.PREEMPTED:
        raise Interrupted(cell.name)
    diverged = code is not ExitCode.OK
    seconds = seconds_per_step(run.record) * watch.share
    curve = []
    for step in range(steps // marks, steps + 1, steps // marks):
        policy = None if diverged else _policy_at(run, folder, step, steps)
        point = _point(measure, policy or setting.start, cell) if not diverged else _NOWHERE
        curve.append({"step": step, "seconds": finite(seconds * step)} | point)
    final = setting.start if diverged else run.policy
    result = _final(setting, measure, final, cell, folder) if not diverged else {}
    if keep and not diverged:
        final.save(folder / MODEL, overwrite=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of dozens of cells
    row = method.row
    tokens = [r["num_tokens"] for r in run.record if r["kind"] == "train"]
    return {
        "cell": vars(cell),
        "steps": steps,
        "exit": code.name,
        "curve": curve,
        "seconds": finite(seconds * steps),
        "seconds_per_step": finite(seconds),
        "tokens_read": int(tokens[-1]) if tokens else 0,
        "models": models_held(row, method.online),
    } | result


def optimizer(rate: float, warmup: int) -> optax.GradientTransformation:
    """AdamW at a constant rate after a linear warm-up, so that every mark is what a shorter budget
    would have given. The rate is part of the state: all cells of a method share one program.
    """
    adamw = optax.inject_hyperparams(optax.adamw, static_args=("weight_decay",))
    ramp = optax.linear_schedule(1 / (warmup + 1), 1.0, warmup)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        adamw(learning_rate=rate, weight_decay=0.0),
        optax.scale_by_schedule(ramp),
    )


_NOWHERE = {"true": -1.0, "proxy": 0.0, "kl": 1e9, "length": 0.0, "distinct_2": 0.0}
"""A point of a run that diverged: it is selected last."""


def _policy_at(run: Run, folder: Path, step: int, steps: int) -> Policy:
    # the last one is in memory
    return run.policy if step == steps else api.open(str(folder), step).policy


def _point(measure: Measure, policy: Policy, cell: Cell) -> dict[str, Any]:
    """Means on the validation prompts, and the arrays that intervals need."""
    a = measure.answers(policy, measure.validation, 1 + cell.seed)
    means = {"true": a.true.mean(), "proxy": a.proxy.mean(), "kl": a.kl.mean()}
    means |= {"length": a.lengths.mean(), "distinct_2": distinct(a.ids, 2)}
    arrays = {"each_true": a.true, "each_proxy": a.proxy, "each_kl": a.kl}
    return {n: float(x) for n, x in means.items()} | {
        n: np.round(x, 4).tolist() for n, x in arrays.items()
    }


def _final(
    setting: Setting, measure: Measure, policy: Policy, cell: Cell, folder: Path
) -> dict[str, Any]:
    """Everything that is measured at the end, on the test pairs."""
    answers = measure.answers(policy, measure.test, 1 + cell.seed)
    write_samples(folder / SAMPLES, answers)
    return {
        "margins": np.round(measure.margins(policy), 5).tolist(),
        "nll": np.round(measure.nll(policy), 4).tolist(),
    }


def write_samples(file: Path, a: Answers) -> None:
    """One row per prompt: prompt, response, tokens, finished, true, proxy, kl."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "index": range(len(a.texts)), "prompt": a.prompts, "response": a.texts,
        "tokens": a.lengths.tolist(), "ids": a.ids, "finished": a.finished.tolist(),
        "true": a.true, "proxy": a.proxy, "kl": a.kl,
    }  # fmt: skip
    table = pa.table({name: pa.array(x) for name, x in columns.items()})
    store.write(file, lambda f: pq.write_table(table, f))


# ---- the run of a cell


def _run_of(setting: Setting, method: Method, cell: Cell, start: str | None) -> Run:
    spec, row, policy = setting.spec, method.row, setting.start
    if start or method.lora:
        policy = load(start or spec.start, lora=method.lora or None, seed=cell.seed)
    steps = setting.steps(cell.tokens)
    if row.experience is not None:
        rollout = RolloutConfig(
            max_new_tokens=spec.max_new_tokens, temperature=spec.temperature, **method.options
        )
        size = max(1, spec.responses_per_step // (rollout.responses or row.experience.responses))
        # a rollout of several steps needs as many prompts
        count = max(steps * size, rollout.prompts)
        return api.online(
            row,
            policy,
            [{"prompt": x["prompt"]} for x in setting.drawn(cell.seed)[:count]],
            {"proxy": setting.proxy},
            rollout=rollout,
            data=setting.data,
            batch_size=size,
            seed=cell.seed,
        )
    rows = setting.drawn(cell.seed, method.noise, method.noise_share)
    if method.desirable_share:
        rows = binary(rows, method.desirable_share, cell.seed)
    size = max(1, spec.responses_per_step // RESPONSES.get(row.format.feedback, 1))
    return api.offline(
        row,
        policy,
        # binary data are made from pairs: as many rows as are read, whatever becomes of them
        rows[: steps * size],
        data_options=setting.data,
        batch_size=size,
        seed=cell.seed,
        **method.options,
    )
