"""Bodies of OpenAI's completions and chat completions -> requests of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jalign.data.messages import messages_of, tools_of
from jalign.rollout.slots import TOP
from jalign.serve.encoding import Encoding
from jalign.serve.engine import Engine
from jalign.serve.errors import ApiError, bad_field
from jalign.serve.fields import Fields
from jalign.serve.types import Request

USUAL_TOKENS = 16  # of a completion without max_tokens, as in OpenAI's API
MOST_RESPONSES = 128  # n
MOST_STOPS = 16  # OpenAI allows 4; evaluations ask for more
NEUTRAL = {"presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "logit_bias": {}}
"""Fields that are supported at the value that changes nothing."""


@dataclass(frozen=True)
class Call:
    """A body, understood.

    Attributes:
      requests: those of one prompt one after the other, `n` for each.
      encoding: of the model.
      logprobs: alternatives of each token that are reported; None: no log-probs.
      chat: whether it asks for a chat completion.
      echo: the prompt is part of the text.
    """

    model: str
    requests: list[Request]
    encoding: Encoding
    n: int
    logprobs: int | None
    chat: bool
    echo: bool
    stream: bool
    include_usage: bool
    return_token_ids: bool


@dataclass(frozen=True)
class Served:
    """What bodies are read against: the engine, and the encoding of each of its models."""

    engine: Engine
    encodings: Mapping[str, Encoding]

    def model(self, name: str | None) -> str:
        """The name of a model, that of the first one if none is given.

        Raises:
          ApiError: 404, there is no such model.
        """
        if name is None and self.encodings:
            return next(iter(self.encodings))
        if name not in self.encodings:
            try:
                self.engine.batch_of(name)
            except ValueError as error:
                code = "model_not_found"
                raise ApiError(404, str(error), param="model", code=code) from None
        return str(name)


def completion_of(body: object, served: Served) -> Call:
    """Read the body of /v1/completions.

    Raises:
      ApiError: what is wrong with it.
    """
    fields = Fields(body)
    model = served.model(fields.text("model"))
    encoding = served.encodings[model]
    prompts = _prompts(fields.any("prompt"), encoding)
    logprobs = fields.integer("logprobs", None, 0, TOP)
    echo = fields.flag("echo")
    most = fields.integer("max_tokens", None, 0)
    if most == 0 and not echo:
        raise bad_field("max_tokens", "max_tokens may be 0 with echo only")
    options = _sampling(fields) | {"top_logprobs": logprobs or 0}
    if echo and (logprobs is not None or most == 0):
        options["prompt_logprobs"] = logprobs or 0
    fields.only("suffix", "")
    n = _responses(fields)
    fields.only("best_of", n, 1)
    rest = _presentation(fields)
    fields.finish()
    requests = []
    for ids in prompts:
        room = _room(served, model, ids, most)
        tokens = min(USUAL_TOKENS, room) if most is None else most
        requests += _repeated(served, model, n, options | {"prompt": ids, "max_tokens": tokens})
    return Call(model, requests, encoding, n, logprobs, False, echo, **rest)


def chat_of(body: object, served: Served) -> Call:
    """Read the body of /v1/chat/completions.

    Raises:
      ApiError: what is wrong with it.
    """
    fields = Fields(body)
    model = served.model(fields.text("model"))
    encoding = served.encodings[model]
    ids = chat_ids(fields, encoding)
    wanted = fields.flag("logprobs")
    top = fields.integer("top_logprobs", None, 0, TOP)
    if top is not None and not wanted:
        raise bad_field("top_logprobs", "top_logprobs needs logprobs: true")
    # The newer name first: clients send both for servers that know one of them.
    older = fields.integer("max_tokens", None, 1)
    most = fields.integer("max_completion_tokens", older, 1)
    options = _sampling(fields) | {"top_logprobs": top or 0}
    fields.only("response_format", {"type": "text"})
    fields.only("modalities", ["text"])
    n = _responses(fields)
    rest = _presentation(fields)
    fields.finish()
    room = _room(served, model, ids, most)
    options |= {"prompt": ids, "max_tokens": room if most is None else most}
    requests = _repeated(served, model, n, options)
    return Call(model, requests, encoding, n, (top or 0) if wanted else None, True, False, **rest)


def chat_ids(fields: Fields, encoding: Encoding) -> tuple[int, ...]:
    """Token ids of the fields `messages` and `tools`."""
    messages, tools = fields.any("messages"), fields.any("tools")
    choice = fields.any("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise bad_field("tool_choice", f"tool_choice may be auto or none, got {choice!r:.80}")
    fields.only("parallel_tool_calls", True, False)
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "messages must be a list of at least one message")
    try:
        given = None if choice == "none" else tools_of(tools)
        return encoding.chat(messages_of(messages), given)
    except ValueError as error:
        raise bad_field("messages", str(error)) from error


def _prompts(value: Any, encoding: Encoding) -> list[tuple[int, ...]]:
    """Token ids of a text, of token ids, or of a list of either."""
    if value is None:
        raise bad_field("prompt", "prompt is missing")
    if isinstance(value, str) or (_is_list(value) and value and isinstance(value[0], int)):
        value = [value]
    if not _is_list(value) or not value:
        raise bad_field("prompt", f"prompt must be a text or token ids, got {value!r:.80}")
    prompts = [encoding.text(x) if isinstance(x, str) else _ids(x) for x in value]
    if not all(prompts):
        raise bad_field("prompt", "a prompt must have at least one token")
    return prompts


def _ids(value: Any) -> tuple[int, ...]:
    if not _is_list(value) or not all(isinstance(x, int) and x >= 0 for x in value):
        raise bad_field("prompt", f"a prompt must be a text or token ids, got {value!r:.80}")
    return tuple(value)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _sampling(fields: Fields) -> dict[str, Any]:
    """Fields of `Request` that both endpoints share."""
    for name, neutral in NEUTRAL.items():
        fields.only(name, neutral)
    top_k = fields.integer("top_k", None, -1)
    return {
        "temperature": fields.number("temperature", 1.0, 0.0, 100.0),
        "top_p": fields.number("top_p", 1.0, 1e-6, 1.0),
        "min_p": fields.number("min_p", 0.0, 0.0, 1 - 1e-6),
        "top_k": None if top_k in (None, -1, 0) else top_k,  # -1 and 0 are other servers' all
        "seed": fields.integer("seed", None, None),
        "stop": fields.texts("stop", MOST_STOPS),
        "ignore_eos": fields.flag("ignore_eos"),
    }


def _responses(fields: Fields) -> int:
    return fields.integer("n", 1, 1, MOST_RESPONSES) or 1


def _presentation(fields: Fields) -> dict[str, bool]:
    """How the answer is sent."""
    options = fields.any("stream_options", {})
    if not isinstance(options, Mapping):
        raise bad_field("stream_options", "stream_options must be an object")
    usage = Fields(options)
    return {
        "stream": fields.flag("stream"),
        "include_usage": usage.flag("include_usage"),
        "return_token_ids": fields.flag("return_token_ids"),
    }


def _room(served: Served, model: str, ids: Sequence[int], most: int | None) -> int:
    """Tokens that a response to this prompt may have.

    Raises:
      ApiError: the prompt leaves none, or fewer than `most`.
    """
    batch = served.engine.batch_of(model)
    room, longest = batch.max_len - len(ids), served.engine.limits.max_new_tokens
    if room < (1 if most is None else most):
        raise ApiError(
            400,
            f"this model's maximum context length is {batch.max_len} tokens; the prompt has "
            f"{len(ids)}" + (f", and max_tokens is {most}" if most else ""),
            param="prompt",
            code="context_length_exceeded",
        )
    if longest is not None and most is not None and most > longest:
        raise bad_field("max_tokens", f"max_tokens is at most {longest} here, got {most}")
    return room if longest is None else min(room, longest)


def _repeated(served: Served, model: str, n: int, options: dict[str, Any]) -> list[Request]:
    """n requests that differ by their index."""
    try:
        requests = [Request(model=model, index=i, **options) for i in range(n)]
        served.engine.batch_of(model).check(requests[0])
    except ValueError as error:
        raise bad_field("prompt", str(error)) from error
    return requests
