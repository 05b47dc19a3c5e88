"""How commands end when something outside of them goes wrong: with a line and a code, no traceback.

Real processes, one second each: they are told what they must not do before they load a model.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from jalign.cli.ending import code_of
from jalign.train.exit_code import ExitCode

JALIGN = [sys.executable, "-m", "jalign"]


def start(*args, **options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*JALIGN, *args], **pipes | options)


def test_a_closed_pipe_ends_a_command_quietly():
    process = start("algorithms")
    assert process.stdout is not None
    process.stdout.close()  # before anything is printed
    process.stdout = None
    _, err = process.communicate()
    assert process.returncode == 141 and err == ""


def test_an_unknown_log_level_is_refused_with_the_nearest():
    said = start("algorithms", env=os.environ | {"JALIGN_LOG": "debg"})
    out, err = said.communicate()
    assert said.returncode == 2 and out == ""
    assert err == "jalign: error: JALIGN_LOG: no level 'debg'; did you mean 'DEBUG'?\n"


@pytest.mark.parametrize("after_s", [0.3, 1.5])
def test_ctrl_c_in_the_first_seconds_is_one_line(after_s, tmp_path):
    """While it imports, and while it loads."""
    process = start("train", "--algorithm.name", "dpo", "--out", str(tmp_path / "run"))
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "jalign: interrupted\n"


def test_a_disk_that_is_full_read_only_or_over_its_quota_is_no_bad_input():
    full = (OSError(28, "No space left on device"), OSError(122, "Disk quota exceeded"))
    full += (OSError(30, "Read-only file system", "runs/a"),)
    full += (RuntimeError("I/O error: No space left on device (os error 28)"),)  # as Rust says it
    assert {code_of(error) for error in full} == {ExitCode.CHECKPOINT_FAILED}
    assert code_of(FileNotFoundError(2, "No such file or directory")) == ExitCode.BAD_INPUT
    assert code_of(RuntimeError("something else")) is None
