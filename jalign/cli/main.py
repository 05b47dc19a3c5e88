"""The command line: `jalign train|eval|sample|label|...`, a function in its own file each."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from jalign import __version__
from jalign.cli.ending import end_with, exit_at_interrupts, fail, log_level
from jalign.signatures import did_you_mean
from jalign.train.exit_code import ExitCode

COMMANDS = {
    "train": "jalign.cli.train:train",
    "eval": "jalign.cli.evaluate:evaluate",
    "sample": "jalign.cli.sample:sample",
    "serve": "jalign.cli.serve:serve",
    "chat": "jalign.cli.chat:chat",
    "label": "jalign.cli.label:label",
    "revise": "jalign.cli.revise:revise",
    "prompts": "jalign.cli.prompts:prompts",
    "pipeline": "jalign.cli.pipeline:pipeline",
    "rollouts": "jalign.cli.rollouts:rollouts",
    "report": "jalign.cli.report:report",
    "compare": "jalign.cli.compare:compare",
    "runs": "jalign.cli.runs:runs",
    "data": "jalign.cli.data:data",
    "export": "jalign.cli.export:export",
    "merge": "jalign.cli.merge:merge",
    "algorithms": "jalign.cli.algorithms:algorithms",
    "configs": "jalign.cli.configs:configs",
    "init": "jalign.cli.init:init",
    "plan": "jalign.cli.plan:plan",
    "doctor": "jalign.cli.doctor:doctor",
    "bench": "jalign.cli.bench:bench",
    "leaderboard": "jalign.cli.leaderboard:leaderboard",
}
"""Command -> `module:function`, `(args, console) -> exit code or None`, imported when it is called:
`jalign --help` answers at once."""

WRITING = (
    "train",
    "label",
    "revise",
    "prompts",
    "pipeline",
    "export",
    "merge",
    "bench",
    "leaderboard",
)
"""Commands that continue when the reader of their output closes the pipe."""

_HELP = """jalign aligns language models in JAX.

usage: jalign COMMAND [ARGUMENTS]

  init [FILE] --algorithm NAME     write a config for your own model and data
  train CONFIG [--key value ...]   train by a config file; any key can be overridden
  eval CONFIG [--key value ...]    held-out metrics of a model, or of a run's newest checkpoint;
                                   for reward models also calibration, length and subsets
  eval A B [C ...] --judge JUDGE   win rates of models against each other; --human: by people
  sample MODEL [PROMPT ...]        sample from a model or a run; --best_of N --reward DIR
  serve MODEL [--port N]           an OpenAI-compatible server of runs, models and reward models
  chat MODEL [--beside reference]  a conversation in the terminal, with two models if you like
  label [CONFIG] [--key value ...] preference labels by a language-model judge
  revise [CONFIG] [--key value ..] critique and revise responses by principles
  prompts [CONFIG] [--key value .] new prompts from few-shot examples (self-instruct)
  pipeline FILE [--name value ...] a sequence of commands, such as a whole RLAIF run; resumable
  rollouts RUN                     sampled responses of a run, with their rewards
  report RUN [RUN ...]             a page with curves, samples, warnings; several are compared
  compare RUN RUN [...]            settings that differ, and how the runs ended
  runs [DIR]                       runs with their states and last metrics
  data CONFIG [--key value ...]    show the data as the model will see them; --to KIND converts
  export RUN OUT                   write a run's model as a Hugging Face folder (adapters as PEFT)
  merge OUT --base M --models A B  merge models trained from the same base: TIES, DARE, SLERP
  algorithms [NAME]                the catalogue, or one algorithm with its hyper-parameters
  configs [WORD]                   configs that ship with jalign, given by name
  plan CONFIG --target NAME        memory and speed on a TPU slice or GPU, without having one;
                                   --suggest tries what would help
  doctor [--model MODEL]           devices, kernels, versions and what is missing; whether a
                                   model is supported
  bench WHAT                       measure speed and memory on this machine
  leaderboard SPEC --out DIR       compare methods from one start on the same data; resumable

eval, sample and export take --step best (or a step) of a run: the checkpoint that stop.metric kept.
jalign COMMAND --help explains a command, jalign --version prints the version. JALIGN_LOG=DEBUG
prints tracebacks. Exit codes: {codes}."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the `jalign` command."""
    if args is None:
        exit_at_interrupts()
        args = sys.argv[1:]
    end_with(partial(_run, list(args)))


def _run(args: list[str]) -> int | None:
    logging.basicConfig(level=log_level(), format="%(levelname)s %(name)s: %(message)s")
    # Orbax logs every file it writes there, and a traceback per thread for every error, which is
    # raised as well.
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

    module, _, name = COMMANDS[args[0]].partition(":")
    console = CommandConsole(writes_files=args[0] in WRITING)
    return getattr(import_module(module), name)(args[1:], console)


def _help() -> str:
    codes = "; ".join(f"{int(code)}: {code.meaning}" for code in ExitCode)
    *lines, last = _HELP.format(codes=codes).split("\n")
    return "\n".join([*lines, *textwrap.wrap(last, 100)])


def _keep_compiled_programs() -> None:
    """Cache compiled programs across processes. JAX_COMPILATION_CACHE_DIR names another folder;
    empty turns the cache off.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Under the home folder, not /tmp: whoever can write to a program cache can run code.
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jalign" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    # JAX skips programs that compile in under a second, of which a command has dozens
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


if __name__ == "__main__":
    main()
