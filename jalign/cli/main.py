"""The command line: `jalign train|eval|sample|label|...`, one function per command."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jalign import __version__
from jalign.cli.ending import ended, fail, hear_interrupts, log_level
from jalign.signatures import did_you_mean
from jalign.train.exit_code import ExitCode

if TYPE_CHECKING:  # Ctrl-C is heard from the first import on, which must come soon
    from rich.console import Console

# transformers is here for tokenizers and chat templates only: that torch is missing is no news
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

_HELP = """jalign aligns language models in JAX.

usage: jalign COMMAND [ARGUMENTS]

  init [FILE] --algorithm NAME     write a config for a model and data of your own, to start from
  train CONFIG [--key value ...]   train by a config file; any key of it can be overridden
  eval CONFIG [--key value ...]    the held-out metrics of a model, or of a run's newest checkpoint;
                                   for rewards also calibration, length and subsets
  sample MODEL [PROMPT ...]        continue texts with a model or a run; --best_of N --reward DIR
  label [CONFIG] [--key value ...] preference records of what a model or a server says of responses
  revise [CONFIG] [--key value ..] critiques and revisions of responses by principles
  prompts [CONFIG] [--key value .] new prompts that a model writes in sight of others
  pipeline FILE [--name value ...] commands one after another, such as a whole RLAIF run; goes on
                                   where it stopped
  rollouts RUN                     responses that a run sampled, with their rewards
  data CONFIG [--key value ...]    look at the data as the model will see it; --to KIND converts
  export RUN OUT                   write a run's model as a Hugging Face folder (adapters as PEFT)
  merge OUT --base M --models A B  add up what models learned since the base M: TIES, DARE, SLERP
  algorithms [NAME]                the catalogue, or one algorithm with its hyper-parameters
  configs [WORD]                   configs that come with jalign, to be given by their name
  plan CONFIG --target NAME        does it fit a TPU slice or GPU that is not here, and how fast can
                                   it be; --suggest tries what would help
  doctor                           what this machine computes on, which kernels, what is missing
  bench WHAT                       measure speed and memory on this machine

eval, sample and export take --step best (or a step) of a run: the checkpoint that stop.metric kept.
jalign COMMAND --help says more, jalign --version which this is. JALIGN_LOG=DEBUG shows where an
error comes from. Exit codes: {codes}."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the `jalign` command."""
    if args is None:
        hear_interrupts()
        args = sys.argv[1:]
    ended(partial(_run, list(args)))


def _run(args: list[str]) -> int | None:
    logging.basicConfig(level=log_level(), format="%(levelname)s %(name)s: %(message)s")
    # Orbax reports every file it writes there, and every error with a traceback per thread; what it
    # raises is said by us
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help())
        return None
    if args[0] in ("-V", "--version", "version"):
        print(f"jalign {__version__}")
        return None
    if args[0] not in COMMANDS:
        fail(f"no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}", ExitCode.BAD_CONFIG)
    _keep_compiled_programs()
    from jalign.cli.console import CommandConsole

    return COMMANDS[args[0]](args[1:], CommandConsole(goes_on=args[0] in WRITING))


def _help() -> str:
    codes = "; ".join(f"{int(code)}: {code.meaning}" for code in ExitCode)
    *lines, last = _HELP.format(codes=codes).split("\n")
    return "\n".join([*lines, *textwrap.wrap(last, 100)])


def _keep_compiled_programs() -> None:
    """A second run of the same program starts without compiling. The folder must be the user's own:
    who can write to it can run code. JAX_COMPILATION_CACHE_DIR names another; empty turns it off.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jalign" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


# Each imports what it needs when it is called: `jalign --help` answers at once.


def _train(args: list[str], console: Console) -> int:
    from jalign.config.read import read_config
    from jalign.parallel import hosts
    from jalign.run.trainer import train

    if not {"-h", "--help"} & set(args):
        hosts.initialize()  # before anything asks for a device
    return train(read_config(args), console)


def _eval(args: list[str], console: Console) -> None:
    from jalign.cli.evaluate import evaluate

    evaluate(args, console)


def _sample(args: list[str], console: Console) -> None:
    from jalign.cli.sample import sample

    sample(args, console)


def _label(args: list[str], console: Console) -> None:
    from jalign.cli.label import label

    label(args, console)


def _revise(args: list[str], console: Console) -> None:
    from jalign.cli.revise import revise

    revise(args, console)


def _prompts(args: list[str], console: Console) -> None:
    from jalign.cli.prompts import prompts

    prompts(args, console)


def _pipeline(args: list[str], console: Console) -> int:
    from jalign.cli.pipeline import pipeline

    return pipeline(args, console)


def _rollouts(args: list[str], console: Console) -> None:
    from jalign.cli.rollouts import rollouts

    rollouts(args, console)


def _data(args: list[str], console: Console) -> None:
    from jalign.cli.data import data

    data(args, console)


def _export(args: list[str], console: Console) -> None:
    from jalign.cli.export import export

    export(args, console)


def _merge(args: list[str], console: Console) -> None:
    from jalign.cli.merge import merge

    merge(args, console)


def _algorithms(args: list[str], console: Console) -> None:
    from jalign.cli.catalogue import show

    show(args, console)


def _init(args: list[str], console: Console) -> None:
    from jalign.cli.init import init

    init(args, console)


def _configs(args: list[str], console: Console) -> None:
    from jalign.config.packaged import show

    show(args, console)


def _plan(args: list[str], console: Console) -> int:
    from jalign.cli.plan import plan

    return plan(args, console)


def _doctor(args: list[str], console: Console) -> None:
    from jalign.cli.doctor import doctor

    doctor(args, console)


def _bench(args: list[str], console: Console) -> None:
    from jalign.bench.main import bench

    bench(args, console)


COMMANDS: dict[str, Callable[[list[str], Console], int | None]] = {
    "train": _train,
    "eval": _eval,
    "sample": _sample,
    "label": _label,
    "revise": _revise,
    "prompts": _prompts,
    "pipeline": _pipeline,
    "rollouts": _rollouts,
    "data": _data,
    "export": _export,
    "merge": _merge,
    "algorithms": _algorithms,
    "configs": _configs,
    "init": _init,
    "plan": _plan,
    "doctor": _doctor,
    "bench": _bench,
}

WRITING = ("train", "label", "revise", "prompts", "pipeline", "export", "merge", "bench")
"""Commands that do their work also where nobody reads what they print."""


if __name__ == "__main__":
    main()
