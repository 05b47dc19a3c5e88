"""What a pipeline knows of its stages from earlier lives.

OUT/.stages/NAME.json says with which definition a stage began and, once it ended, how long it took.
"""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jalign import store
from jalign.config.read import ConfigError
from jalign.pipeline.stages import Stage, digest


def _version(stage: Stage) -> int | None:
    """Of the file that a stage writes; None where there is none."""
    return stage.out.stat().st_mtime_ns if stage.out.is_file() else None


class Records:
    """Files of the stages of one pipeline."""

    def __init__(self, out: Path, stages: Sequence[Stage]):
        self.folder, self.digests = out / ".stages", {}
        for stage in stages:
            self.digests[stage.name] = digest(stage, self.digests)

    def check(self, stage: Stage) -> None:
        """That a stage which began still is what it was.

        Raises:
          ConfigError: it has another definition now.
        """
        found = self._read(stage)
        if not found or found["digest"] == self.digests[stage.name]:
            return
        before, now = found["args"], stage.args
        gone = shlex.join(word for word in before if word not in now)
        new = shlex.join(word for word in now if word not in before)
        if before != now:
            what = f"{gone or 'nothing'} then, {new or 'nothing'} now"
        elif found["config"] != stage.config:
            what = "the config file that it names"
        else:
            what = f"what it needs: {', '.join(stage.needs)}"
        state = "ended" if "seconds" in found else "began"
        raise ConfigError(
            f"stage {stage.name} {state} with another definition ({what}): choose another --out, "
            f"or --redo {stage.name}, which deletes what it and the stages that need it wrote"
        )

    def seconds(self, stage: Stage) -> float | None:
        """How long a stage took that ended; None for others."""
        return self._read(stage).get("seconds")

    def ended_unseen(self, stage: Stage) -> bool:
        """Whether a stage that writes one file, whole at its end, has done so since it began: its
        process outlived that of the pipeline.
        """
        found, now = self._read(stage), _version(stage)
        begun = bool(found) and "seconds" not in found
        return begun and now is not None and now != found.get("there")

    def begin(self, stage: Stage) -> None:
        self._write(stage, {"there": _version(stage)})

    def end(self, stage: Stage, seconds: float) -> None:
        self._write(stage, {"seconds": round(seconds, 1)})

    def forget(self, stage: Stage) -> None:
        """Delete what a stage wrote, and what is known of it."""
        if not self._read(stage):  # then nothing of it is ours
            return
        if stage.out.is_dir():
            shutil.rmtree(stage.out)
        for path in (stage.out, stage.out.with_name(stage.out.name + ".part"), self._path(stage)):
            path.unlink(missing_ok=True)

    def _path(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name}.json"

    def _read(self, stage: Stage) -> dict[str, Any]:
        path = self._path(stage)
        if not path.exists():
            return {}
        try:
            found = json.loads(path.read_bytes())
            if {"digest", "args", "config"} <= found.keys():
                return found
        except (ValueError, AttributeError):
            pass
        raise ConfigError(
            f"{path} is damaged, and with it what is known of stage {stage.name}: put back a copy, "
            "or delete it, and the stage runs once more"
        )

    def _write(self, stage: Stage, more: Mapping[str, Any]) -> None:
        known = {"digest": self.digests[stage.name], "args": stage.args, "config": stage.config}
        path = self._path(stage)
        text = json.dumps({**known, **more}, indent=2) + "\n"
        store.write(path, lambda file: file.write(text.encode()))
