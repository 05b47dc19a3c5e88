"""Sampling from a model outside of training, and picking the best of several samples."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Continue prompts with a model folder, a hub name, "embedded", or a checkpoint of a run.

    Args:
        model: folder, hub name, run folder, or embedded.
        prompts: questions to a chat model, or texts to continue; none with --file.
        step: which checkpoint of a run: its step, or best (what stop.metric kept); the newest.
        file: rows with prompts (texts or messages) to continue; or embedded.
        out: jsonl or jsonl.gz to write rows to; a killed command continues when run again.
        template: a chat template instead of the tokenizer's: a built-in one or a .jinja file.
        chat: put texts into the chat template as a user message; false: continue them as they are;
          not given: PROMPTs go into it where there is one, the texts of --file do not.
        limit: use only the first prompts of the file, at most this many; 0: all.
        responses: continuations per prompt.
        max_new_tokens: most tokens of a continuation.
        temperature: of sampling; 0 is greedy.
        top_k: sample among the k most probable tokens; null: all.
        top_p: sample among the most probable tokens with this total probability.
        batch_size: prompts per call.
        seed: of sampling.
        best_of: sample this many per prompt and show the one with the highest reward; a file gets
          all that are not empty, the best first, with their rewards.
        reward: the reward model for best_of: its run, or its exported folder.
    """

    model: str
    prompts: list[str] = field(default_factory=list)
    # text, since "best" is a step, too
    step: str | None = None
    file: str | None = None
    out: str | None = None
    template: str | None = None
    chat: bool | None = None
    limit: int = 0
    responses: int = 1
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    batch_size: int = 32
    seed: int = 0
    best_of: int | None = None
    reward: str | None = None

    def __post_init__(self):
        self._check_best_of()
        # greedy decoding reads none of them, and an option must not be ignored silently
        samples = self.responses > 1 or self.top_k is not None or self.top_p < 1
        if self.temperature == 0 and samples:
            raise ValueError("--responses, --top_k and --top_p need a --temperature above 0")
        if self.batch_size < 1:
            raise ValueError(f"--batch_size must be at least 1, got {self.batch_size}")

    def _check_best_of(self) -> None:
        pair = {"--best_of": self.best_of, "--reward": self.reward}
        missing = [name for name, value in pair.items() if value is None]
        if len(missing) == 1:
            raise ValueError(f"--best_of N and --reward DIR go together: {missing[0]} is missing")
        if self.best_of is None:
            return
        if self.best_of < 1:
            raise ValueError(f"--best_of must be at least 1, got {self.best_of}")
        if self.responses != 1:
            raise ValueError("--best_of sets the number of samples: leave out --responses")
        # greedy samples are equal: the best of them costs N times as much and is the first
        if self.temperature == 0:
            raise ValueError("--best_of needs a --temperature above 0: greedy samples are equal")
