"""`jalign export RUN OUT`: a run's model for everybody else."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jsonargparse import ArgumentParser
from rich.console import Console

from jalign import losses, store
from jalign.cli import build, build_data, runs
from jalign.cli.read import parsed
from jalign.config import Config
from jalign.core import TrainState
from jalign.models import hub, lora, peft, quant
from jalign.rewards.model import REWARD_FILE


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
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights",
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
    store.local(options.out, "what is exported")
    return options


def export(args: Sequence[str], console: Console) -> None:
    """Write a Hugging Face folder that `transformers` loads, or a PEFT adapter that `peft`
    loads.
    """
    options = check_args(args)
    config, model, state, step = runs.newest(options.run, runs.which(options.step))
    gain, bias = _normalization(config, model, state) if options.normalize_reward else (1.0, 0.0)
    decoder = nnx.merge(*build.merged(model, state.params))
    if build.algorithm_of(config).needs_critic:
        decoder.value = None  # of a critic that shares the policy's weights: nobody else reads it
    adapted = bool(lora.adapters(decoder))
    if options.adapter and not adapted:
        raise ValueError(
            f"{options.run} trained the whole model: there is no adapter; leave out --adapter"
        )
    if options.adapter:
        peft.save_adapter(decoder, options.out, model.path)
    else:
        decoder = quant.dequantize(lora.merge(decoder) if adapted else decoder)
        if options.normalize_reward:
            assert decoder.value is not None
            decoder.value.kernel = nnx.Param(decoder.value.kernel[...] * gain)
        hub.save(decoder, options.out, dtype=jax.numpy.dtype(options.dtype))
        ends = hub.find(model.path) / "generation_config.json"  # which tokens end a response
        if ends.is_file():
            shutil.copy(ends, options.out)
        if runs.scores_responses(build.algorithm_of(config)):
            _write_reward(config, gain, bias, Path(options.out))
    if options.normalize_reward:
        console.print(
            f"reward = {gain:.6g} * score + {bias:.6g}: the gain is in the weights, the bias in "
            f"{REWARD_FILE} only",
            highlight=False,
        )
    model.tokenizer.save_pretrained(options.out)
    console.print(f"step {step} of {options.run} written to {options.out}", highlight=False)


def _normalization(config: Config, model: build.Model, state: TrainState) -> tuple[float, float]:
    """gain and bias by which the rewards of all held-out responses have mean 0 and standard
    deviation 1.
    """
    scorer = runs.reward_of(config, model, state)
    _, held = build_data.examples_of(config, model.tokenizer)
    if held is None:
        raise ValueError("--normalize_reward needs held-out data, and this run has none")
    gain, bias = losses.fit_normalization(jnp.asarray(scorer.of_examples(held)))
    return float(gain), float(bias)


def _write_reward(config: Config, gain: float, bias: float, out: Path) -> None:
    """What a sequence-classification model in Hugging Face's format has no place for."""
    names = ("max_prompt_len", "max_response_len", "keep_eos")
    limits = {n: getattr(config.data, n) for n in names}
    text = json.dumps({"gain": gain, "bias": bias} | limits, indent=2) + "\n"
    (out / REWARD_FILE).write_text(text, encoding="utf-8")
