"""Texts of the same prompts before and after training, or after several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jalign.report.diff import word_diff
from jalign.report.record import Row, RunRecord
from jalign.report.scale import compact

MOST = 24
"""Prompts that are shown."""

Texts = dict[str, object]
"""A prompt, and `sides`: the head and the text of each."""

_LONGEST = 4000  # characters of a text


def before_and_after(run: RunRecord) -> tuple[list[Texts], str]:
    """(prompts with two sides each, a sentence about them)."""
    rows = [row for row in run.of("generations") if row.get("rows")]
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        before = {_key(row): str(row.get("continuation", "")) for row in first["rows"]}
        pairs = [
            _pair(
                str(row.get("prompt", "")),
                (f"step {first['step']}", before.get(_key(row), "")),
                (f"step {last['step']}", str(row.get("continuation", ""))),
            )
            for row in last["rows"]
        ]
        return pairs[:MOST], _note(len(pairs), "continuations of held-out prompts")
    pairs = _from_rollouts(run)
    return pairs[:MOST], _note(len(pairs), "responses to prompts of two rollouts")


def after_each(runs: Sequence[tuple[str, RunRecord]]) -> list[Texts]:
    """Prompts that all runs were asked, with the last text of each; words of the second that the
    first lacks are marked.

    Args:
      runs: (label, run).
    """
    texts = []
    for _, run in runs:
        # runs of rewards alone have no texts
        rows = run.of("generations")
        last = rows[-1].get("rows", []) if rows else []
        texts.append({_key(row): str(row.get("continuation", "")) for row in last})
    prompts = [p for p in texts[0] if all(p in other for other in texts)] if texts else []
    result = []
    for prompt in prompts[:MOST]:
        column = [known[prompt].strip()[:_LONGEST] for known in texts]
        shown: list[Any] = list(column)
        if len(column) == 2:
            shown = list(word_diff(*column))
        heads = [label for label, _ in runs]
        sides = [{"head": h, "text": t} for h, t in zip(heads, shown, strict=True)]
        result.append({"prompt": prompt, "sides": sides})
    return result


def _from_rollouts(run: RunRecord) -> list[Texts]:
    """The first response to a prompt and the last one, of prompts that came twice."""
    by_prompt: dict[str, list[Row]] = {}
    for row in run.responses:
        by_prompt.setdefault(str(row["prompt"]), []).append(row)
    last = max((row["rollout"] for row in run.responses), default=0)
    pairs = []
    for prompt, rows in by_prompt.items():
        first, newest = rows[0], rows[-1]
        # between neighbors in time there is little to see
        if first["rollout"] <= last / 4 and newest["rollout"] > last / 2:
            pairs.append(_pair(prompt, _response(first), _response(newest)))
    return pairs


def _response(row: Row) -> tuple[str, str]:
    score = f", reward {compact(row['score'])}" if row.get("score") is not None else ""
    return f"rollout {row['rollout']}{score}", str(row["response"])


def _pair(prompt: str, before: tuple[str, str], after: tuple[str, str]) -> Texts:
    texts = word_diff(before[1].strip()[:_LONGEST], after[1].strip()[:_LONGEST])
    heads = (f"before: {before[0]}", f"after: {after[0]}")
    sides = [{"head": head, "text": text} for head, text in zip(heads, texts, strict=True)]
    return {"prompt": prompt, "sides": sides}


def _key(row: Row) -> str:
    return str(row.get("prompt", ""))


def _note(count: int, what: str) -> str:
    return f"{min(count, MOST)} of {count} {what}." if count > MOST else f"{count} {what}."
