"""Responses of the engine -> the JSON of OpenAI's completions and chat completions."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any
from uuid import uuid4

from jalign.serve.encoding import Encoding
from jalign.serve.schemas import Call
from jalign.serve.types import Completion, Piece, Token

Json = dict[str, Any]
LEAST = -9999.0  # what JSON has in place of -inf, as OpenAI's API


class Answer:
    """The answer to a call, in one object or in chunks of a stream."""

    def __init__(self, call: Call):
        self._call = call
        self._head: Json = {
            "id": f"{'chatcmpl' if call.chat else 'cmpl'}-{uuid4().hex}",
            "created": int(time.time()),
            "model": call.model,
        }
        self._offsets = [0] * len(call.requests)
        self._tokens = 0

    def complete(self, completions: Sequence[Completion]) -> Json:
        """The answer as one object."""
        call = self._call
        choices = []
        for i, done in enumerate(completions):
            choice = self._choice(i, Piece(done.text, tuple(done.tokens), done.prompt, done.finish))
            text = choice.pop("text")
            if call.chat:
                choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            else:
                choice["text"] = self._echoed(i) + text
            choices.append(choice)
        kind = "chat.completion" if call.chat else "text_completion"
        return (
            self._head
            | {"object": kind, "choices": choices, "usage": self.usage()}
            | (
                {"prompt_token_ids": list(call.requests[0].prompt)}
                if call.chat and call.return_token_ids
                else {}
            )
        )

    def opening(self) -> list[Json]:
        """Chunks before the first token of a stream."""
        if self._call.chat:
            delta = {"role": "assistant", "content": ""}
            starts = [{"delta": delta, "logprobs": None} for _ in self._call.requests]
        elif self._call.echo:
            starts = [
                {"text": self._echoed(i), "logprobs": None} for i in range(len(self._call.requests))
            ]
        else:
            starts = []
        return [
            self._chunk({"index": i, "finish_reason": None} | start)
            for i, start in enumerate(starts)
        ]

    def chunk(self, i: int, piece: Piece) -> Json | None:
        """What is new of response i; None if it is nothing."""
        if not (piece.text or piece.tokens or piece.prompt or piece.finish):
            return None
        choice = self._choice(i, piece)
        if self._call.chat:
            text = choice.pop("text")
            choice["delta"] = {"content": text} if text else {}
        return self._chunk(choice)

    def usage(self) -> Json:
        """Tokens read and sampled so far."""
        prompts = sum(len(q.prompt) for q in self._call.requests[:: self._call.n])
        return {
            "prompt_tokens": prompts,
            "completion_tokens": self._tokens,
            "total_tokens": prompts + self._tokens,
        }

    def usage_chunk(self) -> Json:
        """The last chunk of a stream with `include_usage`."""
        return self._chunk(None) | {"usage": self.usage()}

    def _chunk(self, choice: Json | None) -> Json:
        kind = "chat.completion.chunk" if self._call.chat else "text_completion"
        return self._head | {"object": kind, "choices": [] if choice is None else [choice]}

    def _choice(self, i: int, piece: Piece) -> Json:
        call = self._call
        self._tokens += len(piece.tokens)
        choice: Json = {"index": i, "text": piece.text, "logprobs": None}
        choice["finish_reason"] = piece.finish
        if call.logprobs is not None and call.chat:
            content = [_chat_token(call.encoding, token) for token in piece.tokens]
            choice["logprobs"] = {"content": content, "refusal": None}
        elif call.logprobs is not None:
            tokens = (*piece.prompt, *piece.tokens)
            choice["logprobs"] = _logprobs(call.encoding, tokens, self._offsets[i], call.logprobs)
            self._offsets[i] += sum(call.encoding.length(token.id) for token in tokens)
        if call.return_token_ids:
            choice["token_ids"] = [token.id for token in piece.tokens]
            if not call.chat:
                choice["prompt_token_ids"] = list(call.requests[i].prompt)
        return choice

    def _echoed(self, i: int) -> str:
        """The prompt, where it is part of the text."""
        return self._call.encoding.decode(self._call.requests[i].prompt) if self._call.echo else ""


def _logprobs(encoding: Encoding, tokens: Sequence[Token], offset: int, top: int) -> Json:
    """Log-probs in the form of /v1/completions."""
    texts = [encoding.token_text(token.id) for token in tokens]
    offsets = list(accumulate((encoding.length(t.id) for t in tokens), initial=offset))[:-1]
    return {
        "tokens": texts,
        "token_logprobs": [None if t.logp is None else _finite(t.logp) for t in tokens],
        "top_logprobs": [_top(encoding, token) for token in tokens] if top else None,
        "text_offset": offsets,
    }


def _top(encoding: Encoding, token: Token) -> dict[str, float] | None:
    """Text -> log-prob of the alternatives and of the token itself; None for a first token. Of
    tokens with one text, the most probable counts.
    """
    if token.logp is None:
        return None
    out: dict[str, float] = {}
    for i, logp in (*token.top, (token.id, token.logp)):
        text = encoding.token_text(i)
        out[text] = max(_finite(logp), out.get(text, LEAST))
    return out


def _chat_token(encoding: Encoding, token: Token) -> Json:
    """Log-probs of a token in the form of /v1/chat/completions."""

    def entry(i: int, logp: float) -> Json:
        text = encoding.token_text(i)
        # A part of a character has no text of its own, so its bytes are not known from it.
        known = None if "\ufffd" in text else list(text.encode())
        return {"token": text, "logprob": _finite(logp), "bytes": known}

    top = [entry(i, logp) for i, logp in token.top]
    return entry(token.id, token.logp or 0.0) | {"top_logprobs": top}


def _finite(logp: float) -> float:
    return logp if math.isfinite(logp) else LEAST
