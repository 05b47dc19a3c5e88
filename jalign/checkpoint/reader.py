"""Reading a checkpoint and verifying all of it."""

from __future__ import annotations

from collections.abc import Callable

import jax
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from jalign.checkpoint import manifest
from jalign.checkpoint.errors import CheckpointError
from jalign.checkpoint.fingerprint import fingerprint
from jalign.checkpoint.manifest import Meta
from jalign.parallel import hosts


class Reader:
    """Reads the steps of one directory. Every method is collective: all processes must call it."""

    def __init__(self, directory: epath.Path, context: ocp.Context):
        self.directory, self._context = directory, context

    def read(self, step: int, what: dict[str, PyTree]) -> dict[str, PyTree]:
        """Orbax's load; an error on any process is a CheckpointError on all."""
        error, loaded = None, {}
        try:
            with self._context:
                loaded = ocp.load_checkpointables(self.directory / str(step), what)
        # Out of memory is not corruption: falling back to an older checkpoint would not help.
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as e:
            error = e
        if hosts.any_process(error is not None):
            reason = (
                f"{type(error).__name__}: {str(error)[:300]}" if error else "on another process"
            )
            raise CheckpointError(f"step {step} cannot be read ({reason})") from error
        return loaded

    def meta(self, step: int) -> Meta:
        """The facts stored with a step, checked against their digest."""
        meta = self.read(step, {"meta": None})["meta"]
        if not manifest.is_intact(step, meta):
            raise CheckpointError(f"step {step}: meta/ is damaged (its digest does not match)")
        return meta

    def load(
        self,
        step: int,
        abstract_state: PyTree,
        check: Callable[[Meta], None],
        *,
        partial: bool,
    ) -> tuple[PyTree, Meta]:
        """(state, meta) of a step, every leaf compared with its checksum."""
        meta = self.meta(step)
        check(meta)
        wanted = manifest.placed(abstract_state)
        saved = {n: leaf for n, leaf in meta["leaves"].items() if not partial or n in wanted}
        manifest.check_fits(step, {"leaves": saved}, wanted)
        filled = {name: x for name, x in wanted.items() if x.size}
        loaded = self.read(step, {"state": filled})["state"]
        leaves = [loaded[name] if x.size else manifest.empty(x) for name, x in wanted.items()]
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)
        # After resharding and on the devices: this checks storage, transfer and layout in one go.
        checksums = fingerprint(dict(zip(wanted, leaves, strict=True)))
        bad = [name for name, (_, _, checksum) in saved.items() if checksums[name] != checksum]
        if bad:
            raise CheckpointError(
                f"step {step}: {len(bad)} of {len(checksums)} leaves differ from what was saved: "
                + ", ".join(bad[:5])
            )
        return state, meta
