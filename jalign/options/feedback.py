"""What the commands of AI feedback can be told: `jalign label`, `revise` and `prompts`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jalign.options.judge import LanguageModelConfig


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Preference records of what a language model says of responses.

    Args:
        file: rows with a prompt and responses, as `jalign sample --out` writes them, or pairs.
        out: .jsonl or .jsonl.gz: pairs with chosen_prob where preferences are asked, lists with
          ratings where scores or points are.
        judge: the model that is asked.
        ask: for a "preference" between two responses in both orders (RLAIF), by "principles"
          (Constitutional AI), a "score" from 1 to 10, or up to 5 "points" (self-rewarding).
        options: of `rewards.rlaif.Comparison`, `rewards.constitutional.comparison`,
          `rewards.rating.direct_score` or `additive_ratings`: templates (files or names),
          instructions, reasons, samples ...
        principles: JSON file of principles; those that ship when not given.
        limit: use only the first so many rows; 0 for all.
        batch_size: rows that are judged together, and then kept.
    """

    file: str
    out: str
    judge: LanguageModelConfig
    ask: Literal["preference", "principles", "score", "points"] = "preference"
    options: dict[str, Any] = field(default_factory=dict)
    principles: str | None = None
    limit: int = 0
    batch_size: int = 32

    def __post_init__(self):
        _check(self, "judge", limit=0, batch_size=1)
        if self.principles and self.ask != "principles":
            raise ValueError(f"principles does not apply to ask: {self.ask}")


@dataclass(frozen=True, kw_only=True)
class ReviseConfig:
    """Critiques and revisions of responses by principles (Constitutional AI), to be trained on.

    Args:
        file: rows with a prompt and responses, as `jalign sample --out` writes them, or with one.
        out: .jsonl or .jsonl.gz: prompts with revised responses.
        writer: the model that criticises and revises; in the paper the one that responded.
        rounds: of critique and revision, each of what the last one wrote.
        keep: the revisions of all rounds, as in the paper, or the last one.
        principles: JSON file of principles; those that ship when not given.
        seed: of the choice of principles.
        temperature: of what is written.
        max_tokens: most tokens of a critique, and of a revision.
        limit: use only the first so many rows; 0 for all.
        batch_size: rows that are revised together, and then kept.
    """

    file: str
    out: str
    writer: LanguageModelConfig
    rounds: int = 4
    keep: Literal["all", "last"] = "all"
    principles: str | None = None
    seed: int = 0
    temperature: float = 1.0
    max_tokens: int = 512
    limit: int = 0
    batch_size: int = 32

    def __post_init__(self):
        _check(self, "writer", rounds=1, temperature=0, max_tokens=1, limit=0, batch_size=1)


@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """New prompts that a model writes in sight of a few others (self-instruct).

    Args:
        file: rows with prompts of people.
        out: .jsonl or .jsonl.gz: rows with a prompt.
        writer: the model that writes.
        count: prompts to make.
        attempts: most tries for each of them: what is too short, too long or too like another
          prompt is left out.
        options: of `rewards.self_instruct.invent`: template, shots, own_shots, most_alike,
          min_words, max_words.
        seed: of the choice of prompts that are shown.
        temperature: of what is written.
        max_tokens: most tokens of a prompt.
        limit: use only the first so many rows; 0 for all.
        batch_size: prompts that are written together, and then kept.
    """

    file: str
    out: str
    writer: LanguageModelConfig
    count: int
    attempts: int = 4
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    temperature: float = 0.6
    max_tokens: int = 128
    limit: int = 0
    batch_size: int = 32

    def __post_init__(self):
        least = {"count": 1, "attempts": 1, "temperature": 0, "max_tokens": 1}
        _check(self, "writer", **least, limit=0, batch_size=1)


def _check(config: Any, model: str, **least: float) -> None:
    """That a model is given, a file that rows can be written to, and numbers in their range."""
    if not getattr(config, model).model:
        raise ValueError(f"set {model}.model: a folder, a run, or the model's name at the server")
    if not config.out.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"out must end in .jsonl or .jsonl.gz, got {config.out}")
    for name, smallest in least.items():
        if getattr(config, name) < smallest:
            raise ValueError(f"{name} must be >= {smallest}, got {getattr(config, name)}")
