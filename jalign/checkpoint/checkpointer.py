"""Checkpoints that survive kill -9, full disks and flipped bits.

Orbax (its V1 API) writes the arrays in the background, sharded, and readable on another mesh. It
writes into a temporary directory and renames it when complete (in an object store: in place, with a
mark as the last object), which this package relies on. What Orbax lacks is here: checksums of the
data, retention that can be killed half-way, errors of a background save that cannot be missed, and
falling back to an older checkpoint when the newest is damaged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from os import PathLike
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from jalign import store
from jalign.checkpoint import manifest, orbax_s3
from jalign.checkpoint.errors import CheckpointError
from jalign.checkpoint.manifest import Facts, Meta
from jalign.checkpoint.reader import Reader
from jalign.checkpoint.step_folders import StepFolders
from jalign.parallel import hosts

log = logging.getLogger(__name__)


class Checkpointer:
    """The checkpoints of one run: one directory per step.

    With several processes every method is collective. Reading never changes the directory;
    unfinished saves and deletions of a killed run are removed by the first save.

    Args:
      directory: shared by all processes; created by the first save. A folder, gs:// or s3://.
      keep: how many of the newest steps to keep. During a save there is one more on disk.
      keep_every: also keep steps divisible by this.
      max_failures: this many failed saves in a row are an error.
      timeout_s: after this time a process stops waiting for the others' part of a save.
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
        limits = {"keep": keep, "keep_every": keep_every, "max_failures": max_failures}
        for name, value in limits.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.directory = epath.Path(store.as_path(directory))
        remote = store.is_remote(directory)
        if not remote:  # epath would look for gs:// below the working directory
            self.directory = self.directory.expanduser().absolute()
        if str(self.directory).startswith("s3://"):
            orbax_s3.install()
        self.keep, self.keep_every, self.max_failures = keep, keep_every, max_failures
        self._context = _orbax_context(remote, timeout_s)
        self._folders = StepFolders(self.directory, remote=remote)
        self._reader = Reader(self.directory, self._context)
        self._step: int | None = None  # of the save that was started and not joined
        self._pin_step = False  # whether to pin that step once it is on disk
        self._response: ocp.AsyncResponse[None] | None = None
        self._error: Exception | None = None
        self._failures = 0

    def steps(self) -> list[int]:
        """The complete checkpoints, oldest first."""
        return self._folders.steps()

    def leftovers(self) -> list[str]:
        """What is in the directory besides complete checkpoints and unfinished saves."""
        return self._folders.leftovers()

    # ---- saving

    def save(
        self,
        step: int,
        state: PyTree,
        meta: Facts,
        *,
        pin: bool = False,
        beside: Callable[[], object] | None = None,
    ) -> None:
        """Wait for the previous save, then start this one in the background.

        The state may be donated at once. A previous save that failed is logged and counted; this
        one is its retry. A step that was saved before with the same content is skipped.

        Args:
          step: its number.
          state: pytree of jax arrays.
          meta: JSON-serializable facts. `step`, `leaves` and `digest` are added.
          pin: pin the step once it is on disk: a kill leaves the old pin or the new one, and the
            checkpoint it names.
          beside: writes a file that the checkpoint needs, on process 0 and before anything else;
            if it raises, the save has failed.

        Raises:
          CheckpointError: the last `max_failures` saves have all failed.
          ValueError: this step was saved before with other content.
        """
        error = self._join()
        if error is not None and self._failures >= self.max_failures:
            raise CheckpointError(
                f"{self._failures} checkpoints in a row could not be saved in {self.directory}"
            ) from error
        leaves = manifest.arrays(state)
        sealed = manifest.seal(step, leaves, meta)
        self._folders.sweep()
        if hosts.broadcast_int(step in self.steps()):
            self._same_or_raise(step, sealed)
            if pin:
                self.pin(step)
            return
        filled = {name: x for name, x in leaves.items() if x.size}  # Orbax refuses empty ones
        self._step, self._pin_step = step, pin
        try:
            if beside is not None:
                hosts.call_on_main(lambda: beside() and None)
            with self._context:
                self._response = ocp.save_checkpointables_async(
                    self.directory / str(step), {"state": filled, "meta": sealed}
                )
        except Exception as e:  # reported by `_join`, like one of the background
            self._error = e

    def needs_retry(self) -> bool:
        """Whether the running save is known to have failed, so that the next step should save.

        True for the first failure only. Always False with several processes, which could not agree
        without waiting: there the next regular save is the retry.
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
        """Return when the running save is on disk.

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
        # Not `_join`: that is collective, and the other processes may not get here.
        error = self._error
        try:
            if self._response is not None:
                self._response.result()
        except Exception as e:
            error = e
        if error is not None:
            log.error("the checkpoint of step %s was not saved either: %s", self._step, error)

    def _join(self) -> Exception | None:
        """End the running save on all processes; return its error."""
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
            if self._pin_step:
                self._try_to_pin(step)
            self._folders.delete_old(self.keep, self.keep_every)
            return None
        self._failures += 1
        error = error or CheckpointError("another process could not write its part")
        log.error(
            "the checkpoint of step %d was NOT saved (failure %d in a row): %s: %s",
            step, self._failures, type(error).__name__, error,
        )  # fmt: skip
        self._folders.sweep(again=True)  # what the failed save left behind fills the disk
        return error

    def _same_or_raise(self, step: int, meta: Meta) -> None:
        saved = self._reader.meta(step)
        if saved["leaves"] != meta["leaves"]:
            raise ValueError(
                f"{self.directory} already has a checkpoint of step {step} with other content; "
                "resume from it, or choose another directory"
            )
        log.info("step %d is saved already", step)

    # ---- keeping and deleting

    def pin(self, step: int | None) -> None:
        """Keep this step (the best so far) instead of the one pinned before; None unpins.

        Raises:
          ValueError: there is no such step.
        """
        self.wait()
        if step is not None:
            self._must_exist(step)
        self._folders.write_pin(step)

    def _try_to_pin(self, step: int) -> None:
        try:
            self._folders.write_pin(step)
        except OSError as error:  # such as a full disk; a resumed run pins its best again
            log.error("checkpoint %d, the best so far, was NOT pinned: %s", step, error)

    @property
    def pinned(self) -> int | None:
        """The pinned step."""
        return self._folders.pinned

    def set_aside_after(self, step: int) -> None:
        """Rename newer checkpoints to `<step>.aside`: the run takes another path from `step`."""
        self._folders.set_aside_after(step)

    # ---- restoring

    def restore(
        self,
        abstract_state: PyTree,
        step: int | None = None,
        *,
        check: Callable[[Meta], None] = lambda meta: None,
        partial: bool = False,
    ) -> tuple[int, PyTree, Meta] | None:
        """Load a checkpoint into the shardings of `abstract_state` and verify every leaf.

        Args:
          abstract_state: pytree of arrays or `jax.ShapeDtypeStruct`. A leaf without a sharding, or
            on one device where others are on a mesh, is replicated over that mesh.
          step: default: the newest intact one; each damaged one is logged as an error.
          check: called with the meta of a checkpoint before its arrays are read; may raise.
          partial: load only the leaves of `abstract_state`, such as `{"params": params}`.

        Returns:
          (step, state, meta), or None if there is neither a checkpoint nor another file.

        Raises:
          ValueError: the state has other leaves, shapes or dtypes than the checkpoint, or the step
            does not exist.
          CheckpointError: the requested step is damaged, or all are, or there are files but no
            complete checkpoint.
        """
        self.wait()
        if step is not None:
            self._must_exist(step)
            try:
                return (step, *self._reader.load(step, abstract_state, check, partial=partial))
            except CheckpointError as e:
                others = ", ".join(str(s) for s in self.steps() if s != step) or "none"
                raise CheckpointError(f"{e}; other checkpoints: {others}") from e
        damaged: list[str] = []
        older = self.steps()
        # Process 0 decides: a shared file system may show its processes different listings.
        while (candidate := hosts.broadcast_int(older[-1] if older else -1)) >= 0:
            older = [s for s in older if s < candidate]
            try:
                loaded = self._reader.load(candidate, abstract_state, check, partial=partial)
                return (candidate, *loaded)
            except CheckpointError as e:
                damaged.append(str(e))
                log.error("CHECKPOINT %d IS DAMAGED, trying the one before it: %s", candidate, e)
        if damaged:
            raise CheckpointError(
                f"no checkpoint is intact: {'; '.join(damaged)}. Put back what is missing or "
                f"damaged in {self.directory} from a copy, or start fresh in another directory"
            )
        if leftovers := self.leftovers():
            names = ", ".join(leftovers[:5])
            raise CheckpointError(f"{self.directory} has files but no complete checkpoint: {names}")
        return None

    def _must_exist(self, step: int) -> None:
        if step not in (steps := self.steps()):
            saved = ", ".join(map(str, steps)) or "none"
            raise ValueError(
                f"{self.directory} has no checkpoint of step {step}; saved steps: {saved}"
            )

    def leaves(self, step: int) -> dict[str, list]:
        """Name -> [dtype, shape, checksum] of every leaf of a checkpoint."""
        return self._reader.meta(step)["leaves"]


def _orbax_context(remote: bool, timeout_s: int) -> ocp.Context:
    registry = ocp.handlers.local_registry()
    registry.add(ocp.handlers.JsonHandler, checkpointable_name="meta")
    context = ocp.Context()
    context.checkpointables.registry = registry
    # Orbax would refuse a state with fewer leaves than were saved; `manifest.check_fits` knows
    # which may be missing, and names them.
    context.pytree.loading.partial_load = True
    context.asynchronous.timeout_secs = timeout_s
    # The devices that hold copies of an array share its writing by slices of it, and XLA compiles
    # every slice: seconds that arrays below this size do not win back.
    context.array.saving.min_slice_bytes_for_replica_parallel = 2**20
    if remote:  # renaming an object means copying it
        context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    return context
