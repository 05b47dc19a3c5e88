"""What the engine is asked for and what it answers, free of HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from jalign.rollout.slots import TOP

Finish = Literal["stop", "length", "canceled"]


class QueueFullError(RuntimeError):
    """As many requests are waiting as may wait."""


class EngineClosedError(RuntimeError):
    """The engine takes no requests any more."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many requests of which length an engine takes.

    Attributes:
      rows: responses that each model samples at once.
      max_len: most tokens of a prompt with its response; None: the model's context, at most 2048.
      max_new_tokens: most tokens of a response; None: what the prompt leaves.
      queue: most requests that wait for a row.
      chunk: tokens between two checks for rows that have ended, and between two streamed pieces.
    """

    rows: int = 16
    max_len: int | None = None
    max_new_tokens: int | None = None
    queue: int = 1024
    chunk: int = 8

    def __post_init__(self):
        for name in ("rows", "max_new_tokens", "queue", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.max_len is not None and self.max_len < 2:
            raise ValueError(f"max_len must be at least 2, got {self.max_len}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One response to one prompt.

    Attributes:
      prompt: token ids, at least one.
      model: name of a model of the engine; None is its first.
      max_tokens: most tokens of the response; 0 only reads the prompt.
      temperature: >= 0; 0 takes the most probable token. top_k, top_p, min_p: as in
        `jalign.rollout.sampler.Settings`.
      seed: of the response; None draws one. What else runs changes nothing.
      index: of the response among several with one seed and prompt.
      stop: texts that end the response and are left out of its text.
      ignore_eos: go on after an EOS, up to `max_tokens`.
      top_logprobs: alternatives of each token, at most 20.
      prompt_logprobs: alternatives of each token of the prompt; None: no log-probs of the prompt.
    """

    prompt: tuple[int, ...]
    model: str | None = None
    max_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    index: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    top_logprobs: int = 0
    prompt_logprobs: int | None = None

    def __post_init__(self):
        if not self.prompt:
            raise ValueError("a prompt must have at least one token")
        if self.max_tokens < 0 or (self.max_tokens == 0 and self.prompt_logprobs is None):
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p must be in [0, 1), got {self.min_p}")
        if not all(self.stop):
            raise ValueError("an empty stop string would stop everywhere")
        for name in ("top_logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= TOP:
                raise ValueError(f"{name} must be in [0, {TOP}], got {value}")


class Token(NamedTuple):
    """A token with its log-prob under the model: in nats, without temperature and cuts.

    Attributes:
      logp: None for the first token of a prompt.
      top: (id, log-prob) of the most probable tokens, the most probable first.
    """

    id: int
    logp: float | None
    top: tuple[tuple[int, float], ...] = ()


class Piece(NamedTuple):
    """What is new of a response.

    Attributes:
      text: continues the text so far. It may lag behind the tokens: a character may take several
        tokens, and the beginning of a stop string is held back.
      tokens: of the response, an EOS and what completes a stop string included.
      prompt: tokens of the prompt, in the first piece and where they were asked for.
      finish: how the response ended; None before its last piece.
      error: why there is no response.
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()
    prompt: tuple[Token, ...] = ()
    finish: Finish | None = None
    error: Exception | None = None


@dataclass
class Completion:
    """A response, complete or so far; fields as in `Piece`."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    prompt: tuple[Token, ...] = ()
    finish: Finish | None = None

    def add(self, piece: Piece) -> None:
        """Append what is new."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.prompt = piece.prompt or self.prompt
        self.finish = piece.finish or self.finish


Listener = Callable[[int, Piece], None]
"""Called by the engine's thread with the index of a request and what is new of its response."""
