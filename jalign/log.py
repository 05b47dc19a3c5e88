"""Metrics to a jsonl file (the record), to TensorBoard, and to the terminal."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from jalign import store

_SHOWN = {
    "loss": "loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "grad_norm": "grad norm",
    "learning_rate": "lr",
    "tokens_per_second": "tok/s",
    "sentiment": "sentiment",
}


class RunLog:
    """One run's record. Going on from step s drops what an earlier life of the run wrote after s.

    Args:
      directory: `metrics.jsonl` and `tensorboard/` are written there; to an object store by `put`.
      steps: optimizer steps of the whole run.
      start: steps already taken.
      console: where people look; None: nowhere.
      writes: whether this process keeps the record; of several only the first does.
    """

    def __init__(
        self,
        directory: store.Place,
        *,
        steps: int,
        start: int,
        console: Console | None,
        writes: bool = True,
    ):
        self.path = directory / "metrics.jsonl"
        self.tensorboard = directory / "tensorboard"
        self._file: TextIO | None = None
        self._spool: store.Spool | None = None
        if writes:
            if store.is_remote(directory):
                self._spool = store.Spool(directory, self.path.name)
            folder = self._spool.local if self._spool else Path(directory)
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = folder / self.path.name
            _drop_after(self._lines, start)
            self._file = self._lines.open("a", encoding="utf-8")
            self._writer = SummaryWriter(
                str(folder / self.tensorboard.name),
                purge_step=start + 1 if start else None,
                filename_suffix=f".{start}" if self._spool else "",  # an object is replaced
            )
        self.console, self._steps = console, steps
        self._progress = (
            _progress(console, steps, start) if console and console.is_terminal else None
        )

    def write(self, step: int, metrics: Mapping[str, float], kind: str = "train") -> None:
        """Record scalars of one step; a number that is not finite is written as null."""
        finite = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
        record = {"step": step, "kind": kind, "time": round(time.time(), 3), **finite}
        self._append(record)
        for name, value in finite.items():
            if value is not None and self._file:
                self._writer.add_scalar(name if kind == "train" else f"{kind}/{name}", value, step)
        self._show(step, metrics, kind)

    def text(self, step: int, name: str, rows: list[dict[str, Any]]) -> None:
        """Record texts (sample generations) beside the numbers."""
        self._append({"step": step, "kind": name, "rows": rows})
        if self._file:
            text = "\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
            self._writer.add_text(name, text, step)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """What has been recorded of a kind so far, by earlier lives of the run too."""
        lines = self._lines.read_text(encoding="utf-8").split("\n") if self._file else []
        return [row for row in map(json.loads, filter(None, lines)) if row["kind"] == kind]

    def say(self, message: str) -> None:
        """A line for people."""
        if self.console:
            self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def put(self) -> None:
        """Bring an object store up to date; files on disk are so after every line."""
        if self._spool:
            self._writer.flush()
            self._spool.put()

    def close(self) -> None:
        if self._progress:
            self._progress.stop()
        if self._file:
            self._file.close()
            self._writer.close()
        if self._spool:
            self._spool.close()

    def _append(self, record: dict[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()

    def _show(self, step: int, metrics: Mapping[str, float], kind: str) -> None:
        if not self.console:
            return
        cells = [f"{label} {metrics[n]:.4g}" for n, label in _SHOWN.items() if n in metrics]
        if self._progress and kind == "train":
            self._progress.update(
                self._progress.task_ids[0], completed=step, cells="  ".join(cells)
            )
        else:
            left = f"  ETA {metrics['eta_s']:.0f}s" if "eta_s" in metrics else ""
            if cells:
                self.say(f"{kind} {step}/{self._steps}  " + "  ".join(cells) + left)


def _progress(console: Console, steps: int, start: int) -> Progress:
    progress = Progress(
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[cells]}"),
        TimeRemainingColumn(),
        console=console,
    )
    progress.add_task("train", total=steps, completed=start, cells="compiling")
    progress.start()
    return progress


def _drop_after(path: Path, start: int) -> None:
    """A killed run may have logged steps that its last checkpoint does not hold, and half a line.

    A run that starts afresh evaluates step 0 again, so then nothing is kept.
    """
    if not path.exists():
        return
    kept = []
    # Half a line may end inside a character; and texts hold line breaks that only str sees as such.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            if line and start and json.loads(line)["step"] <= start:
                kept.append(line)
        except json.JSONDecodeError:
            continue
    whole = path.with_suffix(".jsonl.tmp")  # a kill half-way through must not cost the record
    whole.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    whole.replace(path)
