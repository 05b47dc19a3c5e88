"""The engine of a server: one thread owns the device, and requests of any kind share it.

Free of HTTP. `jalign.serve.app` is a server around it, `jalign.serve.conversation` a chat, and
evaluations in this process call `complete`.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

import jax

from jalign.core import did_you_mean
from jalign.run.policy import Policy
from jalign.serve.batch import ModelBatch, Task
from jalign.serve.types import (
    Completion,
    EngineClosedError,
    Limits,
    Listener,
    Piece,
    QueueFullError,
    Request,
)

LOG = logging.getLogger(__name__)
T = TypeVar("T")


class Ticket:
    """Requests that were handed in together."""

    def __init__(self, tasks: Sequence[Task], wake: Callable[[], None]):
        self._tasks, self._wake = tasks, wake

    def cancel(self) -> None:
        """End them; their rows are free before the next tokens."""
        for task in self._tasks:
            task.canceled = True
        self._wake()


class Engine:
    """Models that answer requests from any thread.

    A request's response depends on nothing but itself: not on its row, on when it is admitted, or
    on what else runs. Requests share the rows of their model; a row is refilled between two chunks.

    Args:
      models: name -> policy. Adapters that share their base (`Policy.shared_base`) hold it once on
        accelerators; on CPU each has a copy in the layout that decodes fastest.
      limits: rows, lengths and queue; None: the defaults.
      say: called with a line about each step of `start`.

    Raises:
      ValueError: no model, or several processes.
    """

    def __init__(
        self,
        models: Mapping[str, Policy],
        limits: Limits | None = None,
        say: Callable[[str], object] = lambda text: None,
    ):
        if jax.process_count() > 1:
            raise ValueError("an engine runs in one process, on all devices of one host")
        self.limits, self._say = limits or Limits(), say
        self.batches = {name: ModelBatch(m, self.limits) for name, m in models.items()}
        self._incoming: deque[tuple[ModelBatch, Task]] = deque()
        self._jobs: deque[tuple[Callable[[], object], Future]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self, *, warm_up: bool = True) -> None:
        """Start the thread, and return when every program is compiled.

        Args:
          warm_up: False compiles each program for the first request that needs it.
        """
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._loop, name="jalign engine", daemon=True)
        self._thread.start()
        if not warm_up:
            return
        steps = [(name, n) for name, b in self.batches.items() for n in (None, *b.buckets)]
        for i, (name, bucket) in enumerate(steps, 1):
            what = "decoding" if bucket is None else f"prompts of up to {bucket} tokens"
            self._say(f"compiling {i}/{len(steps)}, {name}: {what}")
            batch = self.batches[name]
            self.run(lambda batch=batch, bucket=bucket: batch.warm_up(bucket)).result()

    def close(self) -> None:
        """Finish what was handed in, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- requests

    def submit(self, requests: Sequence[Request], listen: Listener) -> Ticket:
        """Hand in requests, all or none of them; each ends with a piece that has `finish` or
        `error`.

        Raises:
          ValueError: an unknown model, a request that does not fit, or more of them than the queue
            can ever hold.
          QueueFullError: the queue is full now.
          EngineClosedError: `close` was called.
        """
        tasks = []
        for i, request in enumerate(requests):
            batch = self.batch_of(request.model)
            batch.check(request)
            seed = secrets.randbits(32) if request.seed is None else request.seed
            tasks.append((batch, batch.task(request, i, listen, seed)))
        if len(tasks) > self.limits.queue:
            raise ValueError(f"{len(tasks)} responses at once, and {self.limits.queue} may wait")
        with self._changed:
            if self._closing:
                raise EngineClosedError("the engine is closed")
            if self.waiting + len(tasks) > self.limits.queue:
                raise QueueFullError(f"{self.waiting} requests wait, as many as may")
            self._incoming.extend(tasks)
            self._changed.notify()
        return Ticket([task for _, task in tasks], self._wake)

    def stream(self, request: Request) -> Iterator[Piece]:
        """The pieces of a response; to close the iterator cancels the request.

        Raises:
          Exception: as `submit`, and what made the request fail.
        """
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        ticket = self.submit([request], lambda _, piece: pieces.put(piece))
        try:
            while True:
                piece = pieces.get()
                if piece.error is not None:
                    raise piece.error
                yield piece
                if piece.finish is not None:
                    return
        finally:
            ticket.cancel()

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """All responses. More requests than the queue holds are handed in one queue after another.

        Raises:
          Exception: as `submit`, and what made a request fail.
        """
        out = [Completion() for _ in requests]
        pieces: queue.SimpleQueue[tuple[int, Piece]] = queue.SimpleQueue()
        size = self.limits.queue
        for start in range(0, len(requests), size):
            part = requests[start : start + size]
            ticket = self.submit(part, lambda i, p, start=start: pieces.put((start + i, p)))
            try:
                left = len(part)
                while left:
                    i, piece = pieces.get()
                    if piece.error is not None:
                        raise piece.error
                    out[i].add(piece)
                    left -= piece.finish is not None
            finally:
                ticket.cancel()
        return out

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Call a function on the thread that owns the device, between two chunks of tokens."""
        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise EngineClosedError("the engine is closed")
            self._jobs.append((job, future))
            self._changed.notify()
        return future

    def batch_of(self, model: str | None) -> ModelBatch:
        """The rows of a model; None is the first.

        Raises:
          ValueError: an unknown model.
        """
        if model is None and self.batches:
            return next(iter(self.batches.values()))
        if model is None or model not in self.batches:
            if not self.batches:
                raise ValueError("there is no language model here")
            near = did_you_mean(str(model), self.batches)
            raise ValueError(f"no model {model!r}{near}")
        return self.batches[model]

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._thread is not None and self._thread.is_alive() and not self._closing

    @property
    def waiting(self) -> int:
        """Requests without a row."""
        return len(self._incoming) + sum(len(b.waiting) for b in self.batches.values())

    # ---- the thread

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                while self._incoming:
                    batch, task = self._incoming.popleft()
                    batch.waiting.append(task)
                job = self._jobs.popleft() if self._jobs else None
                if job is None and not any(b.busy for b in self.batches.values()):
                    return
            if job is not None:
                _call(*job)
            for batch in self.batches.values():
                if batch.busy:
                    self._step(batch)

    def _has_work(self) -> bool:
        busy = any(batch.busy for batch in self.batches.values())
        return bool(self._closing or self._incoming or self._jobs or busy)

    def _step(self, batch: ModelBatch) -> None:
        try:
            batch.step()
        except Exception as error:  # the device is out of memory, say: the next request may fit
            LOG.exception("a call of the model failed; its requests end with the error")
            batch.fail(error)


def _call(job: Callable[[], object], future: Future) -> None:
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)
