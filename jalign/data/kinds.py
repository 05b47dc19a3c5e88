"""Recognize the kind of record from the columns of a data set.

Kinds, named after the formats of the algorithms that read them:

* supervised: `text`, or prompt + completion, or `messages` (also ShareGPT's `conversations`)
* pairs: chosen + rejected; the prompt is a column of its own or the shared prefix
* binary: completion + label (True: desirable)
* rated: completion + rating (a number), or + attributes (numbers by name; HelpSteer's columns)
* lists: responses + ratings (or scores) or ranks (1 is best)
* stepwise: completions (the steps) + labels, one per step
* prompts: a prompt alone, to be answered by the policy
* joint: both responses of a pair in one prompt (`jalign.data.joint`); no columns of its own
* scored: single responses with a score between 0 and 1, of any kind with responses; no columns of
  its own
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from jalign.data.rows import Row, is_number
from jalign.signatures import nearest

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "question", "instruction", "query", "problem", "input", "inputs"),
    "completion": ("completion", "response", "answer", "output", "target", "targets"),
    "chosen": ("chosen", "chosen_response"),
    "rejected": ("rejected", "rejected_response"),
    "system": ("system", "system_prompt", "system_message"),
    "tools": ("tools", "functions"),
    "label": ("label",),
    "rating": ("rating", "score", "reward"),
    "attributes": ("attributes",),
    "responses": ("responses", "completions", "answers", "outputs", "candidates"),
    "ratings": ("ratings", "scores", "rewards"),
    "ranks": ("ranks", "rank"),
    # `completions` are also the responses of a list; the column `labels` tells them apart.
    "steps": ("completions", "steps"),
    "labels": ("labels",),
    "chosen_prob": ("chosen_prob", "prob", "preference", "soft_label"),
    "annotator": ("annotator", "annotator_id", "worker_id"),
    "score_chosen": ("score_chosen", "chosen_score", "chosen_rating", "chosen-rating"),
    "score_rejected": ("score_rejected", "rejected_score", "rejected_rating", "rejected-rating"),
}
"""Our name of a column -> names in data sets, the first match is used. Names that are not listed
have no alias."""

_ANSWERS = (("prompt", "completion"), ("messages",), ("text",))

# Richer kinds first: the columns of a supervised record are also in a binary one.
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "stepwise": (("prompt", "steps", "labels"),),
    "lists": (("prompt", "responses", "ratings"), ("prompt", "responses", "ranks")),
    "pairs": (("chosen", "rejected"), ("first", "second", "better")),
    "binary": tuple((*answer, "label") for answer in _ANSWERS),
    "rated": tuple(
        (*answer, *judged)
        for judged in (("rating",), ("attributes",), HELPSTEER)
        for answer in _ANSWERS
    ),
    "supervised": (("messages",), ("prompt", "completion"), ("text",)),
    "prompts": (("prompt",), ("messages",)),
    "joint": (),
    "scored": (),
}
"""Kind -> the sets of columns that make it. Without a wanted kind, the first that fits is taken."""

MADE_FROM: dict[str, tuple[str, ...]] = {
    "pairs": ("lists",),
    "binary": ("pairs", "lists"),
    "rated": ("binary", "lists"),
    "lists": ("pairs",),
    "supervised": ("pairs", "lists", "binary"),
    "prompts": ("pairs", "lists"),
    "joint": ("pairs",),
    "scored": ("rated", "binary", "pairs", "lists", "supervised"),
}
"""Kind -> the kinds that `jalign.data.convert` can make it from."""

ANNOTATOR = "annotator"
"""Who gave a label: a name or a number. It is read like an optional number, and becomes one."""
_ANY = ("margin", "weight", "score_chosen", "score_rejected", ANNOTATOR)
_MORE = {
    "pairs": ("chosen_prob", "chosen_win_rate", "rejected_win_rate"),
    "binary": ("density_ratio",),
}
OPTIONAL: dict[str, tuple[str, ...]] = {kind: (*_ANY, *_MORE.get(kind, ())) for kind in NEEDS}
"""Kind -> the numbers (and the annotator) that are read where a column holds them: in all rows or
in none."""


def recognize(
    columns: Iterable[str],
    rows: Sequence[Row] = (),
    wanted: str | None = None,
    numeric: Collection[str] | None = None,
) -> tuple[str, str]:
    """Which kind of record these columns hold, and the reason in a sentence.

    Args:
      columns: names of the columns.
      rows: a few rows, to distinguish text from messages.
      wanted: the kind the algorithm reads. It is returned when the columns hold it; otherwise the
        kind that `jalign.data.convert` can make it from.
      numeric: the optional numbers that are read; None: all.

    Raises:
      ValueError: no kind matches; lists the columns, what is missing and the nearest match.
    """
    wanted = "prompts" if wanted == "samples" else wanted
    if wanted is not None and wanted not in NEEDS:
        near = nearest(wanted, NEEDS)
        raise ValueError(f"unknown kind of data {wanted!r}{near}; there is: {', '.join(NEEDS)}")
    columns = list(columns)
    # The kind itself first: a conversion loses columns.
    candidates = [wanted, *MADE_FROM.get(wanted, ())] if wanted else list(NEEDS)
    for kind in candidates:
        for needed in NEEDS[kind]:
            columns_of = {name: c for name in needed if (c := column(name, columns))}
            if len(columns_of) == len(needed):
                if kind == "pairs" and (prompt := column("prompt", columns)):
                    columns_of = {"prompt": prompt} | columns_of
                return kind, _explain(kind, columns_of, columns, rows, wanted, numeric)
    raise ValueError(_cannot(columns, wanted))


def column(name: str, columns: Iterable[str]) -> str | None:
    """Name of this column in `columns`; None if it is missing."""
    return next((alias for alias in names_of(name) if alias in columns), None)


def names_of(name: str) -> tuple[str, ...]:
    """Names of this column in data sets."""
    return NAMES.get(name, (name,))


def optional_column(name: str, row: Row) -> str | None:
    """The column of an optional number. An alias is used only if it holds a number: a `preference`
    in words means something else.
    """
    alias = column(name, row)
    fits = alias == name or name == ANNOTATOR or (alias and is_number(row[alias]))
    return alias if fits else None


def _explain(
    kind: str,
    columns_of: Mapping[str, str],
    columns: list[str],
    rows: Sequence[Row],
    wanted: str | None,
    numeric: Collection[str] | None,
) -> str:
    """`pairs, from prompt (messages), chosen (text) and rejected (text)`."""

    def form(column: str) -> str:
        value = next((row[column] for row in rows if row.get(column) is not None), None)
        if isinstance(value, str):
            return " (text)"
        if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            return " (messages)"
        return f" ({type(value).__name__})" if value is not None else ""

    names = [f"{c if c == n else f'{c} as {n}'}{form(c)}" for n, c in columns_of.items()]
    text = f"{kind}, from the columns {', '.join(names)}"
    if kind == "pairs" and "prompt" not in columns_of:
        text += "; the prompt is what chosen and rejected both begin with"
    row = rows[0] if rows else dict.fromkeys(columns, 0.0)
    read = [n for n in OPTIONAL[kind] if numeric is None or n in numeric]
    also = {n: c for n in read if (c := optional_column(n, row)) and c in columns}
    if also:
        text += f"; also read: {', '.join(_read(n, c) for n, c in also.items())}"
    return text + (f"; made into {wanted}" if wanted and wanted != kind else "")


def _read(name: str, column: str) -> str:
    shown = column if column == name else f"{column} as {name}"
    return f"{shown} (how much an example counts in the loss)" if name == "weight" else shown


def _cannot(columns: list[str], wanted: str | None) -> str:
    kinds = list(NEEDS)
    if wanted:
        kinds = [wanted] if NEEDS[wanted] else [*MADE_FROM[wanted]]
    lines = []
    for kind in kinds:
        gaps = {x: [n for n in x if column(n, columns) is None] for x in NEEDS[kind]}
        fewest = min(map(len, gaps.values()), default=0)
        for needed, missing in gaps.items():
            if len(missing) == fewest:  # the nearest matches only
                hints = "".join(f" {n!r} is missing{nearest(n, columns)}" for n in missing)
                lines.append(f"  {kind} needs {', '.join(needed)}:{hints}")
    aim = f"these columns do not make {wanted!r} data" if wanted else "unrecognized columns"
    return f"{aim}: {', '.join(columns) or 'none'}\n" + "\n".join(lines)
