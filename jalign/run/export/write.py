"""Export a run's model, or its adapter, as a folder that other libraries load."""

import json
import os
from pathlib import Path

import jax.numpy as jnp

from jalign import losses
from jalign.options import RunOptions
from jalign.options.export import ExportConfig
from jalign.rewards.model import REWARD_FILE
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run.export import model_folder
from jalign.run.export.exported import Exported


def check_out(options: ExportConfig) -> None:
    """Raise ValueError if OUT may not be written."""
    model_folder.check(os.path.expanduser(options.out), options.overwrite)


def export(options: ExportConfig) -> list[str]:
    """Write the folder; return lines for the user.

    Raises:
      ValueError: no such run or checkpoint, no adapter to write, no held-out data for the
        normalization, or OUT may not be written.
    """
    check_out(options)
    out = os.path.expanduser(options.out)
    trained = runs.weights(options.run, runs.which(options.step))
    exported = Exported(trained.policy(options.run))
    if options.adapter and not exported.adapted:
        raise ValueError(
            f"{options.run} trained every parameter: there is no adapter; leave out --adapter"
        )
    gain, bias = _normalization(trained) if options.normalize_reward else (1.0, 0.0)
    with model_folder.written(out, options.overwrite) as folder:
        if options.adapter:
            exported.write_adapter(folder, out)
            kind = "the adapter"
        else:
            kind = exported.write_model(folder, out, options.dtype, gain)
            if exported.reward:
                _write_reward(trained.options, gain, bias, folder)
    lines = []
    if options.normalize_reward:
        lines.append(
            f"reward = {gain:.6g} * score + {bias:.6g}: the gain is in the weights, the bias in "
            f"{REWARD_FILE} only"
        )
    return [
        *lines,
        *exported.notes,
        f"{kind} of step {trained.step} of {options.run} written to {out}",
    ]


def _normalization(trained: runs.Weights) -> tuple[float, float]:
    """Gain and bias that normalize the rewards of all held-out responses to mean 0 and std 1."""
    scorer = runs.reward_of(trained.options, trained.model, trained.params)
    _, held = build_data.examples_of(trained.options, trained.model.tokenizer)
    if held is None:
        raise ValueError("--normalize_reward needs held-out data, and this run has none")
    gain, bias = losses.fit_normalization(jnp.asarray(scorer.of_examples(held)))
    return float(gain), float(bias)


def _write_reward(options: RunOptions, gain: float, bias: float, out: Path) -> None:
    """Write bias and length limits to reward.json: Hugging Face's format of sequence classifiers
    cannot store them.
    """
    names = ("max_prompt_len", "max_response_len", "keep_eos")
    limits = {n: getattr(options.data, n) for n in names}
    text = json.dumps({"gain": gain, "bias": bias} | limits, indent=2) + "\n"
    (out / REWARD_FILE).write_text(text, encoding="utf-8")
