"""OpenAI-compatible chat client with retries and token accounting.

Needs the `openai` package (`pip install jalign[judge]`), which retries transient errors.
"""

from __future__ import annotations

import importlib
import math
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jalign.rewards.options import TokenLogprobs

# Statuses that every further request would get as well: wrong key, no permission, unknown model.
FATAL_STATUS = (401, 403, 404)
MALFORMED_WAIT_S = 0.5  # before asking again for an answer that was not a chat completion


@dataclass
class Counts:
    """Totals over the life of a client.

    Attributes:
      requests: HTTP requests sent, retries included.
      cached: answers read from the cache.
      failed: prompts without an answer after all retries.
      prompt_tokens, completion_tokens: as reported by the server.
      error, last_error: messages of the first and the last failure.
    """

    requests: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    last_error: str = ""


class Answer(NamedTuple):
    """Answer of a server.

    Attributes:
      text: of the message.
      steps: its tokens with alternatives; empty if the server reports no log-probs.
    """

    text: str
    steps: list[TokenLogprobs]


class FatalStatus(ValueError):
    """The server rejects this key, model or address, whatever the prompt."""


class _Malformed(ValueError):
    """A response with a good status that is not a chat completion."""


class ChatClient:
    """Sends chat completion requests; safe to use from several threads.

    The openai package retries failed connections, timeouts and the statuses 408, 409, 429 and from
    500 up, with exponential backoff, jitter and Retry-After. A good status with an answer that is
    not a chat completion (proxies send those) it does not notice: that is retried here.

    Args:
      base_url: of the server, up to where chat/completions would follow.
      key_env: environment variable that holds the API key; no key is sent if it is unset.
      timeout_s: seconds per attempt.
      retries: attempts after the first.

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
    ):
        if not (timeout_s > 0 and retries >= 0):
            raise ValueError(
                f"timeout_s must be > 0 and retries >= 0, got {timeout_s} and {retries}"
            )
        self._openai = _openai()
        self.base_url, self.key_env, self.retries = base_url, key_env, retries
        self.counts, self._lock = Counts(), threading.Lock()
        # The package does not report its retries; a hook of the HTTP client sees every request. It
        # holds a weak reference: a cycle would keep the sockets open until a garbage collection.
        count = weakref.WeakMethod(self.count)
        hooks = {"request": [lambda request: (call := count()) and call(requests=1)]}
        http_client = self._openai.DefaultHttpxClient(event_hooks=hooks)
        # The package closes the HTTP client it makes itself, but not one that it is given.
        weakref.finalize(self, http_client.close)
        self._client = self._openai.OpenAI(
            base_url=base_url,
            # Never the package's own OPENAI_API_KEY: that key belongs to another server.
            api_key=os.environ.get(key_env) or "none",
            timeout=timeout_s,
            max_retries=retries,
            http_client=http_client,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, request: Mapping[str, object]) -> Answer | None:
        """The answer to a request; None, counted as failed, if there is none after all retries.

        Args:
          request: the fields of a chat completion.

        Raises:
          FatalStatus: the server rejects the key, the model or the address.
        """
        error = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(MALFORMED_WAIT_S)
            try:
                return self._attempt(request)
            except _Malformed as malformed:
                error = f"not a chat completion: {malformed}"
            except self._openai.APIStatusError as refused:
                # A wrong key must end the run, not count thousands of failures.
                if refused.status_code in FATAL_STATUS:
                    raise self._fatal(refused, request["model"]) from None
                error = f"status {refused.status_code}: {refused.message:.200}"
                break
            except self._openai.APIConnectionError as failed:  # APITimeoutError is one
                error = f"{type(failed).__name__}: {failed}"
                break
            except (ValueError, TypeError) as failed:  # such as half a surrogate pair in a text
                error = f"it cannot be sent: {type(failed).__name__}: {failed}"
                break
        self.count(failed=1, error=error)
        return None

    def count(self, error: str = "", **more: int) -> None:
        """Add to the totals; the first and the last error are kept."""
        # `ServerJudge` sends from many threads, and += is not atomic.
        with self._lock:
            for name, n in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + n)
            self.counts.error = self.counts.error or error
            self.counts.last_error = error or self.counts.last_error

    def _attempt(self, request: Mapping[str, Any]) -> Answer:
        extra = {name: x for name, x in request.items() if name not in ("model", "messages")}
        # The raw response: parsed by the package, fields of other servers and malformed answers
        # would be lost.
        raw = self._client.chat.completions.with_raw_response.create(
            model=request["model"], messages=request["messages"], extra_body=extra
        )
        try:
            content = raw.http_response.json()
            answer = _read(content, bool(request.get("logprobs")))
            usage = content.get("usage")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _Malformed(f"{type(error).__name__}: {error}") from None
        names = ("prompt_tokens", "completion_tokens")
        self.count("", **{name: _token_count(usage, name) for name in names})
        return answer

    def _fatal(self, error: Any, model: object) -> FatalStatus:
        key = f"the key in ${self.key_env}" if os.environ.get(self.key_env) else "no key"
        # Servers repeat a rejected key in the message of a 401: do not log it.
        detail = "" if error.status_code == 401 else f": {error.message:.200}"
        return FatalStatus(
            f"{self.base_url} refuses model {model!r} with {key} "
            f"(status {error.status_code}){detail}"
        )


def _openai() -> Any:
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise ImportError(
            "a judge behind a server needs the openai package: pip install jalign[judge]"
        ) from error


def _read(content: Any, logprobs: bool) -> Answer:
    """Text of a chat completion, and its tokens if log-probs were requested."""
    choice = content["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise ValueError(f"a message without text: {str(choice)[:200]}")
    if not logprobs:
        return Answer(text, [])
    tokens = (choice.get("logprobs") or {}).get("content") or []
    return Answer(text, [_step(t) for t in tokens])


def _step(token: Any) -> TokenLogprobs:
    listed = token.get("top_logprobs") or []
    others = {other["token"]: _logp(other["logprob"]) for other in listed}
    return TokenLogprobs(token["token"], _logp(token["logprob"]), others)


def _logp(value: Any) -> float:
    logp = float(value)
    if not logp < 0.01:  # some round 0 up
        raise ValueError(f"a log-probability of {logp}")
    return logp


def _token_count(usage: Any, name: str) -> int:
    """The server's count of tokens; 0 if it reports none, or not a number."""
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return int(count) if isinstance(count, int | float) and math.isfinite(count) else 0
