"""A run in TensorBoard: curves in the groups of transformers' trainers, settings, and texts."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

LOG = logging.getLogger(__name__)

_IMPORTANT = ("loss", "reward", "rewards/", "objective/", "grad_norm", "learning_rate")
_GROUPS = {"train": ("train", "training"), "eval": ("eval", "validation")}
_OUTCOMES = ("train/loss", "train/reward", "eval/loss", "eval/reward", "eval/rewards/accuracies")


def tag(kind: str, name: str) -> str:
    """The curve of a metric. TensorBoard opens its first two groups by name: `eval` and `train`,
    which hold loss and rewards; all other metrics are in `training` and `validation`, closed.

    >>> tag("train", "rewards/margins"), tag("train", "eta_s"), tag("eval", "logps/chosen")
    ('train/rewards/margins', 'training/eta_s', 'validation/logps/chosen')
    """
    if name.startswith(f"{kind}/"):
        return name
    important = any(name == t or (t[-1] == "/" and name.startswith(t)) for t in _IMPORTANT)
    first, second = _GROUPS.get(kind, (kind, kind))
    return f"{first if important else second}/{name}"


class TensorBoard:
    """Event files in a folder, whose name is that of the run.

    Args:
      purge_step: of a resumed run: hide what an earlier process wrote from this step on.
      suffix: of the file's name.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None, suffix: str = ""):
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, filename_suffix=suffix)
        assert self._writer.file_writer is not None
        # private, since tensorboardX has no hook for a failing write
        events = self._writer.file_writer.event_writer._ev_writer
        events._py_recordio_writer = _Forgiving(events._py_recordio_writer)

    def scalars(self, step: int, kind: str, metrics: Mapping[str, float | None]) -> None:
        """Points of curves; None is skipped."""
        for name, value in metrics.items():
            if value is not None:
                self._writer.add_scalar(tag(kind, name), value, step)

    def settings(self, config: Mapping[str, object]) -> None:
        """The config as text, and its numbers and words in the HParams tab."""
        # HParams accepts numbers and words only; lists and nulls are in the text
        flat = {name: x for name, x in _flat(config).items() if isinstance(x, str | int | float)}
        assert self._writer.file_writer is not None
        # without the third, which marks the session as ended
        for summary in hparams(flat, dict.fromkeys(_OUTCOMES, 0.0))[:2]:
            self._writer.file_writer.add_summary(summary)
        self._writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", 0)

    def texts(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Rows of equal columns as a table."""
        if not rows:
            return
        columns = list(rows[0])
        lines = [columns, ["---"] * len(columns)]
        lines += [[_cell(row.get(column)) for column in columns] for row in rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        self._writer.add_text(name, table, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


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


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
