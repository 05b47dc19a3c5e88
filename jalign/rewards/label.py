"""Label responses with a judge: preference pairs and ratings.

Lee et al. 2023, https://arxiv.org/abs/2309.00267, section 2.1 (soft labels of pairs); Yuan et al.
2024, https://arxiv.org/abs/2401.10020, section 2.3 (ratings, of which the best and the worst make a
pair). Unanswered questions are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from jalign.data.journal import Made
from jalign.data.kinds import column
from jalign.data.layouts import canonical
from jalign.data.parsing import ERRORS
from jalign.data.records import Message, Record, parse
from jalign.data.rows import Row, SourceRow
from jalign.rewards.preference import PreferenceFn
from jalign.rewards.rating import Ratings

Rate = Callable[[Sequence[str], Sequence[str]], Ratings]
"""`(prompts, responses) -> points of each`."""


def candidates(row: Row) -> Record:
    """Prompt and responses of a row: those in `responses`, as `jalign sample` writes them, both of
    a pair, or the one of a supervised row.

    Raises:
      ValueError: none of these.
    """
    try:
        return _candidates(canonical(row))
    except ERRORS as error:
        # Rows read from a file know their line, which errors should name.
        if isinstance(row, SourceRow):
            raise ValueError(f"{row.place}: {error}") from error
        raise


def _candidates(row: Row) -> Record:
    if "better" in row:  # the verdict is irrelevant here
        return parse({**row, "better": 0}, "pairs", numeric=())._replace(extras={})
    own = column("responses", row)
    if own and column("prompt", row):
        rated = {**row, "ratings": [0.0] * len(row[own])}  # placeholders
        return parse(rated, "lists", numeric=())._replace(extras={})
    kind = "pairs" if {"chosen", "rejected"} <= set(row) else "supervised"
    return parse(row, kind, numeric=())._replace(extras={})


def text_of(value: str | Sequence[Message]) -> str:
    """Text for the judge: plain text unchanged, messages with their roles; a single message without
    one.
    """
    if isinstance(value, str):
        return value
    if len(value) == 1:
        return str(value[0]["content"])
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in value)


def preferences(prefer: PreferenceFn, records: Sequence[Record]) -> list[Made]:
    """Pairs with `chosen_prob`, the probability in [0.5, 1] that the chosen response is the better
    one; with more than two responses all pairs are compared.
    """
    results = [Made([], []) for _ in records]
    questions: list[tuple[int, int, int]] = []
    for number, record in enumerate(records):
        texts = [text_of(response).strip() for response in record.responses]
        if len(texts) < 2:
            results[number].dropped.append("there are not two responses")
        for i, j in combinations(range(len(texts)), 2):
            if not (texts[i] and texts[j]):
                results[number].dropped.append("a response is empty")
            elif texts[i] == texts[j]:
                results[number].dropped.append("both responses are the same")
            else:
                questions.append((number, i, j))
    probs = prefer(
        [text_of(records[n].prompt) for n, _, _ in questions],
        [text_of(records[n].responses[i]) for n, i, _ in questions],
        [text_of(records[n].responses[j]) for n, _, j in questions],
    )
    for (number, i, j), p in zip(questions, probs, strict=True):
        if p is None:
            results[number].dropped.append("the judge gave no answer")
        elif abs(p - 0.5) < 1e-9:  # such as from a judge that always chooses the same slot
            results[number].dropped.append("the judge prefers neither response")
        else:
            first, second = (records[number].responses[x] for x in ((i, j) if p > 0.5 else (j, i)))
            row = {"prompt": records[number].prompt, "chosen": first, "rejected": second}
            results[number].rows.append(row | {"chosen_prob": max(p, 1 - p)})
    return results


def ratings(rate: Rate, records: Sequence[Record]) -> list[Made]:
    """Lists of responses with ratings, which can be converted to pairs of the best and the worst. A
    list is dropped if fewer than two responses are rated, or all ratings are equal.
    """
    results = [Made([], []) for _ in records]
    questions: list[tuple[int, Any]] = []
    for number, record in enumerate(records):
        seen: set[str] = set()
        for response in record.responses:
            text = text_of(response).strip()
            if not text or text in seen:
                why = "a response is there twice" if text else "a response is empty"
                results[number].dropped.append(why)
                continue
            seen.add(text)
            questions.append((number, response))
    rated_by_judge = rate(
        [text_of(records[n].prompt) for n, _ in questions],
        [text_of(response) for _, response in questions],
    )
    if results:
        # Judgments are counted over all responses: the first item carries them to the report.
        results[0].dropped.extend(["a judgment names no points"] * rated_by_judge.unparsable)
    rated: list[list[tuple[Any, float]]] = [[] for _ in records]
    for (number, response), score in zip(questions, rated_by_judge.scores, strict=True):
        if score is None:
            results[number].dropped.append("the judge did not rate a response")
        else:
            rated[number].append((response, score))
    for record, one, mine in zip(records, results, rated, strict=True):
        if len({score for _, score in mine}) < 2:
            why = "all responses are rated alike" if len(mine) > 1 else "no two responses are rated"
            one.dropped.append(why)
            continue
        responses, scores = map(list, zip(*mine, strict=True))
        one.rows.append({"prompt": record.prompt, "responses": responses, "ratings": scores})
    return results
