"""What the commands of AI feedback share: a model that is asked, items, a file that grows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console

from jalign.data.journal import Make, make_file
from jalign.log.display import Display
from jalign.rewards.server import ServerJudge
from jalign.run import data as build_data
from jalign.signatures import did_you_mean, hyper_of

ASKING = ("cache", "concurrency", "timeout_s", "retries", "prompt_price", "completion_price")
HOW = ("out", "file", "limit", *ASKING)  # not which rows come of an item


def rows_of(config: Any) -> list[dict[str, Any]]:
    """The rows that the command reads."""
    return build_data.rows_of(config.file, "train")[: config.limit or None]


def check_options(options: Mapping[str, Any], fn: Any, ours: Sequence[str] = ()) -> None:
    """That all options are of this function, and none is one that we give ourselves."""
    known = set(hyper_of(fn)) - set(ours)
    for name in options:
        if name not in known:
            raise ValueError(f"options: no option {name!r}{did_you_mean(name, known)}")


def write(
    config: Any,
    items: Sequence[Any],
    make: Make,
    what: str,
    console: Console,
    facts: Mapping[str, Any] | None = None,
    judge: Any = None,
    **more: Any,
) -> None:
    """Make the file of a command, and say what was left out and why.

    Args:
      facts: what decides, beside config and items, which rows come out.
      judge: who is asked; where nothing comes of it a server's last words are said.

    Raises:
      ValueError: as `make_file`.
      more: options of `make_file`.
    """
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    identity, size = {**_flat(asdict(config)), **(facts or {})}, config.batch_size
    done = 0
    with Display(console).phase(f"asking for {what}", len(items)) as advance:

        def counted(lot: Sequence[Any], first: int, rows: Any) -> Any:
            nonlocal done
            results = make(lot, first, rows)
            advance(first + len(lot) - done)
            done = first + len(lot)
            return results

        try:
            rows, dropped = make_file(
                config.out, items, counted, identity=identity, size=size, say=say, **more
            )
        except ValueError as error:
            if words := last_words(judge):
                raise ValueError(f"{error}; {words}") from error
            raise
    for reason, count in dropped.most_common():
        say(f"dropped: {count} times {reason}")
    say(f"{len(rows)} {what} written to {config.out}")


def tell(judge: Any, console: Console, more: Mapping[str, float] | None = None) -> None:
    """What a judge has to say about itself: position bias, requests, cost."""
    numbers = {**(more or {}), **(judge.metrics() if isinstance(judge, ServerJudge) else {})}
    if numbers:
        cells = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        console.print(cells, markup=False, highlight=False, soft_wrap=True)
    if words := last_words(judge):
        console.print(words, markup=False, highlight=False, soft_wrap=True)


def last_words(judge: Any) -> str:
    """How often a server gave no answer and why, at last; empty where it always did."""
    counts = judge.counts if isinstance(judge, ServerJudge) else None
    if not (counts and counts.failed):
        return ""
    return f"{counts.failed} questions got no answer of the server, the last: {counts.last_error}"


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested options by their dotted names, but for those that do not decide what comes out."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{before}{name}.")
        elif name not in HOW:
            out[before + name] = value
    return out
