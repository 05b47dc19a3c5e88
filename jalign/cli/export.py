"""`jalign export RUN OUT`: a run's model for everybody else."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jsonargparse import ArgumentParser
from rich.console import Console

from jalign import losses
from jalign.cli import build, build_data, card, model_folder, readers, runs
from jalign.cli.read import parsed
from jalign.config import Config
from jalign.core import TrainState
from jalign.models import hub, lora, peft, quant
from jalign.models.decoder import Decoder
from jalign.rewards.model import REWARD_FILE

DTYPES = ["base", "float32", "bfloat16", "float16"]


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
        choices=DTYPES,
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
    config, model, state, step = runs.newest(options.run, runs.which(options.step))
    row = build.algorithm_of(config)
    decoder = nnx.merge(*build.merged(model, state.params))
    if row.needs_critic:
        decoder.value = None  # of a critic that shares the policy's weights: nobody else reads it
    adapted = bool(lora.adapters(decoder))
    if options.adapter and not adapted:
        raise ValueError(
            f"{options.run} trained the whole model: there is no adapter; leave out --adapter"
        )
    gain, bias = _normalization(config, model, state) if options.normalize_reward else (1.0, 0.0)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    exported = Exported(options.run, step, config, model, decoder)
    with model_folder.written(options.out, options.overwrite) as out:
        if options.adapter:
            exported.write_adapter(out, options.out)
            kind = "the adapter"
        else:
            kind = exported.write_model(out, options.out, options.dtype, gain)
            if exported.reward:
                _write_reward(config, gain, bias, out)
    if options.normalize_reward:
        say(
            f"reward = {gain:.6g} * score + {bias:.6g}: the gain is in the weights, the bias in "
            f"{REWARD_FILE} only"
        )
    for line in exported.said:
        say(line)
    say(f"{kind} of step {step} of {options.run} written to {options.out}")


@dataclass
class Exported:
    """A run's model on its way to a folder."""

    run: str
    step: int
    config: Config
    model: build.Model
    decoder: Decoder
    said: list[str] = field(default_factory=list)  # what people should know

    def __post_init__(self) -> None:
        row = build.algorithm_of(self.config)
        self.reward = runs.scores_responses(row)
        self.ends = build.eos_ids(self.model.path, self.model.tokenizer)
        names = self.model.tokenizer.convert_ids_to_tokens(list(self.ends))
        if self.decoder.value is None:
            self.said.append(f"a response ends with {' or '.join(map(repr, names))}")

    def write_adapter(self, out: Path, shown: str) -> None:
        """PEFT's folder, tokenizer and template beside it."""
        peft.save_adapter(self.decoder, out, self.model.path)
        if self.decoder.value is None:
            readers.write_generation(out, self.model.path, self.ends, self.model.tokenizer)
        self._finish(out, card.adapter_usage(shown, self.model.path, self._kind), "peft")

    def write_model(self, out: Path, shown: str, dtype: str, gain: float) -> str:
        """A whole model; returns what it is."""
        decoder, tokenizer = self.decoder, self.model.tokenizer
        adapted = bool(lora.adapters(decoder))
        decoder = quant.dequantize(lora.merge(decoder) if adapted else decoder)
        kind = hub.stored_dtype(self.model.path) if dtype == "base" else jnp.dtype(dtype)
        settings: dict[str, Any] = {}
        if decoder.value is not None:
            decoder.value.kernel = nnx.Param(decoder.value.kernel[...] * gain)
            if readers.pad_apart(tokenizer, decoder, self.ends):
                self.said.append(f"the embedding has a row more, for {tokenizer.pad_token}")
            settings["pad_token_id"] = tokenizer.pad_token_id
        settings["eos_token_id"] = readers.one_or_all(self.ends)
        hub.save(decoder, out, dtype=kind, settings=settings)
        if decoder.value is None:
            readers.write_generation(out, self.model.path, self.ends, tokenizer)
        self.said.append(f"weights in {kind.name}")
        if kind != jnp.float32:
            self.said[-1] += ", rounded from float32 (--dtype float32 keeps what was trained)"
        self._finish(out, card.usage(shown, self._kind, chat=self._chat), "transformers")
        return "the model with its adapters merged" if adapted else "the model"

    @property
    def _kind(self) -> str:
        if self.decoder.value is None:
            return "language model"
        return "reward model" if self.reward else "model with a scalar head"

    @property
    def _chat(self) -> bool:
        return bool(self.model.tokenizer.chat_template)

    def _finish(self, out: Path, usage: str, library: str) -> None:
        readers.begin_as_trained(self.model.tokenizer)
        if self.reward:
            readers.end_where_scored(self.model.tokenizer)
        self.model.tokenizer.save_pretrained(out)
        facts = card.facts_of(self.run, self.config, self.step)
        title = f"{Path(self.run).name}, step {self.step}"
        card.write(out, facts, title, usage, library)


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
