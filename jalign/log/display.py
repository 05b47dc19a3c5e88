"""Progress of a run: lines in a pipe or a notebook, and bars below them in a terminal."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

SHOWN = {
    "loss": "loss",
    "reward": "reward",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "objective/kl": "KL",
    "kl_k3": "KL/token",
    "completions/mean_length": "length",
    "grad_norm": "grad norm",
    "learning_rate": "lr",
}
"""Metrics that a line shows, the most important first -> their short names."""

# Notebooks give `!command` a terminal, and keep every frame of a moving bar as a line of its own.
_NOTEBOOKS = ("JPY_PARENT_PID", "COLAB_RELEASE_TAG")

# a log file with a line per batch of an evaluation would be unreadable
_GB = 10**9
_QUIET_S = 30.0  # between two lines of one phase without a terminal


class Display:
    """Lines, phases and the progress of training on a console; None shows nothing."""

    def __init__(self, console: Console | None = None):
        self.console = console
        self._announced: set[str] = set()
        moving = (
            console is not None
            and console.is_terminal
            and not console.is_dumb_terminal
            and not any(name in os.environ for name in _NOTEBOOKS)
        )
        # bars in a pipe would be thousands of lines of control codes
        self._bars = _bars(console) if console and moving else None
        self._training: TaskID | None = None

    def say(self, message: str) -> None:
        """Print a line."""
        if self.console:
            # not markup: rich reads [brackets] in texts and file names as styles
            self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show that something is running; yields a callback to advance towards `total`. Without a
        terminal a phase is a line the first time, and another every half a minute if it is counted.
        """
        if not self._bars:
            if name not in self._announced:
                self._announced.add(name)
                self.say(f"{name} ...")
            yield self._counted(name, total)
            return
        self._bars.start()
        task = self._bars.add_task(name, total=total, speed="")
        # at once: a blocking call such as a compilation may start before the next refresh
        self._bars.refresh()
        try:
            yield partial(self._bars.advance, task)
        finally:
            self._bars.remove_task(task)

    @contextmanager
    def transfer(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A phase that moves data; yields a callback for (bytes so far, bytes in all). From a GB on
        these are shown: as a bar, or without a terminal as a line every half a minute.
        """
        printed = time.monotonic()
        with self.phase(name):
            task = self._bars.task_ids[-1] if self._bars else None

            def report(done: int, total: int) -> None:
                nonlocal printed
                if total < _GB:
                    return
                if self._bars and task is not None:
                    title = f"{name} (GB)"
                    self._bars.update(
                        task, description=title, completed=done / _GB, total=total / _GB
                    )
                elif done < total and time.monotonic() - printed >= _QUIET_S:
                    printed = time.monotonic()
                    self.say(f"{name}: {done / _GB:.1f} of {total / _GB:.1f} GB")

            yield report

    def _counted(self, name: str, total: int | None) -> Callable[[int], None]:
        done, printed = 0, time.monotonic()

        def advance(count: int) -> None:
            nonlocal done, printed
            done += count
            if total and done < total and time.monotonic() - printed >= _QUIET_S:
                printed = time.monotonic()
                self.say(f"{name}: {done}/{total}")

        return advance

    def training(self, step: int, steps: int) -> None:
        """Move the bar of the run to a step."""
        if not self._bars:
            return
        self._bars.start()
        if self._training is None:
            self._training = self._bars.add_task("train", total=steps, completed=step, speed="")
        else:
            self._bars.update(self._training, completed=step)

    def metrics(self, kind: str, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Print a line of the metrics in `SHOWN`; nothing if there are none."""
        if not self.console:
            return
        speed = metrics.get("tokens_per_second")
        cells = [f"{label} {metrics[name]:.4g}" for name, label in SHOWN.items() if name in metrics]
        samples = [name for name in metrics if name.startswith("samples/")]
        cells += [f"{name.split('/')[1]} {metrics[name]:.4g}" for name in samples]
        if metrics.get("skipped"):
            cells.insert(1, f"skipped {metrics['skipped']:.0f}")
        if not cells:
            return
        if not self._bars and speed:
            cells.append(f"tok/s {speed:,.0f}")
        if not self._bars and "eta_s" in metrics:
            cells.append(f"ETA {_duration(metrics['eta_s'])}")
        head = f"{kind} {step}/{steps}"
        if self._bars and speed and self._training is not None:
            self._bars.update(self._training, speed=f"{speed:,.0f} tok/s")
        if self._bars:  # columns of wrapped lines cannot be compared by eye
            while len("  ".join([head, *cells])) > self.console.width and len(cells) > 1:
                cells.pop()
        self.say("  ".join([head, *cells]))

    def close(self) -> None:
        """Stop the bars; their last state stays on the screen."""
        if self._bars:
            self._bars.stop()


class _Count(ProgressColumn):
    """Completed of total, or the elapsed time if nothing is counted."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(_duration(task.elapsed or 0))
        return Text(f"{task.completed:.0f}/{task.total:.0f}")


class _Left(ProgressColumn):
    """Estimated time left."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None or task.finished else f"ETA {_duration(left)}")


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        _Count(),
        BarColumn(bar_width=20),
        _Left(),
        TextColumn("{task.fields[speed]}"),
        console=console,
        refresh_per_second=4,
        # seconds; in rich's default of 30 there may be a single step
        speed_estimate_period=300,
    )


def _duration(seconds: float) -> str:
    """
    >>> _duration(3), _duration(75), _duration(7325)
    ('3s', '1m15s', '2h02m')
    """
    rounded_s = round(seconds)
    if rounded_s < 60:
        return f"{rounded_s}s"
    if rounded_s < 3600:
        return f"{rounded_s // 60}m{rounded_s % 60:02}s"
    return f"{rounded_s // 3600}h{rounded_s % 3600 // 60:02}m"
