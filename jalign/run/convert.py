"""Convert the training data of a run to another kind of data."""

from __future__ import annotations

from jalign import algorithms
from jalign.data import write
from jalign.data.examples import Report
from jalign.data.kinds import NEEDS
from jalign.options import RunOptions
from jalign.run import data as build_data
from jalign.signatures import nearest


def kind_named(name: str) -> str:
    """The kind of data with this name, or the kind that the algorithm with this name reads.

    Raises:
      ValueError: the name is neither; the message names the nearest.
    """
    if name not in NEEDS and name not in algorithms.ALGORITHMS and ":" not in name:
        raise ValueError(
            f"no kind of data {name!r}{nearest(name, [*NEEDS, *algorithms.ALGORITHMS])}; choose "
            f"from: {', '.join(NEEDS)}, or the name of an algorithm"
        )
    return name if name in NEEDS else algorithms.get(name).format.name


def check(options: RunOptions, to: str) -> None:
    """Raise ValueError if `to` is not a kind of data, or `options.out` is not a data file."""
    kind_named(to)
    if not options.out.endswith(write.ENDINGS):
        raise ValueError(
            f"--to needs --out FILE{' or FILE'.join(write.ENDINGS)}, got {options.out}"
        )


def convert(options: RunOptions, to: str) -> tuple[int, Report]:
    """Write all of `data.train`, filtered and balanced, to `options.out`.

    Nothing is held out, so that a run on the file holds out the same rows as a run on the data.

    Args:
      to: a kind of data, or an algorithm whose columns are written.

    Returns:
      The number of rows, and a report of the dropped rows.
    """
    check(options, to)
    kind = kind_named(to)
    # These have no columns of their own: they are made when they are read.
    if kind == "scored":
        raise ValueError("scored data have no columns of their own; --to rated writes ratings")
    kind = "pairs" if kind == "joint" else kind
    # a run on the file filters and balances nothing again, so both apply now
    records, report = build_data.converted(options, kind)
    rows = write.to_rows(records, report.kind, report.attributes, report.annotators)
    write.write(options.out, rows)
    return len(records), report
