"""How a command ends: with one line and a code, whatever went wrong."""

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

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def fail(message: str, code: ExitCode) -> NoReturn:
    """End with a line on stderr."""
    print(f"jalign: error: {message}", file=sys.stderr)
    raise SystemExit(int(code))


def log_level() -> str:
    """Of the log, from JALIGN_LOG; another than Python's is refused."""
    level = os.environ.get("JALIGN_LOG") or "WARNING"
    if level.upper() not in LEVELS:
        fail(f"JALIGN_LOG: no level {level!r}{did_you_mean(level.upper(), LEVELS)}",
             ExitCode.BAD_CONFIG)  # fmt: skip
    return level.upper()


def ended(command: Callable[[], int | None]) -> NoReturn:
    """Run a command, and end the process with its code or with that of its error."""
    try:
        code = command()
        sys.stdout.flush()  # a closed pipe is heard of here, not when Python ends
    except KeyboardInterrupt:
        print("jalign: interrupted", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        silence()
        code = PIPE_CLOSED
    except Exception as error:
        if (known := code_of(error)) is None or logging.root.level <= logging.DEBUG:
            raise
        fail(_words(error), known)
    raise SystemExit(int(code or 0))


def code_of(error: BaseException) -> ExitCode | None:
    """What an error ends with; None: it is ours, and nobody expected it."""
    from jalign.checkpoint.errors import CheckpointError
    from jalign.checkpoint.resume import ResumeError
    from jalign.config.read import ConfigError

    if isinstance(error, ConfigError | ResumeError):
        return ExitCode.BAD_CONFIG
    if isinstance(error, CheckpointError) or no_room(error):
        return ExitCode.CHECKPOINT_FAILED
    if isinstance(error, ValueError | TypeError | OSError):
        return ExitCode.BAD_INPUT
    return None


def no_room(error: BaseException) -> bool:
    """Whether a disk is full, over its quota, or read-only; libraries that are not Python's say so
    in words only.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    text = str(error)
    return any(os.strerror(code) in text for code in _NO_ROOM)


def _words(error: Exception) -> str:
    if not no_room(error):
        return str(error)
    return (
        f"{error}: nothing more can be written. Make room, or name another place; the same command "
        "goes on where it can"
    )


def silence() -> None:
    """Nobody reads what is printed any more: let it go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def hear_interrupts() -> None:
    """Ctrl-C ends the process at once, with a line, until the command hears it by itself. Python's
    KeyboardInterrupt would get lost in imports of modules that are written in C, or be printed by
    them; and what commands write is never half of a thing.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _end_now)


def _end_now(number: int, frame: FrameType | None) -> None:
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h")  # the cursor, which bars hide
    os.write(2, b"jalign: interrupted\n")
    os._exit(ExitCode.INTERRUPTED)
