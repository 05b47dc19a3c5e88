"""`jalign data CONFIG`: the data as the model will see it, or written as another kind."""

from collections.abc import Sequence

from rich.console import Console

from jalign import algorithms
from jalign.config.read import read_options
from jalign.data import report, write
from jalign.data.kinds import NEEDS, nearest
from jalign.models import hub
from jalign.options import RunOptions
from jalign.run import data as build_data
from jalign.run import limits as check_tokens
from jalign.run import rollouts as build_online
from jalign.run.batches import source_of
from jalign.run.devices import mesh_of
from jalign.run.policy import model_path, tokenizer_of


def data(args: Sequence[str], console: Console) -> None:
    """Shows the data of a config, or, with `--to`, writes them."""
    config, options = read_options(args, "data")
    if options.to is None:
        show(config, console)
    else:
        save(config, options.to, console)


def check_args(args: Sequence[str]) -> None:
    """That the data are to be written, and as something that exists."""
    config, options = read_options(args, "data")
    if options.to is None:
        raise ValueError("set to: a kind of data, or an algorithm that will read them")
    _kind_of(options.to, config.out)


def show(config: RunOptions, console: Console) -> None:
    """Counts, lengths, what was dropped and why, a few examples with scored tokens coloured, and
    how batches are cut.
    """
    tokenizer = tokenizer_of(config)
    train, held = build_data.examples_of(config, tokenizer)
    train.report.warnings += check_tokens.check(config, tokenizer, train, held)
    for line in build_data.described_splits(config.data):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, examples in (("training data", train), ("held-out data", held)):
        if examples is not None:
            console.rule(name)
            report.render(examples, tokenizer, console)
    console.rule("batches")
    if config.algorithm.experience:
        for line in build_online.spec_of(config).describe(config.algorithm):
            console.print(line, highlight=False)
        return
    spec = hub.spec_of(model_path(config.model.path))
    for line in source_of(config, train, mesh_of(config.mesh), spec).describe():
        console.print(line, highlight=False)


def save(config: RunOptions, wanted: str, console: Console) -> None:
    """All of `data.train`, filtered and balanced, to the file `--out` in the columns of a kind of
    data or of what an algorithm reads.

    Nothing is held out, so that a run on the file holds out what a run on the data would have.
    """
    kind = _kind_of(wanted, config.out)
    kind = "pairs" if kind == "joint" else kind  # made from pairs whenever they are read
    records, told = build_data.converted(config, kind)
    write.write(config.out, write.to_rows(records, told.kind, told.attributes))
    console.print(told.explanation, markup=False, highlight=False, soft_wrap=True)
    for reason, count in sorted(told.dropped.items()):
        console.print(f"dropped: {count} {reason}", markup=False, highlight=False)
    for warning in told.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{len(records)} rows of {told.kind} data written to {config.out}", highlight=False
    )


def _kind_of(wanted: str, out: str) -> str:
    """The kind of data that is written."""
    if wanted not in NEEDS and wanted not in algorithms.ALGORITHMS and ":" not in wanted:
        raise ValueError(
            f"no kind of data {wanted!r}{nearest(wanted, [*NEEDS, *algorithms.ALGORITHMS])}; there "
            f"is: {', '.join(NEEDS)}, and the name of every algorithm"
        )
    if not out.endswith(write.ENDINGS):
        raise ValueError(f"--to needs --out FILE{' or FILE'.join(write.ENDINGS)}, got {out}")
    return wanted if wanted in NEEDS else algorithms.get(wanted).format.name
