"""Requests to a server that speaks OpenAI's chat completions, with patience and a bill.

Needs the `openai` package (`pip install jalign[judge]`).
"""

from __future__ import annotations

import email.utils
import importlib
import math
import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jalign.rewards.options import Step

REFUSED = (401, 403, 404)  # of every request alike: the key, the rights, the model's name
AGAIN = (408, 409, 425, 429)  # and all from 500 up


@dataclass
class Counts:
    """What was asked so far.

    Attributes:
      requests: sent, repeated ones too.
      cached: answers that needed no request.
      failed: questions that got no answer in the end.
      prompt_tokens, completion_tokens: as the server reports them, for what was sent.
      error, last_error: the first and the last failure, in words.
    """

    requests: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    last_error: str = ""


class Answer(NamedTuple):
    """Of a server.

    Attributes:
      text: of the message.
      steps: its tokens with alternatives; empty where the server tells none.
    """

    text: str
    steps: list[Step]


class _Failure(NamedTuple):
    error: str
    asked_s: float | None  # wait at least so long before asking again; None: do not


class Refused(ValueError):
    """A server refuses this key, model or address, whatever it is asked."""


class ChatClient:
    """Sends requests, and tries again what can pass.

    That is: no connection, no answer in time, the statuses in `AGAIN` and from 500 up, and an
    answer that is not what the protocol says. Before further attempt k = 0, 1, ... it waits
    wait_s * 2^k times a random factor in [0.5, 1.5], after the time that Retry-After asks for, and
    at most max_wait_s in all. Safe to use from several threads.

    Args:
      base_url: of the server, up to where chat/completions would follow.
      key_env: the environment variable with the API key, which is nowhere else. Unset: no key.
      timeout_s: seconds until an attempt is given up.
      retries: further attempts after the first.
      wait_s, max_wait_s: seconds, see above.

    Raises:
      ImportError: without the openai package.
      ValueError: a number out of range.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key_env: str = "JALIGN_JUDGE_API_KEY",
        timeout_s: float = 60.0,
        retries: int = 5,
        wait_s: float = 1.0,
        max_wait_s: float = 60.0,
    ):
        if not (timeout_s > 0 and retries >= 0 and 0 <= wait_s <= max_wait_s):
            raise ValueError(
                "timeout_s must be > 0, retries >= 0 and 0 <= wait_s <= max_wait_s, got "
                f"{timeout_s}, {retries}, {wait_s} and {max_wait_s}"
            )
        self._openai = _openai()
        self.base_url, self.key_env, self.retries = base_url, key_env, retries
        self.wait_s, self.max_wait_s = wait_s, max_wait_s
        self.counts, self._lock = Counts(), threading.Lock()
        self._client = self._openai.OpenAI(
            base_url=base_url,
            api_key=os.environ.get(key_env) or "none",
            timeout=timeout_s,
            max_retries=0,  # they are made, and counted, here
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, request: Mapping[str, Any]) -> Answer | None:
        """The answer to a request; None, counted, where there is none in the end.

        Args:
          request: the fields of a chat completion.

        Raises:
          ValueError: the server refuses the key, the model or the address (`REFUSED`), as it would
            those of any other request.
        """
        found = self._attempt(request)
        for k in range(self.retries):
            if isinstance(found, Answer) or found.asked_s is None:
                break
            chance = self.wait_s * 2**k * random.uniform(0.5, 1.5)
            time.sleep(min(found.asked_s + chance, self.max_wait_s))
            found = self._attempt(request)
        if isinstance(found, Answer):
            return found
        self.count(failed=1, error=found.error)
        return None

    def count(self, error: str = "", **more: int) -> None:
        """Add to the counts; of errors the first and the last are kept."""
        with self._lock:
            for name, n in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + n)
            self.counts.error = self.counts.error or error
            self.counts.last_error = error or self.counts.last_error

    def _attempt(self, request: Mapping[str, Any]) -> Answer | _Failure:
        self.count(requests=1)
        rest = {name: x for name, x in request.items() if name not in ("model", "messages")}
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=request["model"], messages=request["messages"], extra_body=rest
            )
        except self._openai.APIStatusError as error:
            return self._refused(error, request["model"])
        except self._openai.APIConnectionError as error:  # also: no answer in time
            return _Failure(f"{type(error).__name__}: {error}", 0.0)
        except (ValueError, TypeError) as error:  # such as half a surrogate pair in a text
            return _Failure(f"it cannot be sent: {type(error).__name__}: {error}", None)
        try:
            content = raw.http_response.json()
            answer = _read(content, bool(request.get("logprobs")))
            usage = content.get("usage")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            return _Failure(f"not a chat completion: {type(error).__name__}: {error}", 0.0)
        names = ("prompt_tokens", "completion_tokens")
        self.count("", **{name: _tokens(usage, name) for name in names})
        return answer

    def _refused(self, error: Any, model: str) -> _Failure:
        status = error.status_code
        if status in REFUSED:
            key = f"the key in ${self.key_env}" if os.environ.get(self.key_env) else "no key"
            said = "" if status == 401 else f": {error.message:.200}"  # which may repeat the key
            raise Refused(
                f"{self.base_url} refuses model {model!r} with {key} (status {status}){said}"
            ) from None
        again = status in AGAIN or status >= 500
        wait = _retry_after(error.response.headers.get("retry-after")) if again else None
        return _Failure(f"status {status}: {error.message:.200}", wait)


def _openai() -> Any:
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise ImportError(
            "a judge behind a server needs the openai package: pip install jalign[judge]"
        ) from error


def _read(content: Any, logprobs: bool) -> Answer:
    """Text of a chat completion, and steps where they were asked for."""
    choice = content["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise ValueError(f"a message without text: {str(choice)[:200]}")
    if not logprobs:
        return Answer(text, [])
    tokens = (choice.get("logprobs") or {}).get("content") or []
    return Answer(text, [_step(t) for t in tokens])


def _step(token: Any) -> Step:
    listed = token.get("top_logprobs") or []
    others = {other["token"]: _logp(other["logprob"]) for other in listed}
    return Step(token["token"], _logp(token["logprob"]), others)


def _logp(said: Any) -> float:
    logp = float(said)
    if not logp < 0.01:  # some round 0 up
        raise ValueError(f"a log-probability of {logp}")
    return logp


def _tokens(usage: Any, name: str) -> int:
    """How many a server says it counted; 0 where it says nothing, or no number."""
    said = usage.get(name) if isinstance(usage, Mapping) else None
    return int(said) if isinstance(said, int | float) and math.isfinite(said) else 0


def _retry_after(said: str | None) -> float:
    """Seconds that a server asks to wait, as a number or a date; 0 where it does not."""
    if said is None:
        return 0.0
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
