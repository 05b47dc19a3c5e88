"""Exit codes of commands, for people and launchers."""

import enum


class ExitCode(enum.IntEnum):
    """How a run ended. Launchers restart on PREEMPTED and from 127 up (134: a peer died)."""

    OK = 0
    BAD_CONFIG = 2
    BAD_INPUT = 3
    DIVERGED = 4
    CHECKPOINT_FAILED = 5
    NOTHING_LEARNED = 6
    # xpk restarts on 42 and from 127 up unless told otherwise; the usual 75 would stay down.
    PREEMPTED = 42
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.BAD_CONFIG: "a wrong command or config, or a folder of another run",
    ExitCode.BAD_INPUT: "data, a model or a server that cannot be used",
    ExitCode.DIVERGED: "training diverged",
    ExitCode.CHECKPOINT_FAILED: "nothing can be written (disk full), or no checkpoint is intact",
    ExitCode.NOTHING_LEARNED: "no reward came, so nothing was learned",
    ExitCode.PREEMPTED: "told to stop, and saved: the same command goes on",
    ExitCode.INTERRUPTED: "Ctrl-C before anything could be saved, or twice",
}
