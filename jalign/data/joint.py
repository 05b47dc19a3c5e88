"""Both responses of a pair in one prompt; the answer is the letter of the better one.

Dong et al. 2024 (RLHFlow), the pairwise preference model. https://arxiv.org/abs/2405.07863. The
text is plain, also where the data are conversations: their context is written as lines `role:
content`.

A joint record has two responses like a pair, the correct letter first, so algorithms for pairs can
read it. Each is a single token without an EOS. Its prompt is never cut,
as that would hide a candidate: a record over the prompt's limit is dropped, and counted.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from jalign.data.records import Message, Record

LETTERS = ("A", "B")
ASKED = "\n\nThe better response is"


def joint(record: Record) -> list[Record]:
    """A pair as one joint record; none if a response is empty or both are equal.

    The SHA-256 of prompt and responses decides the position of the chosen response: the same in
    every run, and A as often as B.
    """
    content = json.dumps([record.prompt, record.responses], sort_keys=True)
    # No random generator: it would depend on the order in which rows are read.
    side = hashlib.sha256(content.encode()).digest()[0] % 2
    return both_orders(record)[side : side + 1]


def both_orders(record: Record) -> list[Record]:
    """The two joint records of a pair: its chosen response as A, then as B; none if a response is
    empty or both are equal.

    For an evaluation that must not depend on the order: P(chosen is better) is the mean of P(A) of
    the first and P(B) of the second.
    """
    context, first, second = (_text(x) for x in (record.prompt, *record.responses))
    if not first or not second or first == second:
        return []
    return [
        record._replace(
            prompt=f"[CONTEXT] {context} [RESPONSE A] {a} [RESPONSE B] {b}{ASKED}",
            responses=list(letters),
            joint=True,
        )
        for a, b, letters in ((first, second, LETTERS), (second, first, LETTERS[::-1]))
    ]


def _text(value: str | list[Message]) -> str:
    """Plain text unchanged; a single answer as its text, other messages as lines."""
    if isinstance(value, str):
        return value.strip()
    if len(value) == 1 and value[0]["role"] == "assistant" and not value[0].get("tool_calls"):
        return value[0]["content"].strip()
    return "\n".join(_line(m) for m in value)


def _line(message: Message) -> str:
    calls: Any = message.get("tool_calls")
    words = [message["content"].strip(), json.dumps(calls, sort_keys=True) if calls else ""]
    return f"{message['role']}: {' '.join(filter(None, words))}"
