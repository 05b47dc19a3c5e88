"""The columns of a leaderboard's tables, and the tables as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jalign.eval.metrics import Estimate
from jalign.leaderboard.board import AXES, Leaderboard
from jalign.leaderboard.claims import Claim
from jalign.leaderboard.table import KL_MARKS, Row

Value = str | int | float | Estimate | None


class Column(NamedTuple):
    """A column.

    Attributes:
      of: the value of a row (or claim); None is an empty cell.
      form: format of its numbers, or a function that writes the value.
    """

    head: str
    of: Callable[[Any], Value]
    form: str | Callable[[Any], str] = ".3f"

    def text(self, row: Any) -> str:
        """The cell of a row: a number, or an estimate with its interval."""
        value = self.of(row)
        if value is None or isinstance(value, str):
            return value or ""
        if callable(self.form):
            return self.form(value)
        if isinstance(value, Estimate):
            return f"{value.value:{self.form}} [{value.low:{self.form}}, {value.high:{self.form}}]"
        return f"{value:{self.form}}"


class Table(NamedTuple):
    """A table: its title, its columns, and what they are read from."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Any]


def _p(x: float) -> str:
    return "<0.001" if x < 0.001 else f"{x:.3f}"


def _frontier(i: int) -> Callable[[Row], float]:
    return lambda row: row.at_kl[i]


NAME = Column("method", lambda row: row.name)

QUALITY = (
    NAME,
    Column("rate", lambda row: row.rate, "g"),
    Column("seeds", lambda row: row.seeds, "d"),
    Column("true reward", lambda row: row.true),
    Column("p", lambda row: row.p_value, _p),
    Column("wins", lambda row: row.win),
    Column("at equal length", lambda row: row.lc_win),
    Column("at equal style", lambda row: row.style_win),
    Column("Elo", lambda row: row.elo, ".0f"),
    Column("at equal seconds", lambda row: row.at_seconds),
    Column("accuracy", lambda row: row.accuracy),
    Column("ECE", lambda row: row.ece),
)
COST = (
    NAME,
    *(Column(f"at {x:g} nats", _frontier(i)) for i, x in enumerate(KL_MARKS)),
    Column("area", lambda row: row.area),
    Column("KL", lambda row: row.kl, ".1f"),
    Column("length", lambda row: row.length_ratio, ".2f"),
    Column("distinct-2", lambda row: row.distinct_2, ".2f"),
    Column("self-BLEU", lambda row: row.self_bleu, ".2f"),
    Column("NLL", lambda row: row.nll_change, "+.3f"),
    Column("s", lambda row: row.seconds, ".1f"),
    Column("tokens/s", lambda row: row.tokens_per_second, ".0f"),
    Column("models", lambda row: row.models, "d"),
    Column("MiB", lambda row: row.step_mib, ".0f"),
    Column("rates", lambda row: f"{row.worst_rate:.2f} to {row.best_rate:.2f}"),
)


def _verdict(claim: Claim) -> str:
    return claim.verdict + (f" ({claim.note})" if claim.note else "")


CLAIMS = (
    Column("claim", lambda claim: claim.text),
    Column("verdict", _verdict),
    Column("difference", lambda claim: claim.estimate),
    Column("p", lambda claim: claim.p_value, _p),
    Column("source", lambda claim: claim.source),
)


def _axis(i: int) -> Callable[[tuple[str, tuple[str, ...]]], str]:
    return lambda item: item[1][i]


KINDS = (
    Column("method", lambda item: item[0]),
    *(Column(name, _axis(i)) for i, name in enumerate(AXES)),
)


def tables_of(board: Leaderboard) -> list[Table]:
    """The tables; those without rows are left out."""
    main = {row.name: board.kinds[row.name] for row in board.rows}
    tables = [
        Table("Methods", QUALITY, board.rows),
        Table("What it costs", COST, board.rows),
        Table("What they are", KINDS, list(main.items())),
        Table("Variants", QUALITY, board.variants),
        Table("What variants cost", COST, board.variants),
        Table("Claims", CLAIMS, board.claims),
    ]
    return [table for table in tables if table.rows]


def markdown(board: Leaderboard) -> str:
    """The tables for a README."""
    return "\n\n".join([*map(_markdown, tables_of(board)), facts(board)]) + "\n"


def facts(board: Leaderboard) -> str:
    """What was run, in a line."""
    hashes = "; ".join(f"{k} {', '.join(x[:12] for x in v)}" for k, v in board.hashes.items())
    return (
        f"{board.cells} cells, {board.cpu_hours:.2f} device-hours of training. Equal seconds are "
        f"{board.seconds:.1f}. SHA-256: {hashes}."
    )


def _markdown(table: Table) -> str:
    heads = [column.head for column in table.columns]
    cells = [[column.text(row) for column in table.columns] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *cells])
