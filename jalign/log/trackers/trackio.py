"""A run in trackio (https://huggingface.co/docs/trackio): a local database, or a Space if
TRACKIO_SPACE_ID names one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import trackio

from jalign.log.trackers.protocol import TrackedRun
from jalign.log.trackers.tags import tagged


class Trackio:
    """A run of trackio's. Its name ends with jalign's id, by which a resumed run continues it:
    trackio finds runs by name, and two folders may have the same.
    """

    def start(self, run: TrackedRun) -> None:
        self._run = trackio.init(
            project=run.project,
            name=f"{run.name}-{run.id[:6]}",
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
        )

    def scalars(self, step: int, kind: str, metrics: Mapping[str, float | None]) -> None:
        self._run.log(tagged(kind, metrics), step=step)

    def texts(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        if rows:
            self._run.log({name: trackio.Table(dataframe=pd.DataFrame(rows))}, step=step)

    def flush(self) -> None:
        """trackio writes from a thread of its own."""

    def close(self) -> None:
        self._run.finish()


def make() -> Trackio:
    return Trackio()
