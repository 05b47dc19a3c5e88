"""A finished or running run's folder, read back: its config, and its newest state."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from flax import nnx
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from jalign import store
from jalign.algorithms import ALGORITHMS
from jalign.cli import build
from jalign.cli.read import read_config
from jalign.config import Config, MeshConfig
from jalign.core import Algorithm, TrainState, did_you_mean
from jalign.data.chat import load_tokenizer
from jalign.models import hub
from jalign.models.decoder import Decoder
from jalign.rewards.model import RewardModel
from jalign.train.checkpoint import Checkpointer

CONFIG_FILE = "config.json"
STEP_HELP = "which checkpoint of a run: its step, or best (what stop.metric kept); the newest"

Which = int | Literal["best"] | None
"""A checkpoint of a run; None is the newest."""


def which(text: str | None) -> Which:
    """What --step says."""
    if text is None or text == "best":
        return text
    if not text.isdecimal():
        near = did_you_mean(text, ["best"])
        raise ValueError(f"--step must be the step of a checkpoint, or best, got {text!r}{near}")
    return int(text)


def is_run(folder: str) -> bool:
    """Whether the folder was made by `jalign train`."""
    path = store.at(folder)
    return (path / CONFIG_FILE).is_file() and (path / "checkpoints").is_dir()


def config_of(folder: str) -> Config:
    """The config that a run was started with; its mesh is replaced where it does not fit."""
    if not is_run(folder):
        raise ValueError(f"{folder} is no folder of a run that jalign train wrote")
    with TemporaryDirectory() as copy:
        file = store.at(folder) / CONFIG_FILE
        if store.is_remote(folder):
            there, file = file, Path(copy) / CONFIG_FILE
            file.write_bytes(there.read_bytes())
        config = read_config(["--config", str(file), "--out", folder])
    try:
        build.mesh_of(config)
    except ValueError:
        return replace(config, mesh=MeshConfig())
    return config


def newest(
    folder: str, step: Which = None, beside: build.Bare | None = None
) -> tuple[Config, build.Model, TrainState, int]:
    """Config, model, state and step of a run's newest (or a given, or its best) checkpoint;
    adapters may stand on frozen weights that are there already.
    """
    config = config_of(folder)
    checkpoints = Checkpointer(store.at(folder) / "checkpoints")
    if step == "best":
        step = checkpoints.pinned
        if step is None:
            raise ValueError(
                f"{folder} keeps no best checkpoint: it was trained without stop.metric, or was "
                "never better than before its first step"
            )
    mesh = build.mesh_of(config)
    model = build.model_of(config, mesh, build.tokenizer_of(config), beside)
    optimizer, _ = config.optim.make(max(config.steps, config.optim.warmup_steps, 1))
    state, _ = build.state_of(config, model, mesh, optimizer)
    found = checkpoints.restore(state, step)
    if found is None:
        raise ValueError(f"{folder} has no checkpoint")
    return config, model, found[1], found[0]


def language_model(
    name: str, mesh: Mesh | None = None, step: Which = None
) -> tuple[Decoder, PreTrainedTokenizerBase, str]:
    """The model of a run's newest (or a given) checkpoint, of a folder or hub name, or of the
    package; its tokenizer; and where it was loaded from.
    """
    if is_run(name):
        _, model, state, _ = newest(name, step)
        return nnx.merge(*build.merged(model, state.params)), model.tokenizer, model.path
    path = build.model_path(name)
    model = hub.load(path, dtype=build.compute_dtype("auto"), mesh=mesh)
    return model, load_tokenizer(path), path


def reward_model(
    name: str, mesh: Mesh | None = None, beside: build.Bare | None = None
) -> RewardModel:
    """The reward model of a run's newest checkpoint, of a folder that jalign export wrote, or of
    any sequence-classification model with one label.
    """
    if is_run(name):
        config, model, state, step = newest(name, beside=beside)
        scorer = reward_of(config, model, state)
        scorer.step = step
        return scorer
    return RewardModel.load(name, dtype=build.compute_dtype("auto"), mesh=mesh)


def process_model(name: str) -> RewardModel:
    """The process reward model of a run's newest checkpoint, for `rewards.process`."""
    row = build.algorithm_of(config_of(name))
    if row.format.name != "stepwise":
        rows = ", ".join(r.name for r in ALGORITHMS.values() if r.format.name == "stepwise")
        raise ValueError(
            f"{name} is no process reward model: {row.name} trains no reward of steps; this does: "
            f"{rows}"
        )
    config, model, state, step = newest(name)
    scorer = _model_of(config, model, state)
    scorer.step = step
    return scorer


def reward_of(config: Config, model: build.Model, state: TrainState) -> RewardModel:
    """The reward model of this state, with the limits of its training data."""
    if not scores_responses(build.algorithm_of(config)):
        rows = ", ".join(row.name for row in ALGORITHMS.values() if scores_responses(row))
        raise ValueError(
            f"{config.out} is no reward model: {config.algorithm['name']} trains no reward of a "
            f"whole response; these do: {rows}"
        )
    return _model_of(config, model, state)


def _model_of(config: Config, model: build.Model, state: TrainState) -> RewardModel:
    return RewardModel(
        build.merged(model, state.params),
        model.tokenizer,
        max_prompt_len=config.data.max_prompt_len,
        max_response_len=config.data.max_response_len,
        keep_eos=config.data.keep_eos,
        template=config.data.template,
    )


def scores_responses(row: Algorithm) -> bool:
    """Whether a row trains one reward per response, read at its last token: not one per token, per
    step or per attribute, nor one that is read off two responses in one prompt.
    """
    return row.format.name != "joint" and bool({"scores", "chosen_scores"} & set(row.inputs()))
