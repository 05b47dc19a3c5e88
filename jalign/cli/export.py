"""`jalign export RUN OUT`: a run's model for everybody else."""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jsonargparse import ArgumentParser
from rich.console import Console

from jalign import losses
from jalign.config.read import parsed
from jalign.options import RunOptions
from jalign.rewards.model import REWARD_FILE
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run.export import model_folder
from jalign.run.export.exported import DTYPES, Exported


def parser() -> ArgumentParser:
    """The options of `jalign export`."""
    result = ArgumentParser(prog="jalign export", description=export.__doc__, exit_on_error=False)
    result.add_argument("run", help="folder that jalign train wrote")
    result.add_argument("out", help="folder to write")
    result.add_argument("--step", type=str | None, default=None, help=runs.STEP_HELP)
    result.add_argument(
        "--adapter",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="write only the LoRA adapter, in PEFT's format",
    )
    result.add_argument(
        "--dtype",
        default="base",
        choices=list(DTYPES),
        help="of the weights; base: that of the model the run started from. Adapters are float32",
    )
    result.add_argument(
        "--overwrite",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="replace a model that OUT holds",
    )
    result.add_argument(
        "--normalize_reward",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="make a reward model's rewards of the run's held-out responses have mean 0 and "
        "standard deviation 1; the bias this takes goes to OUT/reward.json, as the head has none",
    )
    return result


def check_args(args: Sequence[str]) -> Any:
    """The options, if they fit each other."""
    options = parsed(parser(), args, lambda values: values)
    if options.adapter and options.normalize_reward:
        raise ValueError("--normalize_reward scales the head, which --adapter leaves behind")
    if options.adapter and options.dtype != "base":
        raise ValueError("--dtype does not apply to --adapter: adapters are written in float32")
    options.out = os.path.expanduser(options.out)
    model_folder.check(options.out, options.overwrite)
    return options


def export(args: Sequence[str], console: Console) -> None:
    """Write a run's model as a Hugging Face folder that `transformers` loads, adapters merged into
    it; or with --adapter the LoRA adapter alone, which `peft` loads. The tokenizer with the chat
    template and the tokens that end a response come with it, and a model card.
    """
    options = check_args(args)
    trained = runs.weights(options.run, runs.which(options.step))
    exported = Exported(trained.policy(options.run))
    if options.adapter and not exported.adapted:
        raise ValueError(
            f"{options.run} trained the whole model: there is no adapter; leave out --adapter"
        )
    gain, bias = _normalization(trained) if options.normalize_reward else (1.0, 0.0)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    with model_folder.written(options.out, options.overwrite) as out:
        if options.adapter:
            exported.write_adapter(out, options.out)
            kind = "the adapter"
        else:
            kind = exported.write_model(out, options.out, options.dtype, gain)
            if exported.reward:
                _write_reward(trained.options, gain, bias, out)
    if options.normalize_reward:
        say(
            f"reward = {gain:.6g} * score + {bias:.6g}: the gain is in the weights, the bias in "
            f"{REWARD_FILE} only"
        )
    for line in exported.notes:
        say(line)
    say(f"{kind} of step {trained.step} of {options.run} written to {options.out}")


def _normalization(trained: runs.Weights) -> tuple[float, float]:
    """gain and bias by which the rewards of all held-out responses have mean 0 and standard
    deviation 1.
    """
    scorer = runs.reward_of(trained.options, trained.model, trained)
    _, held = build_data.examples_of(trained.options, trained.model.tokenizer)
    if held is None:
        raise ValueError("--normalize_reward needs held-out data, and this run has none")
    gain, bias = losses.fit_normalization(jnp.asarray(scorer.of_examples(held)))
    return float(gain), float(bias)


def _write_reward(config: RunOptions, gain: float, bias: float, out: Path) -> None:
    """What a sequence-classification model in Hugging Face's format has no place for."""
    names = ("max_prompt_len", "max_response_len", "keep_eos")
    limits = {n: getattr(config.data, n) for n in names}
    text = json.dumps({"gain": gain, "bias": bias} | limits, indent=2) + "\n"
    (out / REWARD_FILE).write_text(text, encoding="utf-8")
