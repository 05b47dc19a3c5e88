"""A run in Weights & Biases (https://docs.wandb.ai/ref/python); WANDB_MODE=offline: on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from jalign.log.trackers.protocol import TrackedRun
from jalign.log.trackers.tags import tagged


class Wandb:
    """A run of wandb's by jalign's id, so that a resumed run continues it."""

    def start(self, run: TrackedRun) -> None:
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.id,
            resume="allow",
            config=dict(run.config),
            dir=str(run.folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        # wandb's own step may not go back, and a killed run has sent steps that come again
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, kind: str, metrics: Mapping[str, float | None]) -> None:
        self._run.log(tagged(kind, metrics) | {"step": step})

    def texts(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        if rows:
            columns: list[Any] = list(rows[0])
            data: Any = [[row.get(column) for column in columns] for row in rows]
            self._run.log({name: wandb.Table(columns=columns, data=data), "step": step})

    def flush(self) -> None:
        """wandb sends from a process of its own."""

    def close(self) -> None:
        self._run.finish()


def make() -> Wandb:
    return Wandb()
