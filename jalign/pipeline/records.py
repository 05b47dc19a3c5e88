"""Records of a pipeline's stages on disk.

OUT/.stages/NAME.json has the definition that a stage began with and, once it ended, its duration.
"""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jalign import store
from jalign.options.errors import ConfigError
from jalign.pipeline.stages import Stage, digest


def _version(stage: Stage) -> int | None:
    """Modification time of the file that a stage writes; None without one."""
    # The time is enough: files are replaced in one piece, never edited.
    return stage.out.stat().st_mtime_ns if stage.out.is_file() else None


class Records:
    """Files of the stages of one pipeline."""

    def __init__(self, out: Path, stages: Sequence[Stage]):
        self.folder, self.digests = out / ".stages", {}
        for stage in stages:
            self.digests[stage.name] = digest(stage, self.digests)

    def check(self, stage: Stage) -> None:
        """Raise ConfigError for a stage that began with another definition."""
        record = self._read(stage)
        if not record or record["digest"] == self.digests[stage.name]:
            return
        before, now = record["args"], stage.args
        gone = shlex.join(word for word in before if word not in now)
        new = shlex.join(word for word in now if word not in before)
        if before != now:
            what = f"{gone or 'nothing'} then, {new or 'nothing'} now"
        # The arguments only name the config file; its content can have changed.
        elif record["config"] != stage.config:
            what = "the config file that it names"
        else:
            what = f"what it needs: {', '.join(stage.needs)}"
        state = "ended" if "seconds" in record else "began"
        raise ConfigError(
            f"stage {stage.name} {state} with another definition ({what}): choose another --out, "
            f"or --redo {stage.name}, which deletes what it and the stages that need it wrote"
        )

    def seconds(self, stage: Stage) -> float | None:
        """Duration of a stage that ended; None for others."""
        return self._read(stage).get("seconds")

    def ended_unseen(self, stage: Stage) -> bool:
        """Whether a stage has written its file since it began although no end is recorded: its
        process outlived the pipeline. Files are written at the end, in one piece.
        """
        record, now = self._read(stage), _version(stage)
        begun = bool(record) and "seconds" not in record
        return begun and now is not None and now != record.get("there")

    def begin(self, stage: Stage) -> None:
        self._write(stage, {"there": _version(stage)})

    def end(self, stage: Stage, seconds: float) -> None:
        self._write(stage, {"seconds": round(seconds, 1)})

    def forget(self, stage: Stage) -> None:
        """Delete the output and the record of a stage."""
        if not self._read(stage):  # no record: the pipeline did not write this output
            return
        if stage.out.is_dir():
            shutil.rmtree(stage.out)
        # The journal too, or the stage would resume. The record last: after a kill in between
        # the stage is still known as begun and is forgotten again.
        for path in (stage.out, stage.out.with_name(stage.out.name + ".part"), self._path(stage)):
            path.unlink(missing_ok=True)

    def _path(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name}.json"

    def _read(self, stage: Stage) -> dict[str, Any]:
        path = self._path(stage)
        if not path.exists():
            return {}
        try:
            record = json.loads(path.read_bytes())
            if {"digest", "args", "config"} <= record.keys():
                return record
        except (ValueError, AttributeError):
            pass
        raise ConfigError(
            f"{path} is damaged, so the state of stage {stage.name} is unknown: restore a copy, or "
            "delete it to run the stage again"
        )

    def _write(self, stage: Stage, more: Mapping[str, Any]) -> None:
        definition = {
            "digest": self.digests[stage.name],
            "args": stage.args,
            "config": stage.config,
        }
        path = self._path(stage)
        text = json.dumps({**definition, **more}, indent=2) + "\n"
        store.write(path, lambda file: file.write(text.encode()))
