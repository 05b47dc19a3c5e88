"""A conversation with one model, or with two side by side: history, answers as they are written."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jalign import store
from jalign.options.serve import ChatConfig
from jalign.run.policy import Policy
from jalign.serve.encoding import Encoding
from jalign.serve.engine import Engine
from jalign.serve.models import base_of, load_models
from jalign.serve.types import Limits, Piece, Request

if TYPE_CHECKING:
    from jalign.data.records import Message

REFERENCE = "reference"
"""Value of `beside` for the model that the first one was trained from."""


class Conversation:
    """What was said, by model: each reads its own answers.

    A model without a chat template continues the text of the conversation.

    Args:
      models: name -> policy, one or two.
      options: how answers are sampled.
      limits: of the engine; None: those of the options, and a row for each model.
      say: called with a line about each step of loading.

    Attributes:
      messages: name -> its messages so far.
    """

    def __init__(
        self,
        models: Mapping[str, Policy],
        options: ChatConfig,
        limits: Limits | None = None,
        say: Callable[[str], object] = lambda text: None,
    ):
        limits = limits or Limits(rows=1, max_len=options.max_len, chunk=4)
        self._engine, self._options = Engine(models, limits, say), options
        self._encodings = {name: Encoding(policy) for name, policy in models.items()}
        self.messages: dict[str, list[Message]] = {name: [] for name in models}
        self._answers = 0
        if options.system:
            self.set_system(options.system)

    @classmethod
    def load(
        cls, options: ChatConfig, say: Callable[[str], object] = lambda text: None
    ) -> Conversation:
        """Load the models that the options name.

        Raises:
          ValueError: no such model, or one that writes nothing.
        """
        say(f"loading {options.model}" + (f" and {options.beside}" if options.beside else ""))
        names = {options.model: options.model}
        if options.beside and options.beside != REFERENCE:
            names[options.beside] = options.beside
        policies, scorers = load_models(names, options.template)
        if scorers:
            raise ValueError(f"{next(iter(scorers))} scores responses and writes none")
        if options.beside == REFERENCE:
            policies[REFERENCE] = base_of(policies[options.model])
        return cls(policies, options, say=say)

    def __enter__(self) -> Conversation:
        # Most conversations stay short: the programs of long ones would cost minutes of waiting.
        self._engine.start(warm_up=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.close()

    def has_template(self, model: str) -> bool:
        """Whether the model answers messages, and does not just continue texts."""
        return bool(self._encodings[model].tokenizer.chat_template)

    def ask(self, text: str) -> Generator[tuple[str, Generator[str]]]:
        """(model, pieces of its answer), one model after the other; all of them write at once.

        An answer joins the messages when its pieces have been read, or what has been read of it
        when its iterator is closed.

        Raises:
          ValueError: the conversation is longer than the model's context, or a template refuses it.
        """
        prompts = {}
        for name, messages in self.messages.items():
            prompts[name] = self._request(name, [*messages, {"role": "user", "content": text}])
        self._answers += 1
        pieces: dict[str, queue.SimpleQueue[Piece]] = {n: queue.SimpleQueue() for n in prompts}
        tickets = {}
        for name, request in prompts.items():
            put = pieces[name].put
            tickets[name] = self._engine.submit([request], lambda _, piece, put=put: put(piece))
        for messages in self.messages.values():
            messages.append({"role": "user", "content": text})
        try:
            for name in prompts:
                yield name, self._answer(name, pieces[name], tickets[name].cancel)
        finally:
            for ticket in tickets.values():
                ticket.cancel()
            for messages in self.messages.values():
                if messages[-1]["role"] == "user":  # stopped before its answer was read
                    messages.append({"role": "assistant", "content": ""})

    def set_system(self, text: str) -> None:
        """Set the system message; an empty text removes it."""
        system: list[Message] = [{"role": "system", "content": text}] if text else []
        for name, messages in self.messages.items():
            self.messages[name] = system + [m for m in messages if m["role"] != "system"]

    def undo(self) -> str | None:
        """Forget the last question and its answers; returns the question, None without one."""
        question = None
        for messages in self.messages.values():
            turns = [i for i, m in enumerate(messages) if m["role"] == "user"]
            if turns:
                question = messages[turns[-1]]["content"]
                del messages[turns[-1] :]
        return question

    def save(self, file: str) -> Path:
        """Write a line of JSON for each model: its name and messages, as `jalign train` reads them.

        Raises:
          ValueError: nothing has been said, or no local file.
        """
        path = store.local(file, "a conversation").expanduser()
        rows = [{"model": n, "messages": m} for n, m in self.messages.items()]
        if not any(m["role"] == "assistant" for row in rows for m in row["messages"]):
            raise ValueError("there is no answer to save")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        store.write(path, lambda out: out.write(text.encode()))
        return path

    def _request(self, name: str, messages: Sequence[Message]) -> Request:
        options, encoding = self._options, self._encodings[name]
        if self.has_template(name):
            ids = encoding.chat(messages)
        else:
            ids = encoding.text("".join(m["content"] for m in messages))
        room = self._engine.batch_of(name).max_len - len(ids)
        if room < 1:
            raise ValueError(
                f"the conversation has {len(ids)} tokens, more than {name} reads with an answer: "
                "/undo takes back the last ones"
            )
        return Request(
            prompt=ids,
            model=name,
            max_tokens=min(options.max_new_tokens, room),
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=options.seed + self._answers,
        )

    def _answer(
        self, name: str, pieces: queue.SimpleQueue[Piece], cancel: Callable[[], None]
    ) -> Generator[str]:
        """The text of an answer as it is written."""
        text = ""
        try:
            while True:
                piece = pieces.get()
                if piece.error is not None:
                    raise piece.error
                text += piece.text
                if piece.text:
                    yield piece.text
                if piece.finish is not None:
                    return
        finally:
            cancel()
            self.messages[name].append({"role": "assistant", "content": text})
