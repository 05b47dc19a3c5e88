"""Options of a comparison of models: `jalign eval A B --judge ...`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jalign.options.judge import LanguageModelConfig
from jalign.options.least import check_least


@dataclass(frozen=True, kw_only=True)
class ArenaJudgeConfig(LanguageModelConfig):
    """What compares two answers to a prompt.

    Args:
        model: a reward model (run, folder) or a language model (run, folder, hub name, embedded);
          the name of the server's model; or a reward function: a rule, file.py:function or
          package.module:function.
        ask: of a language model: its "preference", or by "principles".
        options: of `rewards.rlaif.Comparison` or `rewards.constitutional.comparison`, or keyword
          options of the reward function.
        principles: JSON file of principles; those that ship when not given.
    """

    ask: Literal["preference", "principles"] = "preference"
    options: dict[str, Any] = field(default_factory=dict)
    principles: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.server and not self.model:
            raise ValueError("judge.server needs judge.model: the name of its model")
        if self.principles and self.ask != "principles":
            raise ValueError(f"judge.principles does not apply to judge.ask: {self.ask}")


@dataclass(frozen=True, kw_only=True)
class ArenaConfig:
    """Models answer the same prompts, and a judge or people compare their answers.

    Args:
        models: two or more: runs (RUN, RUN@STEP, RUN@best), adapters, folders, hub names, embedded.
        out: folder for answers, verdicts and summary; a killed command continues when run again.
        judge: what compares two answers, in both orders.
        human: write a sheet on which people compare the answers without knowing the models.
        verdicts: the completed sheet: a CSV, or what its page downloads.
        prompts: file or data set with prompts; not given: the held-out prompts of the first run.
        limit: use only the first prompts, at most this many; 0: all.
        chat: put texts into the chat template as a user message; otherwise they are continued.
        max_new_tokens: most tokens of an answer.
        temperature: of sampling; 0 is greedy.
        top_p: sample among the most probable tokens with this total probability.
        batch_size: prompts per call.
        seed: of sampling, of resampling for intervals, and of the order on a sheet.
    """

    models: list[str] = field(default_factory=list)
    out: str
    judge: ArenaJudgeConfig = field(default_factory=ArenaJudgeConfig)
    human: bool = False
    verdicts: str | None = None
    prompts: str | None = None
    limit: int = 0
    chat: bool | None = None
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self):
        check_least(self, limit=0, max_new_tokens=1, temperature=0, batch_size=1)
        if self.temperature == 0 and self.top_p < 1:
            raise ValueError("top_p needs a temperature above 0")
