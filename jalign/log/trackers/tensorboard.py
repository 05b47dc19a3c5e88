"""A run in TensorBoard: curves in the groups of transformers' trainers, settings, and texts."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from jalign.log.trackers.protocol import TrackedRun
from jalign.log.trackers.tags import flat, tagged

LOG = logging.getLogger(__name__)

_OUTCOMES = ("train/loss", "train/reward", "eval/loss", "eval/reward", "eval/rewards/accuracies")


class TensorBoard:
    """Event files in the run's folder, which gives the run its name."""

    def start(self, run: TrackedRun) -> None:
        self._writer = SummaryWriter(
            str(run.folder),
            # TensorBoard has no way to delete points: it hides them from this step on
            purge_step=run.start + 1 if run.start else None,
            # each session has a file of its own, also where files are uploaded under their names
            filename_suffix=f".{run.start}",
        )
        # private, since tensorboardX has no hook for a failing write
        writer: Any = self._writer.file_writer
        events = writer.event_writer._ev_writer
        events._py_recordio_writer = _Forgiving(events._py_recordio_writer)
        if run.config:
            self._settings(run.config)

    def scalars(self, step: int, kind: str, metrics: Mapping[str, float | None]) -> None:
        for name, value in tagged(kind, metrics).items():
            self._writer.add_scalar(name, value, step)

    def texts(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        if rows:
            self._writer.add_text(name, markdown(rows), step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _settings(self, config: Mapping[str, object]) -> None:
        """The config as text, below the samples, and its numbers and words in the HParams tab."""
        # HParams accepts numbers and words only; lists and nulls are in the text
        values = {name: x for name, x in flat(config).items() if isinstance(x, str | int | float)}
        assert self._writer.file_writer is not None
        # without the third, which marks the session as ended
        for summary in hparams(values, dict.fromkeys(_OUTCOMES, 0.0))[:2]:
            self._writer.file_writer.add_summary(summary)
        self._writer.add_text("run_config", f"```json\n{json.dumps(config, indent=2)}\n```", 0)


def make() -> TensorBoard:
    return TensorBoard()


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of equal columns as a table of Markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class _Forgiving:
    """A file of tensorboardX's that stops writing at the first error.

    The error would end tensorboardX's writer thread, and the run would then wait for it forever.
    """

    def __init__(self, file: Any):
        self._file, self._failed = file, False

    def write(self, data: bytes) -> None:
        self._try(self._file.write, data)

    def flush(self) -> None:
        self._try(self._file.flush)

    def close(self) -> None:
        self._try(self._file.close)

    def _try(self, call: Callable[..., None], *args: bytes) -> None:
        if self._failed:
            return
        try:
            call(*args)
        except OSError as error:
            self._failed = True
            LOG.error("TensorBoard's events are no longer written: %s", error)
            with suppress(OSError):  # close flushes, which fails again
                self._file.close()


def _cell(value: Any) -> str:
    """Text that stays within its cell of a Markdown table."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # & first: the others are replaced by texts that contain it
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    return "<br>".join(text.strip().splitlines())
