"""Options of benchmarks: `jalign eval MODEL --tasks ...`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Scores of a model on tasks of lm_eval (pip install 'jalign[eval]').

    Args:
        model: run (RUN, RUN@STEP, RUN@best), adapter, folder, hub name, or embedded.
        tasks: names of tasks or groups, also with wildcards, separated by commas or spaces.
        against: what the model was trained from: the changes of its scores show what it forgot.
        include_path: folder with tasks of your own, such as those on local data.
        limit: only the first examples of each task, at most this many; 0: all.
        num_fewshot: examples before each question; not given: as the task says.
        chat: put questions into the model's chat template.
        batch_size: rows of one call of the model, and responses that are sampled at once.
        max_length: most tokens of a context with its continuation; not given: the model's context.
        seed: of sampling and of the choice of few-shot examples.
        out: folder for lm_eval's complete results and every answer.
    """

    model: str
    tasks: list[str] = field(default_factory=list)
    against: str | None = None
    include_path: str | None = None
    limit: int = 0
    num_fewshot: int | None = None
    chat: bool = False
    batch_size: int = 16
    max_length: int | None = None
    seed: int = 0
    out: str | None = None

    def __post_init__(self):
        names = [name for words in self.tasks for name in words.split(",") if name]
        if not names:
            raise ValueError("name the tasks: --tasks truthfulqa_mc1,gsm8k")
        object.__setattr__(self, "tasks", names)
        least = {"limit": 0, "batch_size": 1, "num_fewshot": 0, "max_length": 2}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{name} must be >= {smallest}, got {value}")
