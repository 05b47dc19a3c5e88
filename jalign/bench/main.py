"""`jalign bench step|head|sample|rl`: one table, and the same figures as a line of JSON."""

import json
import sys
from collections.abc import Sequence

import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from jalign.bench import head, measure, rollouts, workloads
from jalign.core import did_you_mean

_HELP = """usage: jalign bench WHAT [--option VALUE ...]

Measure on this machine; one table, and the same figures as a line of JSON.

  step     an optimizer step: of a random tiny model, or of --config FILE
  head     the log-probs of a large vocabulary, value and gradient
  sample   tokens per second of sampling
  rl       a whole online step: sample, reward, learn

jalign bench WHAT --help lists the options of one.

examples:
  jalign bench step
  jalign bench step --config dpo/tinyllama_1b_full_h200 --random -- --batch_size 16"""
WHAT = ("step", "head", "sample", "rl")


def bench(args: Sequence[str], console: Console) -> None:
    """Measure one thing on this machine."""
    if not args or args[0] in ("-h", "--help"):
        console.print(_HELP, markup=False, highlight=False)
        return
    if args[0] not in WHAT:
        raise ValueError(f"no benchmark {args[0]!r}{did_you_mean(args[0], WHAT)}")
    run = {"step": _step, "head": _head, "sample": _sample, "rl": _rl}[args[0]]
    run(list(args[1:]), console)


def _step(args: list[str], console: Console) -> None:
    """An optimizer step: of a config, or of a random tiny Llama on pairs of random tokens."""
    parser = ArgumentParser(prog="jalign bench step", description=_step.__doc__)
    parser.add_argument("--config", default=None, help="its own step; changes of it behind --")
    parser.add_argument(
        "--random",
        action="store_true",
        help="with --config: random weights of its architecture, random tokens, longest examples",
    )
    parser.add_argument("--algorithm", default="dpo")
    parser.add_argument("--pairs", type=int, default=8, help="per step")
    parser.add_argument("--len", type=int, default=256, help="tokens of prompt and response")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt")
    parser.add_argument(
        "--lengths", default=None, help="npz with arrays P, C, R: real lengths instead"
    )
    parser.add_argument("--max_len", type=int, default=512, help="longest row used from --lengths")
    parser.add_argument("--layout", default="flat", choices=["flat", "padded"])
    parser.add_argument("--reference", default="step", choices=["step", "cached"])
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--group_by_length", type=int, default=0)
    parser.add_argument("--max_tokens", type=int | None, default=None, help="of a micro-batch")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument(
        "--turns", action="store_true", help="one step per line read, for interleaving"
    )
    args, changes = _parted(args)
    options = parser.parse_args(args)
    if not options.config and (options.random or changes):
        raise ValueError(f"{' '.join(changes) or '--random'} needs --config")
    if options.config:
        from jalign.config.read import read_config

        config = read_config([options.config, *changes])
        work = workloads.config_step(config, random=options.random)
    else:
        work = workloads.random_step(
            options.algorithm,
            _lengths(options),
            pairs=options.pairs,
            layout=options.layout,
            reference=options.reference,
            lora=options.lora,
            group_by_length=options.group_by_length,
            max_tokens=options.max_tokens,
        )
    if options.turns:
        _in_turns(work, options.warmup)
        return
    _print(console, measure.report(work, warmup=options.warmup, count=options.steps))


def _parted(args: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and behind "--"."""
    at = args.index("--") if "--" in args else len(args)
    return args[:at], args[at + 1 :]


def _lengths(options) -> np.ndarray:
    if options.lengths is None:
        n = options.len - options.prompt
        return np.tile([[options.prompt, n, n]], (max(64, 4 * options.pairs), 1))
    with np.load(options.lengths) as found:
        rows = np.stack([found["P"], found["C"], found["R"]], 1)
    return rows[rows[:, 0] + rows[:, 1:].max(1) <= options.max_len]


def _in_turns(work: workloads.Work, warmup: int) -> None:
    """`ready`, then for every line on stdin one step: wall seconds, CPU-seconds, loss."""
    run = measure.steps(work)
    for _ in range(warmup):
        next(run)
    print(f"ready {json.dumps(measure.memory(work))}", flush=True)
    for _ in sys.stdin:
        wall, cpu, _, loss = next(run)
        print(wall, cpu, loss, flush=True)


def _head(args: list[str], console: Console) -> None:
    """Log-probabilities of a large vocabulary: the blocked head against the naive one."""
    parser = ArgumentParser(prog="jalign bench head", description=_head.__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--width", type=int, default=288)
    parser.add_argument("--vocabulary", type=int, default=131072)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(args)
    for row in head.compare(options.tokens, options.width, options.vocabulary, options.repeats):
        _print(console, row)


def _sample(args: list[str], console: Console) -> None:
    """Tokens per second of the sampler on a random Llama of 6 layers and width 288."""
    parser = ArgumentParser(prog="jalign bench sample", description=_sample.__doc__)
    parser.add_argument("--rows", type=int, default=8, help="responses at once")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=128, help="most tokens of each response")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    parser.add_argument(
        "--mixed", action="store_true", help="uneven lengths, with and without refilled rows"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(args)
    calls = rollouts.sampler(
        rows=options.rows,
        prompt=options.prompt,
        new=options.new,
        vocabulary=options.vocabulary,
        mixed=options.mixed,
        temperature=options.temperature,
    )
    _print(console, {"rows": options.rows} | rollouts.in_turns(calls, options.repeats))


def _rl(args: list[str], console: Console) -> None:
    """A whole online step on a random tiny Llama: sampling, a Python reward, learning."""
    parser = ArgumentParser(prog="jalign bench rl", description=_rl.__doc__)
    parser.add_argument("--algorithm", default="grpo")
    parser.add_argument("--prompts", type=int, default=8, help="per step")
    parser.add_argument("--responses", type=int, default=4, help="to each prompt")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens of a response")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=2)
    options = parser.parse_args(args)
    work = rollouts.online_step(
        options.algorithm,
        prompts=options.prompts,
        responses=options.responses,
        prompt=options.prompt,
        new=options.new,
    )
    _print(console, measure.report(work, warmup=options.warmup, count=options.steps))


def _print(console: Console, row: dict) -> None:
    table = Table("figure", "value")
    for name, value in row.items():
        table.add_row(name, str(value))
    console.print(table)
    print(json.dumps(row), flush=True)
