"""Checkpoints that survive kill -9, full disks and flipped bits; the only user of Orbax, S3 aside.

Orbax (its V1 API) writes the arrays: in the background, sharded, and readable on another mesh. It
writes into a temporary directory that is renamed when it is complete (in an object store: in place,
with a mark as the last object), and that is relied on. What it does not do is done here: checksums
of the data, retention that can be killed half-way, errors of a background save that nobody can
miss, and falling back when the newest checkpoint is damaged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from jalign import store
from jalign.checkpoint import manifest, orbax_s3
from jalign.checkpoint.fingerprint import fingerprint
from jalign.checkpoint.manifest import Meta
from jalign.parallel import hosts

log = logging.getLogger(__name__)

_COMMITTED = "commit_success.txt"
_PARTS = (_COMMITTED, "_CHECKPOINT_METADATA", "meta", "state")
_UNFINISHED = ".orbax-checkpoint-tmp"
_PINNED = "pinned"


class CheckpointError(RuntimeError):
    """Checkpoints cannot be written, or none that was written can be read."""


class Checkpointer:
    """The checkpoints of one run: one directory per step.

    With several processes every method is called by all of them. Reading never changes the
    directory; unfinished saves and deletions of a killed run are swept away by the first save.

    Args:
      directory: shared by all processes; made by the first save. A folder, gs:// or s3://.
      keep: how many of the newest steps are kept. While a save is running there is one more on
        disk.
      keep_every: steps divisible by this are kept as well.
      max_failures: so many failed saves in a row are an error.
      timeout_s: after this time a process gives up on others whose part of a save does not come.
    """

    def __init__(
        self,
        directory: str | PathLike[str],
        *,
        keep: int = 2,
        keep_every: int | None = None,
        max_failures: int = 3,
        timeout_s: int = 600,
    ) -> None:
        numbers = {"keep": keep, "keep_every": keep_every, "max_failures": max_failures}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.directory = epath.Path(store.as_path(directory))
        self._remote = store.is_remote(directory)
        if not self._remote:  # epath would look for gs:// below the working directory
            self.directory = self.directory.expanduser().absolute()
        self.keep, self.keep_every, self.max_failures = keep, keep_every, max_failures
        registry = ocp.handlers.local_registry()
        registry.add(ocp.handlers.JsonHandler, checkpointable_name="meta")
        self._context = ocp.Context()
        self._context.checkpointables.registry = registry
        self._context.pytree.loading.partial_load = True  # `_load` knows what must be there
        self._context.asynchronous.timeout_secs = timeout_s
        if self._remote:  # to rename is to copy there
            self._context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
        if str(self.directory).startswith("s3://"):
            orbax_s3.install()
        self._step: int | None = None  # of the save that has been started and not been joined
        self._to_pin = False  # that step
        self._response: Any = None
        self._error: Exception | None = None
        self._failures = 0
        self._swept = False

    # ---- what is there

    def steps(self) -> list[int]:
        """The finished checkpoints, oldest first."""
        return sorted(int(p.name) for p in self._entries() if p.name.isdigit() and _finished(p))

    def leftovers(self) -> list[str]:
        """What is in the directory besides finished checkpoints and unfinished saves."""
        known = {str(s) for s in self.steps()}
        others = [p for p in self._entries() if p.name not in known and not self._unfinished(p)]
        return sorted(p.name for p in others if p.name[0] != ".")

    def _unfinished(self, path: epath.Path) -> bool:
        """Whether this is what a killed save left."""
        in_place = self._remote and path.name.isdigit() and not (path / _COMMITTED).exists()
        return in_place or _UNFINISHED in path.name

    def _entries(self) -> list[epath.Path]:
        return list(self.directory.iterdir()) if self.directory.exists() else []

    # ---- saving

    def save(
        self,
        step: int,
        state: Any,
        meta: Mapping[str, Any],
        *,
        pin: bool = False,
        beside: Callable[[], object] | None = None,
    ) -> None:
        """Waits for the previous save, then starts this one in the background.

        The state may be donated at once. A previous save that failed is logged and counted: this
        one is its retry. A step that is there already with the same content is left alone.

        Args:
          step: its number.
          state: pytree of jax arrays.
          meta: facts that JSON can hold. `step`, `leaves` and `digest` are added.
          pin: as by `pin`, once it is on disk: a kill leaves the old pin or the new one, and the
            checkpoint it names.
          beside: writes, on process 0 and before anything else, what the checkpoint cannot do
            without; where it fails, the save has failed.

        Raises:
          CheckpointError: the last `max_failures` saves have all failed.
          ValueError: this step is there already with other content.
        """
        error = self._join()
        if error is not None and self._failures >= self.max_failures:
            raise CheckpointError(
                f"{self._failures} checkpoints in a row could not be saved in {self.directory}"
            ) from error
        leaves = manifest.arrays(state)
        sealed = manifest.seal(step, leaves, meta)
        self._sweep()
        if hosts.broadcast_int(step in self.steps()):
            self._same_or_raise(step, sealed)
            if pin:
                self.pin(step)
            return
        filled = {name: x for name, x in leaves.items() if x.size}  # Orbax refuses empty arrays
        self._step, self._to_pin = step, pin
        try:
            if beside is not None:
                hosts.call_on_main(lambda: beside() and None)
            with self._context:
                self._response = ocp.save_checkpointables_async(
                    self.directory / str(step), {"state": filled, "meta": sealed}
                )
        except Exception as e:  # joined, and reported, like one that comes later
            self._error = e

    def needs_retry(self) -> bool:
        """Whether the running save is known to have failed, so that the next step should save.

        True for the first failure only. With several processes always False, since they could not
        agree without waiting: the next regular save hears of it.
        """
        if self._step is None or self._failures or jax.process_count() > 1:
            return False
        if self._response is not None:
            try:
                self._response.result(timeout=0)
            except TimeoutError:  # still running
                return False
            except Exception:
                return True
        return self._error is not None

    def wait(self) -> None:
        """Returns when the running save is on disk.

        Raises:
          CheckpointError: it failed.
        """
        if (error := self._join()) is not None:
            raise CheckpointError(
                f"the last checkpoint was not saved in {self.directory}"
            ) from error

    close = wait

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: Any, *exc: object) -> None:
        if kind is None:
            self.close()
            return
        error = self._error  # no agreement with the other processes now: they may be elsewhere
        try:
            if self._response is not None:
                self._response.result()
        except Exception as e:
            error = e
        if error is not None:
            log.error("the checkpoint of step %s was not saved either: %s", self._step, error)

    def _join(self) -> Exception | None:
        """Ends the running save on all processes; returns its error."""
        if self._step is None:
            return None
        step, error = self._step, self._error
        try:
            if self._response is not None:
                self._response.result()
        except Exception as e:
            error = e
        self._step = self._response = self._error = None
        if not hosts.any_process(error is not None):
            self._failures = 0
            if self._to_pin:
                self._try_to_pin(step)
            self._retire()
            return None
        self._failures += 1
        error = error or CheckpointError("another process could not write its part")
        log.error(
            "the checkpoint of step %d was NOT saved (failure %d in a row): %s: %s",
            step, self._failures, type(error).__name__, error,
        )  # fmt: skip
        self._swept = False  # what it left behind fills the disk
        self._sweep()
        return error

    def _same_or_raise(self, step: int, meta: Meta) -> None:
        there = self._read_meta(step)
        if there["leaves"] != meta["leaves"]:
            raise ValueError(
                f"{self.directory} already has a checkpoint of step {step} with other content; "
                "resume from it, or choose another directory"
            )
        log.info("step %d is saved already", step)

    # ---- keeping and deleting

    def pin(self, step: int | None) -> None:
        """Keeps this step (the best so far) whatever happens to others; it replaces the pin before.
        None: no step is pinned.

        Raises:
          ValueError: there is no such step.
        """
        self.wait()
        if step is not None:
            self._must_exist(step)
        self._write_pin(step)

    def _try_to_pin(self, step: int) -> None:
        try:
            self._write_pin(step)
        except OSError as error:  # a disk that is full; a run that goes on pins its best again
            log.error("checkpoint %d, the best so far, was NOT pinned: %s", step, error)

    def _write_pin(self, step: int | None) -> None:
        if not hosts.is_main():
            return
        if step is None:
            (self.directory / _PINNED).unlink(missing_ok=True)
            return
        store.write(
            store.as_path(self.directory / _PINNED), lambda file: file.write(str(step).encode())
        )

    @property
    def pinned(self) -> int | None:
        """The step that is pinned."""
        path = self.directory / _PINNED
        if not path.exists():
            return None
        text = path.read_bytes().strip()
        if text.isdigit():
            return int(text)
        log.error(
            "%s is damaged (%r): no checkpoint counts as the best until the run goes on, which "
            "pins it again", path, text[:20],
        )  # fmt: skip
        return None

    def set_aside_after(self, step: int) -> None:
        """Renames newer checkpoints to `<step>.aside`: the run takes another path from `step`."""
        if hosts.is_main():
            for newer in self.steps():
                if newer > step:
                    if newer == self.pinned:
                        self._write_pin(None)
                    target = self.directory / f"{newer}.aside"
                    store.move(
                        store.as_path(self.directory / str(newer)),
                        store.as_path(target),
                        _COMMITTED,
                    )
                    log.warning(
                        "continuing from step %d: checkpoint %d is now %s", step, newer, target
                    )
        hosts.barrier("jalign checkpoints set aside")

    def _retire(self) -> None:
        if not hosts.is_main():
            return
        steps = self.steps()
        kept = {*steps[-self.keep :], self.pinned}
        for step in steps:
            if step not in kept and not (self.keep_every and step % self.keep_every == 0):
                _delete(self.directory / str(step))

    def _sweep(self) -> None:
        if self._swept:
            return
        if hosts.is_main():
            if not self._remote:
                self.directory.mkdir(parents=True, exist_ok=True)
            for path in self._entries():
                if _UNFINISHED in path.name or (path.name.isdigit() and not _finished(path)):
                    log.warning("deleting what a killed run left unfinished: %s", path)
                    _delete(path)
        self._swept = True
        hosts.barrier("jalign checkpoints swept")

    # ---- restoring

    def restore(
        self,
        abstract_state: Any,
        step: int | None = None,
        *,
        check: Callable[[Meta], None] = lambda meta: None,
        partial: bool = False,
    ) -> tuple[int, Any, Meta] | None:
        """Loads a checkpoint into the shardings of `abstract_state` and verifies every leaf.

        Args:
          abstract_state: pytree of arrays or `jax.ShapeDtypeStruct`. A leaf without a sharding, or
            on one device where others are on a mesh, is replicated over that mesh.
          step: which. Default: the newest that is intact; each damaged one is reported loudly.
          check: is given the meta of a checkpoint before its arrays are read, and may raise.
          partial: read these leaves of it alone, such as `{"params": params}`.

        Returns:
          (step, state, meta), or None when there is no checkpoint and no other file.

        Raises:
          ValueError: the state has other leaves, shapes or dtypes than the checkpoint, or the step
            does not exist.
          CheckpointError: the step that was asked for is damaged, or all are, or there are files
            and no finished checkpoint.
        """
        self.wait()
        if step is not None:
            self._must_exist(step)
            try:
                return (step, *self._load(step, abstract_state, check, partial))
            except CheckpointError as e:
                others = ", ".join(str(s) for s in self.steps() if s != step) or "none"
                raise CheckpointError(f"{e}; other checkpoints: {others}") from e
        damaged: list[str] = []
        older = self.steps()
        while (candidate := hosts.broadcast_int(older[-1] if older else -1)) >= 0:
            older = [s for s in older if s < candidate]
            try:
                return (candidate, *self._load(candidate, abstract_state, check, partial))
            except CheckpointError as e:
                damaged.append(str(e))
                log.error("CHECKPOINT %d IS DAMAGED, trying the one before it: %s", candidate, e)
        if damaged:
            raise CheckpointError(
                f"no checkpoint is intact: {'; '.join(damaged)}. Put back what is missing or "
                f"damaged in {self.directory} from a copy, or begin afresh in another directory"
            )
        if leftovers := self.leftovers():
            names = ", ".join(leftovers[:5])
            raise CheckpointError(f"{self.directory} has files but no finished checkpoint: {names}")
        return None

    def _must_exist(self, step: int) -> None:
        if step not in (steps := self.steps()):
            there_is = ", ".join(map(str, steps)) or "none"
            raise ValueError(
                f"{self.directory} has no checkpoint of step {step}; there is: {there_is}"
            )

    def leaves(self, step: int) -> dict[str, Any]:
        """Name -> [dtype, shape, checksum] of all that a checkpoint holds."""
        return self._read_meta(step)["leaves"]

    def _read(self, step: int, what: dict[str, Any]) -> dict[str, Any]:
        """Orbax's load; an error on any process is a CheckpointError on all."""
        error, loaded = None, {}
        try:
            with self._context:
                loaded = ocp.load_checkpointables(self.directory / str(step), what)
        except (MemoryError, jax.errors.JaxRuntimeError):  # our lack of memory is no damage
            raise
        except Exception as e:
            error = e
        if hosts.any_process(error is not None):
            reason = (
                f"{type(error).__name__}: {str(error)[:300]}" if error else "on another process"
            )
            raise CheckpointError(f"step {step} cannot be read ({reason})") from error
        return loaded

    def _read_meta(self, step: int) -> Meta:
        meta = self._read(step, {"meta": None})["meta"]
        if not manifest.is_intact(step, meta):
            raise CheckpointError(f"step {step}: meta/ is damaged (its digest does not match)")
        return meta

    def _load(
        self, step: int, abstract_state: Any, check: Callable[[Meta], None], partial: bool
    ) -> tuple[Any, Meta]:
        meta = self._read_meta(step)
        check(meta)
        wanted = manifest.placed(abstract_state)
        saved = {n: leaf for n, leaf in meta["leaves"].items() if not partial or n in wanted}
        manifest.check_fits(step, {"leaves": saved}, wanted)
        filled = {name: x for name, x in wanted.items() if x.size}
        loaded = self._read(step, {"state": filled})["state"]
        leaves = [loaded[name] if x.size else manifest.empty(x) for name, x in wanted.items()]
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)
        found = fingerprint(dict(zip(wanted, leaves, strict=True)))
        bad = [name for name, (_, _, checksum) in saved.items() if found[name] != checksum]
        if bad:
            raise CheckpointError(
                f"step {step}: {len(bad)} of {len(found)} leaves differ from what was saved: "
                + ", ".join(bad[:5])
            )
        return state, meta


def _finished(path: epath.Path) -> bool:
    if store.is_remote(path):  # one question, not eight
        try:
            return {p.name for p in path.iterdir()}.issuperset(_PARTS)
        except FileNotFoundError:  # deleted since it was listed
            return False
    return all((path / part).exists() for part in _PARTS)


def _delete(path: epath.Path) -> None:
    """Deletes the mark of completeness first: after a kill nothing looks whole that is not."""
    try:
        (path / _COMMITTED).unlink(missing_ok=True)
        path.rmtree()
    except Exception as e:  # OSError, or what a store's library raises: it is tried again
        log.error("cannot delete %s: %s", path, e)
