"""Run named commands one after another within a time budget, and go on in a later call.

A folder keeps `check.json` (what every part printed), `check.md` (the same as a table) and
`check.log` (all output). A part is a command in a process of its own, so that none can end another.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jalign.bench.parts_table import markdown

SHORTEST_S = 10.0  # a part that would have less is left for the next call
ERROR_LINES = 12

Result = dict[str, Any]
"""command, status (ok | failed | timeout), exit_code (None: stopped), seconds, figures, error."""


@dataclass(frozen=True)
class Part:
    """A command with a name and the most seconds it may take."""

    name: str
    limit_s: float
    command: tuple[str, ...]

    @staticmethod
    def of(line: str) -> Part:
        """The part of `NAME SECONDS COMMAND ...`, quoted as in a shell.

        Raises:
          ValueError: the line has another form.
        """
        words = shlex.split(line)
        if len(words) < 3 or not words[1].isdigit():
            raise ValueError(f"a part is NAME SECONDS COMMAND ..., got {line!r}")
        return Part(words[0], float(words[1]), tuple(words[2:]))


def run(parts: Sequence[Part], folder: Path, seconds: float) -> Iterator[tuple[Part, Result]]:
    """Run what has not ended well yet, parts without a result first; yield each result.

    Args:
      seconds: of the whole call: the last part is stopped then, further ones are left out.

    Raises:
      ValueError: two parts have one name.
    """
    if len({part.name for part in parts}) < len(parts):
        raise ValueError("every part needs a name of its own")
    folder.mkdir(parents=True, exist_ok=True)
    end, results = time.monotonic() + seconds, read(folder)
    for part in missing(parts, results):
        left = end - time.monotonic()
        if left < min(SHORTEST_S, part.limit_s):
            return
        result = _run(part, min(part.limit_s, left), folder / "check.log")
        results[part.name] = result
        _write(folder, parts, results)
        yield part, result


def missing(parts: Sequence[Part], results: dict[str, Result]) -> list[Part]:
    """The parts that have not ended well with this command, those never run first."""

    def tried(part: Part) -> bool:
        return results.get(part.name, {}).get("command") == shlex.join(part.command)

    left = [p for p in parts if not tried(p) or results[p.name]["status"] != "ok"]
    return sorted(left, key=tried)


def read(folder: Path) -> dict[str, Result]:
    """The results of earlier calls by name.

    Raises:
      ValueError: check.json is damaged.
    """
    path = folder / "check.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["parts"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to start again") from error


def _run(part: Part, limit_s: float, log: Path) -> Result:
    begin = time.monotonic()
    try:
        # a group of its own: at the limit its children are stopped, too
        process = subprocess.Popen(
            part.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    except OSError as error:
        return _result(part, "failed", None, 0.0, str(error))
    try:
        output, status = process.communicate(timeout=limit_s)[0], ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, status = process.communicate()[0], "timeout"
    except BaseException:  # Ctrl-C: nothing may keep the device
        os.killpg(process.pid, signal.SIGKILL)
        raise
    text = output.decode(errors="replace")
    with log.open("a", encoding="utf-8") as file:
        file.write(f"+ {shlex.join(part.command)}\n{text}\n")
    code = None if status else process.returncode
    status = status or ("failed" if code else "ok")
    return _result(part, status, code, time.monotonic() - begin, text)


def _result(part: Part, status: str, code: int | None, seconds: float, text: str) -> Result:
    lines = text.strip().splitlines()
    return {
        "command": shlex.join(part.command),
        "status": status,
        "exit_code": code,
        "seconds": round(seconds, 1),
        "figures": figures(text),
        "error": "" if status == "ok" else "\n".join(lines[-ERROR_LINES:]),
    }


def figures(text: str) -> dict[str, Any]:
    """The last JSON object in the output that begins a line; {} if there is none."""
    lines = text.splitlines()
    for i in reversed(range(len(lines))):
        if lines[i].startswith("{"):
            try:
                return json.JSONDecoder().raw_decode("\n".join(lines[i:]))[0]
            except ValueError:
                continue
    return {}


def _write(folder: Path, parts: Sequence[Part], results: dict[str, Result]) -> None:
    # replaced in one move: a call that is killed here leaves the results of before
    new = folder / "check.json.new"
    new.write_text(json.dumps({"parts": results}, indent=1) + "\n", encoding="utf-8")
    new.replace(folder / "check.json")
    table = markdown([part.name for part in parts], results)
    (folder / "check.md").write_text(table, encoding="utf-8")
