"""A language model that judges or writes: in this process, or behind a server."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """A language model that judges or writes.

    Args:
        model: a run, a folder, a hub name or "embedded", in this process; or the name of the
          server's model.
        server: base URL of a server with the OpenAI API, without chat/completions. The key comes
          from the environment variable JALIGN_JUDGE_API_KEY.
        cache: folder for a server's answers.
        concurrency: most requests at once.
        timeout_s: seconds until a request fails.
        retries: further attempts after a transient failure.
        prompt_price, completion_price: of a server, per million tokens, for `judge/cost`.
        seed: of sampling above temperature 0. A server is sent seed + k for the k-th sample of a
          prompt; null sends it none.
    """

    model: str | None = None
    server: str | None = None
    cache: str | None = None
    concurrency: int = 16
    timeout_s: float = 60.0
    retries: int = 5
    prompt_price: float = 0.0
    completion_price: float = 0.0
    seed: int | None = None

    def __post_init__(self):
        of_server = ("cache", "timeout_s", "retries", "prompt_price", "completion_price")
        # compared with the defaults: a frozen dataclass does not record which fields were passed
        plain = {f.name: f.default for f in fields(LanguageModelConfig)}
        for name in of_server if not self.server else ():
            if getattr(self, name) != plain[name]:
                raise ValueError(f"{name} only applies to a server: set server, or remove it")
        for name in of_server[2:]:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be > 0, got {self.timeout_s}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {self.concurrency}")


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(LanguageModelConfig):
    """A language model that judges responses (AI feedback).

    Args:
        ask: "score": from 1 to 10, the mean of its distribution (direct RLAIF); "points": up to 5,
          one for each quality (self-rewarding); "rubric": a checklist of weighted yes-or-no
          questions, options.questions; "preference": between two responses, in both orders, for
          methods that learn from preferences.
        weight: of the score, the points or the rubric in the reward.
        options: of `rewards.rating.direct_score`, `additive_ratings`, `rewards.rubric.Rubric` or
          `rewards.rlaif.Comparison`: templates (files or names), instructions, reasons ...
    """

    ask: Literal["nothing", "score", "points", "rubric", "preference"] = "nothing"
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.ask == "nothing":
            # a judge that is configured but asks nothing would be loaded and never used
            configured = self.model or self.server or self.options or self.cache
            if configured or self.seed is not None:
                raise ValueError(
                    "reward.judge.ask must be set: score, points, rubric or preference"
                )
        elif not self.model:
            raise ValueError("reward.judge needs a model: a folder, or its name at the server")
        elif self.ask == "rubric" and "questions" not in self.options:
            raise ValueError(
                'reward.judge.ask: rubric needs options: {questions: {"Is it correct?": 1.0}}'
            )
        super().__post_init__()


TRANSPORT_KEYS = (
    "cache", "concurrency", "timeout_s", "retries", "prompt_price", "completion_price",
)  # fmt: skip
"""Options of how a server is queried. They do not change its answers, so a run may resume with
others."""
