"""A finished or running run's folder, read back: its config, and its newest state."""

from dataclasses import replace
from pathlib import Path

from jalign.cli import build
from jalign.cli.read import read_config
from jalign.cli.train import CONFIG_FILE
from jalign.config import Config, MeshConfig
from jalign.core import TrainState
from jalign.train.checkpoint import Checkpointer


def is_run(folder: str) -> bool:
    """Whether the folder was made by `jalign train`."""
    return (Path(folder) / CONFIG_FILE).is_file() and (Path(folder) / "checkpoints").is_dir()


def config_of(folder: str) -> Config:
    """The config that a run was started with; its mesh is replaced where it does not fit."""
    if not is_run(folder):
        raise ValueError(f"{folder} is no folder of a run that jalign train wrote")
    config = read_config(["--config", str(Path(folder) / CONFIG_FILE), "--out", folder])
    try:
        build.mesh_of(config)
    except ValueError:
        return replace(config, mesh=MeshConfig())
    return config


def newest(folder: str, step: int | None = None) -> tuple[Config, build.Model, TrainState, int]:
    """Config, model, state and step of a run's newest (or a given) checkpoint."""
    config = config_of(folder)
    mesh = build.mesh_of(config)
    model = build.model_of(config, mesh, build.tokenizer_of(config))
    optimizer, _ = config.optim.make(max(config.steps, config.optim.warmup_steps, 1))
    state, _ = build.state_of(config, model, mesh, optimizer)
    found = Checkpointer(Path(folder) / "checkpoints").restore(state, step)
    if found is None:
        raise ValueError(f"{folder} has no checkpoint")
    return config, model, found[1], found[0]
