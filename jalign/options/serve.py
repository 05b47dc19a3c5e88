"""Answering requests with models: a server, a conversation in the terminal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """An OpenAI-compatible server of runs, models, adapters and reward models.

    Args:
      model: run (RUN, RUN@STEP, RUN@best), folder, hub name, PEFT folder, or embedded.
      name: what clients call the model; its path when not given.
      models: further models, each NAME=MODEL; adapters of one base share its weights.
      template: a chat template instead of the tokenizers': a built-in one or a .jinja file.
      host: address to listen at; 0.0.0.0 lets other machines in.
      port: port to listen at; 0 takes a free one.
      api_key_file: file with a key per line, one of which every request must bear.
      rows: responses that each model samples at once.
      max_len: most tokens of a prompt with its response; the model's context, at most 2048, when
        not given.
      max_new_tokens: most tokens of a response; what the prompt leaves when not given.
      queue: most requests that wait; further ones are answered with status 429.
      chunk: tokens between two pieces of a stream, and between two checks for free rows.
    """

    model: str
    name: str | None = None
    models: list[str] | None = None
    template: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_file: str | None = None
    rows: int = 16
    max_len: int | None = None
    max_new_tokens: int | None = None
    queue: int = 1024
    chunk: int = 8

    def __post_init__(self):
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port must be in [0, {2**16 - 1}], got {self.port}")
        for entry in self.models or ():
            name, equals, model = entry.partition("=")
            if not (name and equals and model):
                raise ValueError(f"--models takes NAME=MODEL, got {entry!r}")
        names = [self.name or self.model, *(entry.partition("=")[0] for entry in self.models or ())]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two models have the name {', '.join(sorted(twice))}")

    @property
    def names(self) -> dict[str, str]:
        """Name -> model."""
        more = (entry.partition("=") for entry in self.models or ())
        return {self.name or self.model: self.model} | {name: model for name, _, model in more}


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """A conversation with a model in the terminal.

    Args:
      model: run (RUN, RUN@STEP, RUN@best), folder, hub name, PEFT folder, or embedded.
      beside: a second model that answers, too; reference is what the model was trained from.
      system: a system message to begin with.
      template: a chat template instead of the tokenizer's: a built-in one or a .jinja file.
      max_len: most tokens of the conversation; the model's context, at most 2048, when not given.
      max_new_tokens: most tokens of an answer.
      temperature: of sampling; 0 is greedy.
      top_k: sample among the k most probable tokens; null: all.
      top_p: sample among the most probable tokens with this total probability.
      seed: of sampling; the n-th answer is sampled with seed + n.
    """

    model: str
    beside: str | None = None
    system: str | None = None
    template: str | None = None
    max_len: int | None = None
    max_new_tokens: int = 512
    temperature: float = 0.7
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        # greedy decoding reads neither, and an option must not be ignored silently
        if self.temperature == 0 and (self.top_k is not None or self.top_p < 1):
            raise ValueError("--top_k and --top_p need a --temperature above 0")
        if self.max_new_tokens < 1:
            raise ValueError(f"--max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.beside == self.model:
            raise ValueError("--beside names another model, or reference")
