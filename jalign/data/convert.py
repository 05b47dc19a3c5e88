"""Rows to records of the wanted kind, converted from another kind if possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from jalign.data import select
from jalign.data.examples import Report
from jalign.data.joint import joint
from jalign.data.kinds import ANNOTATOR, OPTIONAL, Row
from jalign.data.noise import Flip, flip
from jalign.data.parsing import SOURCE_COLUMN, parsed, sources_of
from jalign.data.records import Message, Record
from jalign.data.rows import Places


def _without(record: Record, kind: str, *names: str) -> dict:
    """The extras without these names and the optional ones of `kind`; weight and annotator stay."""
    # They are the example's, not a response's: every conversion keeps them.
    gone = {*names, *OPTIONAL[kind]} - {"weight", ANNOTATOR}
    return {k: v for k, v in record.extras.items() if k not in gone}


def pairs_to_binary(record: Record) -> list[Record]:
    """The chosen response with label 1 and the rejected one with label 0."""
    extras = _without(record, "pairs")
    return [
        record._replace(responses=[response], extras=extras | {"label": label})
        for response, label in zip(record.responses, (1.0, 0.0), strict=True)
    ]


def pairs_to_lists(record: Record) -> list[Record]:
    """Both responses, the chosen one rated 1 and the rejected one 0."""
    return [record._replace(extras=_without(record, "pairs") | {"ratings": [1.0, 0.0]})]


def pairs_to_supervised(record: Record) -> list[Record]:
    """The chosen response."""
    return [record._replace(responses=record.responses[:1], extras=_without(record, "pairs"))]


def lists_to_pairs(record: Record) -> list[Record]:
    """The best response against the worst; none if all tie.

    margin is the difference in rating; chosen_win_rate and rejected_win_rate the share of the list
    that each is rated above, equals counting half and each its own equal (SPPO's estimate of
    P(y > pi), https://arxiv.org/abs/2405.00675, Eq. 4.4, by ratings instead of a preference model).
    """
    ratings = record.extras["ratings"]
    if not ratings or max(ratings) == min(ratings):
        return []
    best, worst = int(np.argmax(ratings)), int(np.argmin(ratings))
    return [
        record._replace(
            responses=[record.responses[best], record.responses[worst]],
            extras=_without(record, "lists", "ratings")
            | {
                "margin": ratings[best] - ratings[worst],
                "chosen_win_rate": _win_rate(ratings, best),
                "rejected_win_rate": _win_rate(ratings, worst),
            },
        )
    ]


def _win_rate(ratings: Sequence[float], i: int) -> float:
    return sum(0.5 * ((ratings[i] > r) + (ratings[i] >= r)) for r in ratings) / len(ratings)


def lists_to_supervised(record: Record) -> list[Record]:
    """The best response; the first of several."""
    if not record.responses:
        return []
    best = int(np.argmax(record.extras["ratings"]))
    extras = _without(record, "lists", "ratings")
    return [record._replace(responses=[record.responses[best]], extras=extras)]


def lists_to_binary(record: Record) -> list[Record]:
    """Each response rated above the prompt's mean with label 1, below it with label 0; a response
    at the mean is left out.
    """
    ratings, extras = record.extras["ratings"], _without(record, "lists", "ratings")
    if not ratings or max(ratings) == min(ratings):
        return []  # a mean of equal numbers may differ from them by rounding
    mean = math.fsum(ratings) / len(ratings)
    return [
        record._replace(responses=[response], extras=extras | {"label": float(rating > mean)})
        for response, rating in zip(record.responses, ratings, strict=True)
        if rating != mean
    ]


def lists_to_rated(record: Record) -> list[Record]:
    """Each response with its rating."""
    extras = _without(record, "lists", "ratings")
    return [
        record._replace(responses=[response], extras=extras | {"rating": rating})
        for response, rating in zip(record.responses, record.extras["ratings"], strict=True)
    ]


def binary_to_rated(record: Record) -> list[Record]:
    """The label as the rating: 1 or 0."""
    extras = _without(record, "binary", "label") | {"rating": record.extras["label"]}
    return [record._replace(extras=extras)]


def binary_to_supervised(record: Record) -> list[Record]:
    """The response when it is labeled desirable."""
    keep = record.extras["label"] > 0
    return [record._replace(extras=_without(record, "binary", "label"))] if keep else []


def pairs_to_scored(record: Record) -> list[Record]:
    """The chosen response with score 1 and the rejected one with score 0."""
    return [scored for single in pairs_to_binary(record) for scored in binary_to_rated(single)]


def lists_to_scored(record: Record) -> list[Record]:
    """Each response with its rating, which must be a score."""
    return [scored for single in lists_to_rated(record) for scored in rated_to_scored(single)]


def rated_to_scored(record: Record) -> list[Record]:
    """The response with its rating.

    Raises:
      ValueError: the rating is missing or not between 0 and 1.
    """
    # attributes alone have no rating
    rating = record.extras.get("rating")
    if rating is None or not 0 <= rating <= 1:
        raise ValueError(
            f"{record.where}: a score must be between 0 and 1, got rating {rating}; rescale the "
            "column to (rating - lowest) / (highest - lowest)"
        )
    return [record._replace(extras=_without(record, "rated", "attribute_ratings"))]


def supervised_to_scored(record: Record) -> list[Record]:
    """A demonstration with score 1 (UFT, https://arxiv.org/abs/2410.21438)."""
    return [record._replace(extras=_without(record, "supervised") | {"rating": 1.0})]


def to_prompts(record: Record) -> list[Record]:
    """The prompt alone."""
    return [record._replace(responses=[], extras={})] if record.prompt else []


CONVERSIONS: dict[tuple[str, str], Callable[[Record], list[Record]]] = {
    ("pairs", "binary"): pairs_to_binary,
    ("pairs", "lists"): pairs_to_lists,
    ("pairs", "joint"): joint,
    ("pairs", "supervised"): pairs_to_supervised,
    ("lists", "pairs"): lists_to_pairs,
    ("lists", "binary"): lists_to_binary,
    ("lists", "rated"): lists_to_rated,
    ("lists", "supervised"): lists_to_supervised,
    ("binary", "rated"): binary_to_rated,
    ("binary", "supervised"): binary_to_supervised,
    ("rated", "scored"): rated_to_scored,
    ("binary", "scored"): binary_to_rated,
    ("pairs", "scored"): pairs_to_scored,
    ("lists", "scored"): lists_to_scored,
    ("supervised", "scored"): supervised_to_scored,
    ("pairs", "prompts"): to_prompts,
    ("lists", "prompts"): to_prompts,
}


def convert(records: Iterable[Record], kind: str, wanted: str) -> list[Record]:
    """Convert records to another kind; records without a signal in the new kind are dropped.

    Raises:
      ValueError: there is no such conversion.
    """
    fn = _conversion(kind, wanted)
    return [new for record in records for new in fn(record)]


def _conversion(kind: str, wanted: str) -> Callable[[Record], list[Record]]:
    wanted = "prompts" if wanted == "samples" else wanted
    if kind == wanted:
        return lambda record: [record]
    if (kind, wanted) not in CONVERSIONS:
        there = ", ".join(f"{a} to {b}" for a, b in CONVERSIONS)
        raise ValueError(f"no conversion {kind} to {wanted}; there is: {there}")
    return CONVERSIONS[kind, wanted]


def to_records(
    rows: Sequence[Row],
    wanted: str | None = None,
    *,
    numeric: Collection[str] | None = None,
    bad_rows: str = "error",
    unread: str = "not read",
    filters: Sequence[str] = (),
    balance: bool = False,
    weights: tuple[float, float] | None = None,
    soft_labels: float = 0.0,
    noise: Flip | None = None,
) -> tuple[list[Record], Report]:
    """Rows, also of a mixture, as records of one kind, and a report for `tokenize` to continue.

    Args:
      wanted: the kind of record; None: the recognized one.
      numeric: the optional numbers (`kinds.OPTIONAL`) that somebody reads; they must be numbers in
        all rows or in none. None: those that are numbers in all rows. The weight of an example is
        one only where a row holds a number in that column.
      bad_rows: a row that does not parse is an "error", or "drop": left out and counted.
      unread: words of the report for columns that were not read.
      filters: what is left out, as `select.parse_filter` reads it, in this order. A filter looks at
        the records as they are read where it knows their kind, else at what was made from them.
      balance: drop binary records of the larger class until both labels are equally frequent.
      weights: of desirable and undesirable responses in the loss; binary data that they leave
        unbalanced are a warning in the report.
      soft_labels: where above 0, pairs get chosen_prob = sigmoid(soft_labels * margin): how likely
        the chosen response is the better one if the margin is a difference of rewards
        (Bradley-Terry).
      noise: labels that are inverted first of all, to test with.

    Raises:
      ValueError: unrecognized columns, a row that does not parse (with its place), a filter that
        is unknown or does not apply to this kind of data.
    """
    specs = [select.parse_filter(text) for text in filters]
    if numeric is not None and _by_margin(soft_labels, noise, specs):
        numeric = {*numeric, "margin"}
    names = sorted({row.get(SOURCE_COLUMN, "") for row in rows} - {""})
    report = Report(read=len(rows), sources=tuple(names), locations=Places(rows))
    sources = sources_of(rows, wanted, numeric)
    targets = {("prompts" if wanted == "samples" else wanted) or s.kind for s in sources}
    if len(targets) > 1:
        shown = "; ".join(f"{s.name}: {s.explanation}" for s in sources)
        raise ValueError(f"a mixture of different kinds: {shown}")
    report.kind = target = next(iter(targets), "")
    read = [r for s in sources for r in parsed(s, bad_rows == "drop", unread, report)]
    if any("weight" in r.extras for r in read):
        # Examples of sources without the column count 1 beside those that have one.
        read = [r._replace(extras={"weight": 1.0} | r.extras) for r in read]
    kinds = {s.name: s.kind for s in sources}
    # Before conversion where possible: pairs made binary have lost their margin.
    early, late = select.stages(specs, set(kinds.values()), target)
    # Sources were parsed one after another; rows regain their order here.
    read.sort(key=lambda r: r.row)
    if noise:
        read = flip(read, noise, numeric is None or ANNOTATOR in numeric, report)
    if early:
        read = select.keep(read, early, report)
    out: list[Record] = []
    for record in read:
        new = _conversion(kinds[record.source], target)(record)
        if target == "prompts" and not _asks(record.prompt):
            report.drop("empty prompt")
            continue
        if not new:
            report.drop(f"nothing to learn as {target}")
        out += new
    if any(ANNOTATOR in r.extras for r in out):
        out = _numbered_annotators(out, report)
    if any("attribute_ratings" in r.extras for r in out):
        out = _in_one_order(out, report)
    if late:
        out = select.keep(out, late, report)
    if soft_labels:
        out = [_with_soft_label(record, soft_labels) for record in out]
    if balance:
        out = select.balance(out, target, report)
    if weights and target == "binary" and (warning := select.label_warning(out, weights)):
        report.warnings.append(warning)
    return out, report


def _by_margin(soft_labels: float, noise: Flip | None, specs: Sequence[select.FilterSpec]) -> bool:
    """Whether filters, soft labels or noise read margin, which the loss may not."""
    tail = noise is not None and noise.kind == "tail"
    return bool(soft_labels) or tail or any(c.name == "min_margin" for c in specs)


def _asks(prompt: str | list[Message]) -> bool:
    """Whether a prompt has any text."""
    texts = [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt]
    return any(text.strip() for text in texts)


def _with_soft_label(record: Record, scale: float) -> Record:
    """A pair with P(chosen is better), by its margin."""
    if "margin" not in record.extras or "chosen_prob" in record.extras:
        given = ", ".join(sorted(record.extras)) or "none"
        raise ValueError(
            f"soft_labels makes chosen_prob of margin: {record.where} must have margin and no "
            f"chosen_prob, it has {given}"
        )
    probability = 1 / (1 + math.exp(-scale * record.extras["margin"]))
    return record._replace(extras=record.extras | {"chosen_prob": probability})


def _numbered_annotators(records: list[Record], report: Report) -> list[Record]:
    """Names of annotators become their places in the sorted names, which the report keeps."""
    for record in records:  # of a mixture; within a source `parsed` has checked it
        if ANNOTATOR not in record.extras:
            raise ValueError(f"{record.where} has no annotator, which other sources have")
    # sorted: the numbers must not depend on which row comes first
    names = sorted({record.extras[ANNOTATOR] for record in records})
    number = {name: i for i, name in enumerate(names)}
    report.annotators = tuple(names)
    return [
        record._replace(extras=record.extras | {ANNOTATOR: number[record.extras[ANNOTATOR]]})
        for record in records
    ]


def _in_one_order(records: list[Record], report: Report) -> list[Record]:
    """Attribute ratings by name become lists in the order of the first record's names, which the
    report keeps; records without any number are dropped.
    """
    rated = (r.extras["attribute_ratings"] for r in records if "attribute_ratings" in r.extras)
    first = next(rated)
    report.attributes, out = tuple(first), []
    for record in records:
        by_name = record.extras.get("attribute_ratings", {})
        if set(by_name) != set(first):
            raise ValueError(
                f"{record.where} rates {', '.join(by_name) or 'no attributes'}, the rows before it "
                f"{', '.join(first)}: every row must name the same (null where there is no rating)"
            )
        ratings = [by_name[name] for name in first]
        if all(map(math.isnan, ratings)) and "rating" not in record.extras:
            report.drop("no attribute is rated")
            continue
        out.append(record._replace(extras=record.extras | {"attribute_ratings": ratings}))
    return out
