"""Options of AI feedback: `jalign label`, `revise` and `prompts`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jalign.options.judge import LanguageModelConfig
from jalign.options.least import check_least


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Preference records by a language-model judge.

    Args:
        file: rows with a prompt and responses, as `jalign sample --out` writes them, or pairs.
        out: .jsonl or .jsonl.gz: pairs with chosen_prob for preferences, lists with ratings for
          scores, points or rubrics.
        judge: the model that judges.
        ask: "preference" between two responses in both orders (RLAIF), by "principles"
          (Constitutional AI), a "score" from 1 to 10, up to 5 "points" (self-rewarding), or a
          "rubric" of weighted questions (options.questions).
        options: of `rewards.rlaif.Comparison`, `rewards.constitutional.comparison`,
          `rewards.rating.direct_score` or `additive_ratings`, `rewards.rubric.Rubric`: templates
          (files or names), instructions, reasons, votes, samples ...
        principles: JSON file of principles; those that ship when not given.
        limit: use only the first rows, at most this many; 0 for all.
        batch_size: rows judged together and then written.
    """

    file: str
    out: str
    judge: LanguageModelConfig
    ask: Literal["preference", "principles", "score", "points", "rubric"] = "preference"
    options: dict[str, Any] = field(default_factory=dict)
    principles: str | None = None
    limit: int = 0
    batch_size: int = 32

    def __post_init__(self):
        _check(self, "judge", limit=0, batch_size=1)
        if self.ask == "rubric" and "questions" not in self.options:
            raise ValueError('ask: rubric needs options: {questions: {"Is it correct?": 1.0}}')
        if self.principles and self.ask != "principles":
            raise ValueError(f"principles does not apply to ask: {self.ask}")


@dataclass(frozen=True, kw_only=True)
class ReviseConfig:
    """Critiques and revisions of responses by principles (Constitutional AI), to be trained on.

    Args:
        file: rows with a prompt and responses, as `jalign sample --out` writes them, or with one.
        out: .jsonl or .jsonl.gz: prompts with revised responses.
        writer: the model that critiques and revises; in the paper the one that responded.
        rounds: of critique and revision, each of the previous revision.
        keep: the revisions of all rounds, as in the paper, or the last one.
        principles: JSON file of principles; those that ship when not given.
        seed: of the order of principles.
        temperature: of sampling.
        max_tokens: most tokens of a critique, and of a revision.
        limit: use only the first rows, at most this many; 0 for all.
        batch_size: rows revised together and then written.
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
    """New prompts from few-shot examples (self-instruct).

    Args:
        file: rows with prompts by people.
        out: .jsonl or .jsonl.gz: rows with a prompt.
        writer: the model that writes.
        count: prompts to write.
        attempts: most tries for each of them: prompts that are too short, too long or too similar
          to another are dropped.
        options: of `rewards.self_instruct.generate_prompts`: template, shots, own_shots,
          most_alike, min_words, max_words.
        seed: of the choice of examples.
        temperature: of sampling.
        max_tokens: most tokens of a prompt.
        limit: use only the first rows, at most this many; 0 for all.
        batch_size: prompts generated together and then written.
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
    """Raise ValueError without a model, for another output format, or a number out of range."""
    if not getattr(config, model).model:
        raise ValueError(f"set {model}.model: a folder, a run, or the model's name at the server")
    # rows are appended while a command runs, and a killed one continues: only JSON Lines can
    if not config.out.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"out must end in .jsonl or .jsonl.gz, got {config.out}")
    check_least(config, **least)
