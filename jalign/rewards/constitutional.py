"""Constitutional AI: revise and compare responses by principles.

Bai et al. 2022, https://arxiv.org/abs/2212.08073: section 3.1, critiques and revisions (the
training data are the revised responses), and section 4.1, preferences of the feedback model.
Principles and wording are our own (`templates/principles.json`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jalign.core import did_you_mean
from jalign.rewards.judge import Judge, choose
from jalign.rewards.preference import BothOrders, PreferenceFn
from jalign.rewards.template import FOLDER, load

SLOTS = ((" (A)", "(A)"), (" (B)", "(B)"))
CLAMP = (0.4, 0.6)
"""The paper's clamp of probabilities after a chain of thought, which are otherwise near 0 or 1 and
badly calibrated."""


class Principle(NamedTuple):
    """A principle that responses should follow.

    Attributes:
      name: of it, unique.
      critique: request for the faults of a response.
      revision: request for a better response.
      comparison: question which of two responses is better.
    """

    name: str
    critique: str
    revision: str
    comparison: str


class Revision(NamedTuple):
    """One round: the principle, the critique by it, and the response that was then written."""

    principle: str
    critique: str
    response: str


def principles(path: str | Path | None = None) -> list[Principle]:
    """The principles of a JSON file, a list of objects with the fields of `Principle`; None reads
    the built-in ones.

    Raises:
      ValueError: no such file, another content, or two of one name.
    """
    file = FOLDER / "principles.json" if path is None else Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"no file of principles {file}")
    try:
        rows = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{file} must be a list of principles")
    for i, row in enumerate(rows):
        given = set(row) if isinstance(row, dict) else set()
        for name in sorted(given ^ set(Principle._fields)):
            what = "has the unknown field" if name in given else "lacks the field"
            near = did_you_mean(name, Principle._fields) if name in given else ""
            raise ValueError(f"{file}: principle {i} {what} {name!r}{near}")
        if not all(isinstance(text, str) and text.strip() for text in row.values()):
            raise ValueError(f"{file}: every field of principle {i} must be a text")
    parsed = [Principle(**row) for row in rows]
    # Rows name their principle; two of one name could not be told apart.
    if len({p.name for p in parsed}) < len(parsed):
        raise ValueError(f"{file}: two principles have one name")
    return parsed


def revise(
    judge: Judge,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    by: Sequence[Principle],
    rounds: int = 4,
    seed: int = 0,
    temperature: float = 1.0,
    max_tokens: int = 512,
) -> list[list[Revision]]:
    """Rounds of critique and revision, each by another principle, starting from the last revision.

    The paper trains on the revisions of all rounds, so all are returned. The principles of a
    response and their order depend on the seed and the texts alone.

    Args:
      judge: writes both; in the paper the model that wrote the responses.
      by: principles to draw from, without repetition while there are others.
      rounds: n, 4 in the paper.
      temperature, max_tokens: of critiques and revisions.

    Returns:
      The revisions of each response, in order; fewer than `rounds` where the judge
        returned nothing.
    """
    if rounds < 1 or not by:
        raise ValueError(f"rounds must be at least 1 and there must be principles, got {rounds}")
    say = partial(judge.complete, max_tokens=max_tokens, temperature=temperature)
    critique = load("critique", ("prompt", "response", "request"))
    revision = load("revise", ("prompt", "response", "critique", "request"))
    texts = list(zip(prompts, responses, strict=True))
    orders = [_rng(seed, *text).permutation(len(by)).tolist() for text in texts]
    out: list[list[Revision]] = [[] for _ in texts]
    active = list(range(len(texts)))
    for number in range(rounds):
        principle_of = {i: by[orders[i][number % len(by)]] for i in active}
        now = {i: {"prompt": texts[i][0], "response": _last(out[i], texts[i][1])} for i in active}
        requests = [critique.fill(**now[i], request=principle_of[i].critique) for i in active]
        critiques = _answered(active, say(requests))
        # Without a critique there is nothing to revise: no further request for this response.
        active = list(critiques)
        requests = [
            revision.fill(**now[i], critique=critiques[i], request=principle_of[i].revision)
            for i in active
        ]
        better = _answered(active, say(requests))
        active = list(better)
        for i in active:
            out[i].append(Revision(principle_of[i].name, critiques[i], better[i]))
    return out


def comparison(
    judge: Judge,
    *,
    by: Sequence[Principle],
    seed: int = 0,
    thoughts: str | Path | None = None,
    max_thought_tokens: int = 512,
) -> PreferenceFn:
    """P(first is better) by a principle drawn for the pair, in the order given.

    The softmax over the log-probabilities of (A) and (B). Both orders of a pair get the same
    principle, drawn by the seed and the texts.

    Args:
      thoughts: template that asks for thoughts first (chain of thought, `feedback_thoughts` ships);
        the probability is then kept in [0.4, 0.6].
      max_thought_tokens: most tokens of them.
    """
    if not by:
        raise ValueError("there must be principles")
    fields = ("prompt", "response_1", "response_2", "principle")
    # Templates are checked before the first request, which may cost money.
    feedback = load("feedback", (*fields, "thoughts"))
    asking = None if thoughts is None else load(thoughts, fields)

    def prefer(
        prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> list[float | None]:
        rows = []
        for prompt, a, b in zip(prompts, first, second, strict=True):
            drawn = by[int(_rng(seed, prompt, *sorted((a, b))).integers(len(by)))]
            pair = {"prompt": prompt, "response_1": a, "response_2": b}
            rows.append(pair | {"principle": drawn.comparison})
        if asking is None:
            requests: list[str | None] = [feedback.fill(**row, thoughts="") for row in rows]
        else:
            texts = [asking.fill(**row) for row in rows]
            thoughts_of = judge.complete(texts, max_tokens=max_thought_tokens, temperature=0.0)
            requests = [
                feedback.fill(**row, thoughts=f"{x.strip()}\n\n") if x and x.strip() else None
                for row, x in zip(rows, thoughts_of, strict=True)
            ]
        probs = [None if p is None else float(p[0]) for p in choose(judge, requests, SLOTS)]
        if asking is None:
            return probs
        return [None if p is None else min(max(p, CLAMP[0]), CLAMP[1]) for p in probs]

    return prefer


def feedback(judge: Judge, **options: object) -> BothOrders:
    """`comparison` in both orders, averaged (the paper asks in one).

    Args:
      options: of `comparison`.
    """
    return BothOrders(comparison(judge, **options))  # type: ignore[arg-type]


def _rng(seed: int, *texts: str) -> np.random.Generator:
    """Random generator that depends on a seed and texts, not on the batch."""
    text = json.dumps([seed, *texts]).encode()
    return np.random.default_rng(list(hashlib.sha256(text).digest()))


def _last(revisions: Sequence[Revision], response: str) -> str:
    return revisions[-1].response if revisions else response


def _answered(indices: Sequence[int], texts: Sequence[str | None]) -> dict[int, str]:
    """Index -> text of the answered ones."""
    pairs = zip(indices, texts, strict=True)
    return {i: text.strip() for i, text in pairs if text and text.strip()}
