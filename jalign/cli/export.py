"""`jalign export RUN OUT`: a run's model for everybody else."""

import shutil
from collections.abc import Sequence

import jax
from flax import nnx
from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.cli import build, runs
from jalign.models import hub, lora, peft


def export(args: Sequence[str], console: Console) -> None:
    """Write a Hugging Face folder that `transformers` loads, or a PEFT adapter that `peft`
    loads.
    """
    parser = ArgumentParser(prog="jalign export", description=export.__doc__)
    parser.add_argument("run", help="folder that jalign train wrote")
    parser.add_argument("out", help="folder to write")
    parser.add_argument(
        "--step", type=int | None, default=None, help="which checkpoint; the newest"
    )
    parser.add_argument(
        "--adapter", action="store_true", help="write only the LoRA adapter, in PEFT's format"
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights",
    )
    options = parser.parse_args(list(args))
    _, model, state, step = runs.newest(options.run, options.step)
    decoder = nnx.merge(*build.merged(model, state.params))
    adapted = bool(lora.adapters(decoder))
    if options.adapter and not adapted:
        raise ValueError(
            f"{options.run} trained the whole model: there is no adapter; leave out --adapter"
        )
    if options.adapter:
        peft.save_adapter(decoder, options.out, model.path)
    else:
        decoder = lora.merge(decoder) if adapted else decoder
        hub.save(decoder, options.out, dtype=jax.numpy.dtype(options.dtype))
        ends = hub.find(model.path) / "generation_config.json"  # which tokens end a response
        if ends.is_file():
            shutil.copy(ends, options.out)
    model.tokenizer.save_pretrained(options.out)
    console.print(f"step {step} of {options.run} written to {options.out}", highlight=False)
