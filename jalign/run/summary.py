"""Summaries printed before and after a run."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.table import Table
from rich.text import Text

from jalign import __version__, store
from jalign.data.report import sentences
from jalign.kernels import backend
from jalign.log import RunLog
from jalign.run import data as build_data
from jalign.run.described import described
from jalign.run.setup import Setup
from jalign.train.online import Online
from jalign.train.source import Source

_OUR_OWN = {"row", "source", "weight"}  # extras that every algorithm reads
_SHOWN = 3  # generations


def introduce(log: RunLog, setup: Setup, source: Source, steps: int, start: int) -> None:
    """Print the model, kernels, data and batches of a run."""
    options, model = setup.options, setup.roles
    examples, held = setup.examples, setup.held
    trained = sum(x.size for x in jax.tree.leaves(model.params))
    frozen = sum(x.size for x in jax.tree.leaves(model.base))
    row, spec, dtype = options.algorithm, model.decoder.spec, model.decoder.dtype
    log.say(f"jalign {__version__}: {row.name} on {model.path}")
    for line in described(options, setup.inputs.given):
        log.say(line)
    log.say(f"trained parameters {trained:,}, frozen {frozen:,}, computed in {dtype}")
    for line in backend.describe(
        dtype=dtype,
        head_dim=spec.head_dim,
        softcap=spec.attn_softcap,
        sinks=spec.attn_sinks,
        requested=model.decoder.attention,
    ):
        log.say(line)
    # held-out data mostly report the same: a sentence is printed once
    training_lines = sentences(examples.report) if examples else []
    splits = [] if setup.inputs.train is not None else build_data.described_splits(options.data)
    for line in [*splits, *training_lines]:
        log.say(f"data: {line}")
    log.say(f"data: {len(held or ())} examples held out")
    for line in sentences(held.report) if held else ():
        if line not in training_lines:
            log.say(f"held-out data: {line}")
    if isinstance(source, Online) and source.pretraining:
        for line in sentences(source.pretraining.texts.report):
            log.say(f"pretraining data: {line}")
    unread = set(examples.extras if examples else ()) - set(row.inputs()) - _OUR_OWN
    if unread:
        log.say(f"data: {row.name} does not read {', '.join(sorted(unread))}")
    for line in source.describe():
        log.say(f"batches: {line}")
    if start == steps:
        log.say(f"done already: {start} of {steps} steps")
        return
    if log.dropped and not start:
        log.say(
            f"warning: {log.path} held the record of {log.dropped} steps, but there is no "
            "checkpoint to go on from: the run begins afresh, and its record with it"
        )
    begin = f"going on after step {start} of {steps}" if start else f"{steps} steps"
    log.say(f"{begin}, {options.batch_size} examples each")


def conclude(
    log: RunLog,
    out: store.StorePath,
    start: int,
    steps: int,
    seconds: float,
    best: int | None,
    trackers: Sequence[str] = ("tensorboard",),
) -> None:
    """Print metrics and texts before and after, the steps of this session, and the output files."""
    # without a terminal nobody reads tables, and the record has it all
    console = log.display.console
    if console is None:
        return
    texts = log.rows("generations")
    if len(texts) > 1:
        _show_texts(log, texts[0]["rows"], texts[-1]["rows"])
    evaluations = log.rows("eval")
    if len(evaluations) > 1:
        first, last = evaluations[0], evaluations[-1]
        for name in ("loss", "rewards/accuracies", "rewards/margins", "reward"):
            if first.get(name) is not None and last.get(name) is not None:
                log.say(f"held-out {name}: {first[name]:.4f} before, {last[name]:.4f} after")
    samples = log.rows("samples")
    for metric in samples[-1] if len(samples) > 1 else ():
        if metric.startswith("samples/") and metric in samples[0]:
            score = metric.split("/")[1]
            log.say(
                f"mean {score} of {len(texts[-1]['rows'])} continuations: "
                f"{samples[0][metric]:.3f} before, {samples[-1][metric]:.3f} after"
            )
    if steps > start:
        log.say(f"{steps - start} steps in {seconds:.0f} s")
    say = log.display.say  # of files: no news for the record
    say(f"metrics:     {log.path}")
    say(f"report:      jalign report {out}")
    if "tensorboard" in trackers:
        say(f"TensorBoard: {tensorboard_command(out)}  (pip install 'jalign[tensorboard]')")
    say(f"checkpoint:  {out / 'checkpoints' / str(steps)}")
    if best is not None:
        say(f"best:        {out / 'checkpoints' / str(best)} (--step best)")
    run = str(out)
    sample = f"jalign sample {run} PROMPT; " if texts else ""
    say(f"next:        jalign eval {run}; {sample}jalign export {run} {run}-exported")
    # started by its path (.venv/bin/jalign): the commands above would not be found
    if shutil.which("jalign") is None and (activate := Path(sys.prefix, "bin/activate")).is_file():
        say(f"             so that the shell knows jalign: source {activate}")


def _show_texts(log: RunLog, first: list[dict[str, str]], last: list[dict[str, str]]) -> None:
    """Show a few prompts with continuations before and after, and count empty ones."""
    console = log.display.console
    assert console is not None
    pairs = [
        (x["prompt"], x["continuation"].strip(), y["continuation"].strip())
        for x, y in zip(first, last, strict=True)
    ]
    full = [pair for pair in pairs if all(pair[1:])]
    for prompt, before, after in (full or pairs)[:_SHOWN]:
        # Text, not str: rich would parse markup in a str
        table = Table(show_header=False, title=Text(prompt), title_justify="left", expand=True)
        table.add_row("before", Text(before))
        table.add_row("after", Text(after))
        console.print(table)
    empty = [sum(not pair[i] for pair in pairs) for i in (1, 2)]
    if any(empty):
        log.say(
            f"of {len(pairs)} continuations {empty[0]} were empty before and {empty[1]} after: "
            "the model ended them at once"
        )


def tensorboard_command(out: store.StorePath) -> str:
    """Shows this run under its name, beside the others in the same folder if there are only runs
    in it: TensorBoard calls a run by its path below --logdir.
    """
    parent = out.parent
    beside = [] if store.is_remote(out) else [x for x in parent.iterdir() if x.is_dir()]
    if beside and all((x / "config.json").is_file() for x in beside):
        return f"tensorboard --logdir {shlex.quote(str(parent))}"
    if store.is_remote(out) or {":", ","} & set(str(out)):
        return f"tensorboard --logdir {shlex.quote(str(out))}"
    return f"tensorboard --logdir_spec {shlex.quote(f'{out.name}:{out}')}"
