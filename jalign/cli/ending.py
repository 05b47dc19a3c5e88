"""Exit codes and one-line error messages of commands."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from jalign.signatures import did_you_mean
from jalign.train.exit_code import ExitCode

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PIPE_CLOSED = 141  # what a shell reports of a command that SIGPIPE ended

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def fail(message: str, code: ExitCode) -> NoReturn:
    """Exit with a line on stderr."""
    print(f"jalign: error: {message}", file=sys.stderr)
    raise SystemExit(int(code))


def log_level() -> str:
    """The log level from JALIGN_LOG; WARNING when it is not set."""
    level = os.environ.get("JALIGN_LOG") or "WARNING"
    if level.upper() not in LEVELS:
        fail(f"JALIGN_LOG: no level {level!r}{did_you_mean(level.upper(), LEVELS)}",
             ExitCode.BAD_CONFIG)  # fmt: skip
    return level.upper()


def end_with(command: Callable[[], int | None]) -> NoReturn:
    """Run a command, and exit with its code or with the code of its error."""
    try:
        code = command()
        sys.stdout.flush()  # raises here for a closed pipe, not while Python shuts down
    except KeyboardInterrupt:
        print("jalign: interrupted", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        discard_output()
        code = PIPE_CLOSED
    except Exception as error:
        if (exit_code := code_of(error)) is None or logging.root.level <= logging.DEBUG:
            raise
        fail(_message(error), exit_code)
    raise SystemExit(int(code or 0))


def code_of(error: BaseException) -> ExitCode | None:
    """The exit code of an error; None for a bug in jalign, which keeps its traceback."""
    from jalign.checkpoint.errors import CheckpointError
    from jalign.checkpoint.resume import ResumeError
    from jalign.options.errors import ConfigError

    if isinstance(error, ConfigError | ResumeError):
        return ExitCode.BAD_CONFIG
    if isinstance(error, CheckpointError) or disk_full(error):
        return ExitCode.CHECKPOINT_FAILED
    if isinstance(error, ValueError | TypeError | OSError):
        return ExitCode.BAD_INPUT
    return None


def disk_full(error: BaseException) -> bool:
    """Whether a disk is full, over its quota, or read-only."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    text = str(error)  # C++ libraries raise their own types, with the system's words
    return any(os.strerror(code) in text for code in _DISK_FULL)


def _message(error: Exception) -> str:
    if not disk_full(error):
        return str(error)
    return (
        f"{error}: nothing more can be written. Free some space, or name another folder; the same "
        "command then resumes"
    )


def discard_output() -> None:
    """Send stdout to /dev/null: its reader is gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())


def exit_at_interrupts() -> None:
    """Exit at once on Ctrl-C, until the command installs a handler of its own.

    Python's KeyboardInterrupt gets lost, or printed, in imports of C extensions. Exiting at once is
    safe: files are written under another name and renamed.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # stays ignored under nohup
        signal.signal(signal.SIGINT, _end_now)


def _end_now(number: int, frame: FrameType | None) -> None:
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h")  # the cursor, which bars hide
    os.write(2, b"jalign: interrupted\n")
    os._exit(ExitCode.INTERRUPTED)
