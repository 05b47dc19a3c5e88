"""Write rows item by item with a journal, so that a killed command can resume.

The journal of an unfinished file is FILE.part: a first line with the identity of the command, then
one line per lot of items. The file itself is written at the end, in one piece. A partial line after
a kill is ignored, and lots have the same borders after a resume: the rows do not depend on
interruptions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from jalign import store
from jalign.data.write import check_name
from jalign.data.write import write as write_jsonl

Row = dict[str, Any]


class Made(NamedTuple):
    """Result of an item.

    Attributes:
      rows: any number of them.
      dropped: for everything that was left out, why.
    """

    rows: list[Row]
    dropped: list[str]


Make = Callable[[Sequence[Any], int, list[Row]], list[Made]]
"""`(items, index of the first, rows so far) -> result of each`."""

WriteRows = Callable[[Path, list[Row]], None]
"""`(path, rows)`: writes or replaces a file in one piece."""


def make_file(
    path: str | Path,
    items: Sequence[object],
    make: Make,
    *,
    identity: Mapping[str, object],
    size: int,
    most: int | None = None,
    say: Callable[[str], None] = lambda text: None,
    write: WriteRows | None = None,
) -> tuple[list[Row], Counter[str]]:
    """Write the rows of all items to a file, resuming from its journal if there is one.

    Args:
      path: of the file, .jsonl or .jsonl.gz; an existing file is replaced at the end.
      items: JSON values.
      identity: all other facts that determine the rows, by name.
      size: items of a lot.
      most: rows after which no further lot is made, and none are kept; None: no limit.
      say: prints the point of resumption.
      write: writes another format; the path may then have any ending.

    Returns:
      The rows, and how often each reason to leave something out occurred.

    Raises:
      ValueError: a journal of other items or another identity, one that another process writes, or
        one whose first line is damaged; items of which no row came.
    """
    path = check_name(path) if write is None else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = path.with_name(path.name + ".part")
    # As it comes back from the file: tuples are lists, keys are strings.
    known = json.loads(json.dumps({**identity, "items": fingerprint(items)}))
    with _locked(journal, path) as file:
        results = _begun(file, journal, known, say)
        if results:
            say(f"resuming after {len(results)} of {len(items)}")
        rows = [row for result in results for row in result.rows]
        while len(results) < len(items) and (most is None or len(rows) < most):
            lot = make(items[len(results) : len(results) + size], len(results), rows)
            _append(file, [list(one) for one in lot])
            results += lot
            rows += [row for one in lot for row in one.rows]
        dropped = Counter(reason for result in results for reason in result.dropped)
        if rows:
            # Before the journal goes: after a kill in between the same file is written again.
            (write or write_jsonl)(path, rows[:most])
        journal.unlink()  # while it is locked: another process must not go on with it
    if not rows:
        why = "; ".join(f"{n} times: {reason}" for reason, n in dropped.most_common())
        raise ValueError(
            f"nothing to write to {path}: no row came of {len(items)}; {why or 'none'}"
        )
    return rows[:most], dropped


def fingerprint(items: object) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()


def _locked(journal: Path, path: Path) -> IO[str]:
    """The journal, opened and locked by this process."""
    while True:
        file = journal.open("a", encoding="utf-8")
        try:
            store.lock(file, f"another command is writing {path}")
        except ValueError:
            file.close()
            raise
        if journal.exists() and os.path.samestat(os.fstat(file.fileno()), journal.stat()):
            return file
        file.close()  # its holder deleted it after we had opened it


def _begun(
    file: IO[str], journal: Path, identity: Mapping[str, object], say: Callable[[str], None]
) -> list[Made]:
    """The results in the intact lines of a journal, which is cut to them; starts an empty one."""
    *lines, _ = journal.read_bytes().split(b"\n")  # a partial line at the end
    if not lines:
        os.truncate(journal, 0)
        _append(file, identity)
        return []
    earlier = _parsed(lines[0], dict)
    if earlier is None:
        raise ValueError(
            f"{journal} is damaged: its first line does not say what was begun. Put back a copy, "
            "or delete it to make everything again"
        )
    names = sorted(earlier.keys() | identity.keys())
    if differs := [n for n in names if earlier.get(n) != identity.get(n)]:
        of = "; ".join(f"{n}: {earlier.get(n)!r} then, {identity.get(n)!r} now" for n in differs)
        raise ValueError(
            f"{journal} was begun otherwise ({of}): delete it, or choose another --out"
        )
    lots = [_parsed(line, list) for line in lines[1:]]
    # An append behind half a line would damage that lot, too: cut to the intact lines.
    intact = lots.index(None) if None in lots else len(lots)
    if intact < len(lots):
        say(f"{journal}: line {intact + 2} is damaged; what stands there and below is made again")
    os.truncate(journal, sum(len(line) + 1 for line in lines[: intact + 1]))
    return [Made(*one) for lot in lots[:intact] for one in lot]


def _parsed(line: bytes, kind: type) -> Any:
    """The JSON value of a line; None if it is invalid or of another type."""
    try:
        value = json.loads(line)
        if kind is list:
            # JSON of another shape is damage as well.
            [Made(*one) for one in value]
    except (ValueError, TypeError):
        return None
    return value if isinstance(value, kind) else None


def _append(file: IO[str], value: object) -> None:
    file.write(json.dumps(value) + "\n")  # ASCII: no line breaks but its own
    file.flush()
    # A lot may be answers of a paid judge: on disk before the next one is asked for.
    os.fsync(file.fileno())
