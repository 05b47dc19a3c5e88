"""A judge on a server with OpenAI's chat completions API, hosted or self-hosted.

Needs the `openai` package (`pip install jalign[judge]`).
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jalign.rewards.cache import DiskCache
from jalign.rewards.chat_client import Answer, ChatClient, Counts
from jalign.rewards.options import TokenLogprobs, from_steps

LOG = logging.getLogger(__name__)


class ServerJudge:
    """`jalign.rewards.judge.Judge` by HTTP. Every prompt is one user turn.

    A prompt without an answer after all attempts, or refused by the server, is None and counted.
    `option_logps` reads one answer at temperature 0 with the alternatives to each of its tokens;
    an option that is not listed gets its upper bound (`options.from_steps`).

    Args:
      base_url: of the server, up to where chat/completions would follow.
      model: as the server calls it.
      system: a system message before every prompt; empty: none.
      concurrency: most requests at once.
      cache: folder of a `DiskCache`, by server and full request; None: no cache. Equal prompts of
        one call at a temperature above 0 are samples 0, 1, ... of it, and cached apart.
      seed: sample k is asked for with seed + k; None sends none.
      top_logprobs: alternatives to request; most servers return 20 at most.
      token_limit: name of the limit in a request (some servers: max_completion_tokens).
      prompt_price, completion_price: per million tokens, in any currency.
      extra: further fields of every request.
      connection: options of `ChatClient`: key_env, timeout_s, retries.

    Raises:
      ImportError: without the openai package.
      ValueError: a number out of range.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        system: str = "",
        concurrency: int = 16,
        cache: str | os.PathLike | None = None,
        seed: int | None = None,
        top_logprobs: int = 20,
        token_limit: str = "max_tokens",
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
        extra: Mapping[str, Any] | None = None,
        **connection: Any,
    ):
        for name, value in (("concurrency", concurrency), ("top_logprobs", top_logprobs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.model, self.system, self.concurrency, self.seed = model, system, concurrency, seed
        self.top_logprobs, self.token_limit = top_logprobs, token_limit
        self.prices, self.extra = (prompt_price, completion_price), dict(extra or {})
        self._cache, self._cache_failed = None if cache is None else DiskCache(cache), False
        self._lock = threading.Lock()
        self._client = ChatClient(base_url, **connection)

    @property
    def counts(self) -> Counts:
        """Totals so far."""
        return self._client.counts

    def complete(
        self, prompts: Sequence[str], *, max_tokens: int, temperature: float
    ) -> list[str | None]:
        """As `Judge.complete`.

        Raises:
          ValueError: the server refuses this key, model or address.
        """
        answers = self._ask(prompts, {self.token_limit: max_tokens, "temperature": temperature})
        return [None if answer is None else answer.text for answer in answers]

    def option_logps(
        self, prompts: Sequence[str], options: Sequence[str]
    ) -> list[list[float] | None]:
        """As `Judge.option_logps`; also None, and counted, if the server returns no log-probs, or
        the options have too little probability (`options.LEAST`): ask for points if the judge
        thinks, or greets, before it answers. Errors as in `complete`.
        """
        most = max(len(option.encode()) for option in options)  # no token is less than a byte
        body = {self.token_limit: most, "temperature": 0.0, "logprobs": True}
        out: list[list[float] | None] = []
        for answer in self._ask(prompts, body | {"top_logprobs": self.top_logprobs}):
            logps = None if answer is None else from_steps(answer.steps, options)
            if answer is not None and logps is None:
                missing = "too little probability" if answer.steps else "no log-probabilities"
                error = f"{missing} with {answer.text!r:.80} for {list(options)}"
                self._client.count(failed=1, error=error)
            out.append(logps)
        return out

    def metrics(self) -> dict[str, float]:
        """`judge/requests`, `judge/cached`, `judge/failed` and tokens, all so far, and
        `judge/cost` if a price is set.
        """
        c = self.counts
        cost = (c.prompt_tokens * self.prices[0] + c.completion_tokens * self.prices[1]) / 1e6
        names = ("requests", "cached", "failed", "prompt_tokens", "completion_tokens")
        priced = {"judge/cost": cost} if any(self.prices) else {}
        return {f"judge/{name}": float(getattr(c, name)) for name in names} | priced

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> ServerJudge:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, prompts: Sequence[str], body: Mapping[str, Any]) -> list[Answer | None]:
        """The answer to each prompt; equal requests are sent once."""
        seen: Counter[str] = Counter()
        keys: list[tuple[str, int]] = []
        for prompt in prompts:
            keys.append((prompt, seen[prompt]))
            seen[prompt] += bool(body["temperature"])  # at 0 every sample is the first
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = {key: pool.submit(self._answer, key, body) for key in dict.fromkeys(keys)}
            try:
                return [futures[key].result() for key in keys]
            finally:
                for future in futures.values():  # after an error no further request is sent
                    future.cancel()

    def _answer(self, key: tuple[str, int], body: Mapping[str, Any]) -> Answer | None:
        """An answer to a prompt, the sample of that number, from disk or from the server."""
        prompt, number = key
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*messages, {"role": "user", "content": prompt}]
        request = {"model": self.model, "messages": messages, **body, **self.extra}
        if self.seed is not None:
            # One seed for all samples would give the same answer every time.
            request["seed"] = self.seed + number
        question = {"server": self._client.base_url, "request": request, "sample": number}
        if self._cache and (entry := self._cache.get(question)):
            self._client.count(cached=1)
            return Answer(entry["text"], [TokenLogprobs(*step) for step in entry["steps"]])
        answer = self._client.send(request)
        # Not kept without the log-probs asked for: after a server's update they may come.
        if answer and (answer.steps or not body.get("logprobs")):
            self._keep(question, answer)
        return answer

    def _keep(self, question: Mapping[str, Any], answer: Answer) -> None:
        """Store an answer in the cache; a failure (full disk) does not lose the answer."""
        if self._cache is None or self._cache_failed:
            return
        try:
            self._cache.put(question, answer._asdict())
        except OSError as error:
            with self._lock:  # threads may fail at once; one of them says so
                first, self._cache_failed = not self._cache_failed, True
            if first:
                LOG.warning("answers of %s are kept no longer, they go on: %s", self.model, error)
