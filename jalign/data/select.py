"""Filters against noisy records, and balancing of labels.

A filter is any function of a record; those that a config can name are in `RULES`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jalign.data.examples import Report
from jalign.data.kinds import NEEDS
from jalign.data.records import Record, prompt_key
from jalign.signatures import nearest

Filter = Callable[[Record], bool | str]
"""True: the record is kept; a text: the reason to drop it."""

KTO_RATIO = (1.0, 4 / 3)
"""Where Ethayarajh et al. 2024 (KTO) keep lambda_D n_D / (lambda_U n_U)."""

_JUDGED = ("label", "rating", "ratings", "attribute_ratings", "step_labels")


def keep_margin(minimum: float) -> Filter:
    """Keep pairs with |margin| >= `minimum`."""

    def check(record: Record) -> bool | str:
        if "margin" not in record.extras:
            raise ValueError(
                f"min_margin needs a column margin (or score_chosen and score_rejected), and "
                f"{record.where} has none"
            )
        return abs(record.extras["margin"]) >= minimum or f"margin below {minimum:g}"

    return check


def max_length_ratio(most: float) -> Filter:
    """Keep records whose longest response has at most `most` times the characters of the
    shortest.
    """

    def check(record: Record) -> bool | str:
        lengths = [_length(response) for response in record.responses]
        fits = max(lengths, default=0) <= most * min(lengths, default=0)
        return fits or f"length ratio above {most:g}"

    return check


def drop_duplicates() -> Filter:
    """Keep the first of records with equal texts and labels.

    Copies made by a weight above 1 in a mixture are duplicates too.
    """
    # The filter has a memory: `Rule.make` builds a new one for each pass.
    seen: set[str] = set()

    def check(record: Record) -> bool | str:
        judged = {name: record.extras[name] for name in _JUDGED if name in record.extras}
        key = _key(prompt_key(record), record.responses, judged)
        new = key not in seen
        seen.add(key)
        return new or "duplicate"

    return check


def drop_conflicting(records: Iterable[Record]) -> Filter:
    """Drop contradicting records: pairs of the same two responses to the same prompt in opposite
    order, or one response with both labels.
    """
    there = {_claim(record, as_is=True) for record in records}
    return lambda record: _claim(record, as_is=False) not in there or "contradicts another record"


class Rule(NamedTuple):
    """A filter that a config can name.

    Attributes:
      make: (number, the records it will see) -> filter.
      kinds: the kinds of record it knows.
      least: smallest number it takes; None: it takes none.
    """

    make: Callable[[float, Sequence[Record]], Filter]
    kinds: tuple[str, ...]
    least: float | None = None


RULES: dict[str, Rule] = {
    "min_margin": Rule(lambda x, _: keep_margin(x), ("pairs",), 0.0),
    "length_ratio": Rule(lambda x, _: max_length_ratio(x), ("pairs", "lists"), 1.0),
    "no_conflicts": Rule(lambda _, records: drop_conflicting(records), ("pairs", "binary")),
    "no_duplicates": Rule(lambda *_: drop_duplicates(), tuple(NEEDS)),
}


class FilterSpec(NamedTuple):
    """A rule with its number, as a config asks for it."""

    name: str
    number: float = 0.0


def parse_filter(text: str) -> FilterSpec:
    """`no_duplicates` or `min_margin=0.5` as a rule with its number.

    Raises:
      ValueError: an unknown name, a number that is missing, superfluous or out of range.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if name not in RULES:
        raise ValueError(f"no filter {name!r}{nearest(name, RULES)}; there is: {', '.join(RULES)}")
    least = RULES[name].least
    if least is None:
        if equals:
            raise ValueError(f"the filter {name} takes no number, got {text!r}")
        return FilterSpec(name)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (number >= least and math.isfinite(number)):
        raise ValueError(f"the filter {name} needs a number >= {least:g}: {name}=3; got {text!r}")
    return FilterSpec(name, number)


def stages(
    specs: Sequence[FilterSpec], read: set[str], target: str
) -> tuple[list[FilterSpec], list[FilterSpec]]:
    """Which filters look at records of the kinds `read`, and which at those made from them.

    Raises:
      ValueError: a filter that knows neither.
    """
    early = [c for c in specs if read <= set(RULES[c.name].kinds)]
    late = [c for c in specs if c not in early]
    for c in late:
        if read and target not in (kinds := RULES[c.name].kinds):
            raise ValueError(
                f"the filter {c.name} is for {' or '.join(kinds)}; this is "
                f"{', '.join(sorted({*read, target}))}"
            )
    return early, late


def keep(records: list[Record], specs: Iterable[FilterSpec], report: Report) -> list[Record]:
    """The records that pass all filters; the report counts the others by reason."""
    for name, number in specs:
        check = RULES[name].make(number, records)
        kept = []
        for record in records:
            verdict = check(record)
            if verdict is True:
                kept.append(record)
            else:
                report.drop(verdict or name)
        records = kept
    return records


def balance(records: list[Record], kind: str, report: Report, *, seed: int = 0) -> list[Record]:
    """Subsample the larger class of binary records to the size of the smaller; order is kept.

    Raises:
      ValueError: records of another kind, or with one label only.
    """
    if kind != "binary":
        raise ValueError(f"balance is for binary data, and this is {kind}")
    good, bad = _by_label(records)
    if records and not (good and bad):
        raise ValueError(
            f"balance needs both labels; there are {len(good)} desirable and {len(bad)} "
            "undesirable responses"
        )
    fewer, more = sorted((good, bad), key=len)
    # A fixed seed: a resumed run must leave out the same rows.
    picked = np.random.default_rng(seed).choice(len(more), len(fewer), replace=False)
    if dropped := len(more) - len(fewer):
        report.drop("larger class, to balance", dropped)
    kept = {*fewer, *(more[i] for i in picked.tolist())}
    return [record for i, record in enumerate(records) if i in kept]


def label_warning(records: Sequence[Record], weights: tuple[float, float] = (1.0, 1.0)) -> str:
    """Advice for labels whose weighted counts are out of KTO's range, or "".

    Args:
      weights: lambda_D and lambda_U, KTO's desirable_weight and undesirable_weight.
    """
    good, bad = (len(x) for x in _by_label(records))
    if not good or not bad:
        return f"every label is the same: {good} desirable, {bad} undesirable" * bool(records)
    low, high = KTO_RATIO
    if not all(weights) or low <= weights[0] * good / (weights[1] * bad) <= high:
        return ""
    # the weight of the smaller class, the other one being 1; rounded into the interval
    if good < bad:
        name, least, most = "desirable_weight", low * bad / good, high * bad / good
    else:
        name, least, most = "undesirable_weight", good / bad / high, good / bad / low
    return (
        f"{good} desirable and {bad} undesirable responses: with weights {weights[0]:g} and "
        f"{weights[1]:g} their ratio is {weights[0] * good / (weights[1] * bad):.2f}, outside of "
        f"[1, 4/3] where KTO keeps it; {name} from {math.ceil(least * 100) / 100:g} to "
        f"{math.floor(most * 100) / 100:g} (the other weight 1) or data.balance brings it there"
    )


def _by_label(records: Sequence[Record]) -> tuple[list[int], list[int]]:
    """Numbers of the desirable and of the undesirable records."""
    good = [i for i, r in enumerate(records) if r.extras["label"] > 0]
    return good, sorted(set(range(len(records))) - set(good))


def _claim(record: Record, *, as_is: bool) -> str:
    """Key of the preference that a record states, or of the opposite one."""
    prompt, responses = prompt_key(record), list(record.responses)
    if "label" in record.extras:
        label = bool(record.extras["label"] > 0)
        return _key(prompt, responses, label == as_is)
    return _key(prompt, responses if as_is else responses[::-1])


def _key(*content: object) -> str:
    return json.dumps(content, sort_keys=True)


def _length(response: object) -> int:
    """Characters of a text, of messages, or of steps."""
    if isinstance(response, str):
        return len(response)
    assert isinstance(response, list)
    return sum(len(m["content"] if isinstance(m, dict) else m) for m in response)
