"""Write model folders atomically: complete or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jalign import store
from jalign.models import hub

LOADABLE = ("config.json", "adapter_config.json")  # without one of them nothing can be loaded
OURS = (
    *("*.safetensors", "*.safetensors.index.json", *LOADABLE, *hub.TOKENIZER),
    *("README.md", "jalign.json", "reward.json"),
)
"""Patterns of the files in a model folder."""

_UNFINISHED = ".unfinished"


def check(out: str, overwrite: bool) -> Path:
    """Return the folder to write if it may be written.

    Raises:
      ValueError: it is a file or in an object store; or it is not empty, and --overwrite is not
        given or it does not hold a model.
    """
    folder = store.local(out, "what is exported")
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise ValueError(f"{out} is a file: name a folder")
    inside = sorted(p.name for p in folder.iterdir() if p.name != _UNFINISHED)
    if not inside:
        return folder
    model = any(name in inside for name in LOADABLE)
    if (folder / "checkpoints").exists():
        raise ValueError(f"{out} is the folder of a run: name another one")
    if not overwrite:
        what = "a model already" if model else f"other files already ({', '.join(inside[:3])})"
        remedy = ", or give --overwrite to replace it" if model else ""
        raise ValueError(f"{out} holds {what}: name another folder{remedy}")
    if not model:
        raise ValueError(f"--overwrite replaces a model, and {out} holds none: {inside[0]}, ...")
    return folder


@contextmanager
def written(out: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder whose files are moved to `out` at the end, `LOADABLE` files last.

    An existing model is replaced; other files stay.
    """
    folder = check(str(out), overwrite)
    # within the folder: a rename is atomic on one file system only
    unfinished = folder / _UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed command
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        # first: a kill from here on leaves a folder that loads as nothing, not as a mixture of two
        for name in LOADABLE:
            (folder / name).unlink(missing_ok=True)
        for file in {file for pattern in OURS for file in folder.glob(pattern)}:
            file.unlink()
        for file in sorted(unfinished.iterdir(), key=lambda file: file.name in LOADABLE):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()
