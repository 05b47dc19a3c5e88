"""The directory of checkpoints as files: which steps are complete, which is pinned, what to delete.

Every operation may be killed half-way. So a step counts only if its commit mark is there, the mark
is the last thing written and the first thing deleted, and everything unmarked is garbage.
"""

from __future__ import annotations

import logging

from etils import epath

from jalign import store
from jalign.parallel import hosts

log = logging.getLogger(__name__)

COMMITTED = "commit_success.txt"
_CONTENTS = (COMMITTED, "_CHECKPOINT_METADATA", "meta", "state")
_TEMPORARY = ".orbax-checkpoint-tmp"  # in the name of a directory that Orbax has not renamed yet
_PINNED = "pinned"


class StepFolders:
    """The steps in one directory, local or in an object store; only process 0 changes it."""

    def __init__(self, directory: epath.Path, *, remote: bool):
        self.directory, self.remote = directory, remote
        self._swept = False

    def steps(self) -> list[int]:
        """The complete checkpoints, oldest first."""
        return sorted(int(p.name) for p in self._entries() if p.name.isdigit() and _is_complete(p))

    def leftovers(self) -> list[str]:
        """Names of what is neither a complete checkpoint nor an unfinished save."""
        complete = {str(s) for s in self.steps()}
        others = [p for p in self._entries() if p.name not in complete and not self._unfinished(p)]
        return sorted(p.name for p in others if p.name[0] != ".")

    def _unfinished(self, path: epath.Path) -> bool:
        """Whether a killed save left this."""
        # Object stores cannot rename, so Orbax writes in place there and the mark alone decides.
        in_place = self.remote and path.name.isdigit() and not (path / COMMITTED).exists()
        return in_place or _TEMPORARY in path.name

    def _entries(self) -> list[epath.Path]:
        return list(self.directory.iterdir()) if self.directory.exists() else []

    @property
    def pinned(self) -> int | None:
        """The pinned step."""
        path = self.directory / _PINNED
        if not path.exists():
            return None
        text = path.read_bytes().strip()
        if text.isdigit():
            return int(text)
        log.error(
            "%s is damaged (%r): no checkpoint counts as the best until the run is resumed, which "
            "pins it again", path, text[:20],
        )  # fmt: skip
        return None

    def write_pin(self, step: int | None) -> None:
        """Pin this step instead of the one before; None: no step."""
        if not hosts.is_main():
            return
        path = self.directory / _PINNED
        if step is None:
            path.unlink(missing_ok=True)
        else:
            store.write(store.as_path(path), lambda file: file.write(str(step).encode()))

    def set_aside_after(self, step: int) -> None:
        """Rename newer checkpoints to `<step>.aside`."""
        if hosts.is_main():
            for newer in self.steps():
                if newer <= step:
                    continue
                if newer == self.pinned:
                    self.write_pin(None)
                target = self.directory / f"{newer}.aside"
                source = store.as_path(self.directory / str(newer))
                store.move(source, store.as_path(target), COMMITTED)
                log.warning("continuing from step %d: checkpoint %d is now %s", step, newer, target)
        hosts.barrier("jalign checkpoints set aside")

    def delete_old(self, keep: int, keep_every: int | None) -> None:
        """Delete all but the newest `keep`, the pinned one and multiples of `keep_every`."""
        if not hosts.is_main():
            return
        steps = self.steps()
        kept = {*steps[-keep:], self.pinned}
        for step in steps:
            if step not in kept and not (keep_every and step % keep_every == 0):
                _delete(self.directory / str(step))

    def sweep(self, *, again: bool = False) -> None:
        """Once per process, or `again`: make the directory and delete unfinished saves."""
        if self._swept and not again:
            return
        if hosts.is_main():
            if not self.remote:
                self.directory.mkdir(parents=True, exist_ok=True)
            for path in self._entries():
                if _TEMPORARY in path.name or (path.name.isdigit() and not _is_complete(path)):
                    log.warning("deleting what a killed run left unfinished: %s", path)
                    _delete(path)
        self._swept = True
        hosts.barrier("jalign checkpoints swept")


def _is_complete(path: epath.Path) -> bool:
    if store.is_remote(path):  # one listing costs one request; four `exists` cost eight
        try:
            return {p.name for p in path.iterdir()}.issuperset(_CONTENTS)
        except FileNotFoundError:  # deleted since it was listed
            return False
    return all((path / name).exists() for name in _CONTENTS)


def _delete(path: epath.Path) -> None:
    """Delete a step, the commit mark first: after a kill the rest does not look complete."""
    try:
        (path / COMMITTED).unlink(missing_ok=True)
        path.rmtree()
    except Exception as e:  # OSError, or what a store's library raises; the next save tries again
        log.error("cannot delete %s: %s", path, e)
