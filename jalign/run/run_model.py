"""Use a run as a model of another run: SFT, then DPO; a critic initialized from a reward model."""

import hashlib
import sys
from contextlib import nullcontext
from pathlib import Path

import jax

from jalign import store
from jalign.parallel import hosts
from jalign.run import folder as runs
from jalign.run.devices import mesh_of
from jalign.run.export import model_folder
from jalign.run.export.exported import Exported

FOLDER = "models"  # in a run's folder


def named(name: str) -> tuple[str, runs.Which] | None:
    """Parse RUN, RUN@STEP or RUN@best into run and checkpoint; None for any other name."""
    if runs.is_run(name):
        return name, None
    run, at, step = name.rpartition("@")
    return (run, runs.which(step)) if at and runs.is_run(run) else None


def folder_of(run: str, step: runs.Which) -> str:
    """Folder of the run's newest or given checkpoint in Hugging Face's format, in float32 with
    adapters merged; written on first use and kept in the run's folder.
    """
    number = runs.step_of(run, step)
    there = _place(run) / str(number)
    # one process looks for all: an old listing on another would keep it from the collective save
    ready = hosts.broadcast_int((there / "config.json").is_file())
    if not ready:
        options = runs.readable(run, number)
        with jax.set_mesh(mesh_of(options.mesh)):
            # float32, as masters are: the next run starts from the very weights this one ended with
            exported = Exported(runs.weights(run, number).policy(run))
            main = hosts.is_main()
            with model_folder.written(there) if main else nullcontext(there) as out:
                exported.write_model(out, str(there), "float32", 1.0)
        if main:
            print(f"jalign: step {number} of {run} as a model: {there}", file=sys.stderr)
    hosts.barrier("jalign run as a model")
    # the file that is written last: a killed export has none
    if not (there / "config.json").is_file():
        raise ValueError(f"{run} must be in a folder that all processes share")
    return str(there)


def _place(run: str) -> Path:
    """A local folder even for a run in a bucket: models are read from memory-mapped files."""
    if not store.is_remote(run):
        return Path(run) / FOLDER
    return (
        Path.home() / ".cache" / "jalign" / FOLDER / hashlib.sha256(run.encode()).hexdigest()[:16]
    )
