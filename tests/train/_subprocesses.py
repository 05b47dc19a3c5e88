"""Starts the scripts of this folder."""

import os
import subprocess
import sys
from pathlib import Path

from tests._xla import QUICK

HERE = Path(__file__).parent


def start(script, *arguments, **env):
    """A running script of this folder; its output, errors included, is `.stdout`, line by line."""
    kept = os.environ | {"XLA_FLAGS": QUICK}  # one device is enough
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        env=kept | {"PYTHONPATH": str(HERE.parents[1]), "JAX_PLATFORMS": "cpu"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process, words):
    """The output up to the first line that starts with `words`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(words):
            return "".join(lines)
    raise AssertionError(f"{words!r} never came:\n{''.join(lines)}")


def finish(process):
    """The rest of the output, and the exit code."""
    output, _ = process.communicate(timeout=120)
    return output, process.returncode
