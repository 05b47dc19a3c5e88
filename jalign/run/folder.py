"""Read a run directory: its config, checkpoints and trained models."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree
from transformers import PreTrainedTokenizerBase

from jalign import algorithms, store
from jalign.algorithms import ALGORITHMS
from jalign.checkpoint.checkpointer import Checkpointer
from jalign.core import TrainState, did_you_mean
from jalign.data.chat import load_tokenizer
from jalign.data.templates import template_source
from jalign.models import hub
from jalign.models.adapters import peft
from jalign.models.decoder import Decoder
from jalign.options import MeshConfig, RunOptions
from jalign.options.renamed import with_new_keys
from jalign.parallel import hosts
from jalign.rewards.model import RewardModel
from jalign.run.decoders import FrozenBase, Source
from jalign.run.devices import compute_dtype, mesh_of
from jalign.run.files import CHECKPOINTS, CONFIG_FILE, ROLLOUTS, is_run
from jalign.run.policy import Policy, model_path, tokenizer_of
from jalign.run.roles import Roles, initial_state, load_roles

log = logging.getLogger(__name__)

STEP_HELP = "which checkpoint of a run: its step, or best (what stop.metric kept); the newest"

Which = int | Literal["best"] | None
"""A checkpoint of a run; None is the newest."""


def which(text: str | None) -> Which:
    """Parse the value of --step."""
    if text is None or text == "best":
        return text
    if not text.isdecimal():
        near = did_you_mean(text, ["best"])
        raise ValueError(f"--step must be the step of a checkpoint, or best, got {text!r}{near}")
    return int(text)


def options_of(folder: str) -> RunOptions:
    """The options of a run; a mesh that these devices cannot form is replaced by the default.

    Raises:
      ValueError: the folder is not a run directory, or its config.json is damaged.
    """
    return _options_from(_saved(folder), folder)


def _saved(folder: str) -> dict[str, Any]:
    if not is_run(folder):
        raise ValueError(f"{folder} is no folder of a run that jalign train wrote")
    file = store.as_path(folder) / CONFIG_FILE
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged ({error}): jalign train, with the run's own config and --out, "
            "writes it again"
        ) from error


@contextmanager
def config_file(folder: str) -> Iterator[Path]:
    """A local copy of the run's config.json; the run may be in a bucket."""
    with TemporaryDirectory() as copy:
        file = Path(copy) / CONFIG_FILE
        file.write_text(json.dumps(with_new_keys(_saved(folder))), encoding="utf-8")
        yield file


def _options_from(saved: dict[str, Any], folder: str) -> RunOptions:
    return fitting(RunOptions.from_json(saved | {"out": folder}))


def fitting(options: RunOptions) -> RunOptions:
    """The options, with the default mesh if these devices cannot form the given one."""
    try:
        mesh_of(options.mesh)
    except ValueError:
        return replace(options, mesh=MeshConfig())  # read on other devices than it was trained on
    return options


def newest(
    folder: str,
    step: Which = None,
    beside: FrozenBase | None = None,
    options: RunOptions | None = None,
) -> tuple[RunOptions, Roles, TrainState, int]:
    """Options, model, state and step of a run's newest checkpoint, or that of `step`.

    Adapters reuse the frozen weights `beside` if they have the same base. `options` replace the
    run's own.
    """
    options = fitting(options) if options else options_of(folder)
    checkpoints, step = _checkpoints(folder, step)
    mesh = mesh_of(options.mesh)
    model = load_roles(options, Source(mesh), tokenizer_of(options), shared_base=beside)
    optimizer = options.any_optimizer()
    state, _ = initial_state(options, model, mesh, optimizer)
    restored = checkpoints.restore(state, step)
    if restored is None:
        raise ValueError(f"{folder} has no checkpoint")
    return options, model, restored[1], restored[0]


class Weights(NamedTuple):
    """The trained parameters of a run, without the optimizer state."""

    options: RunOptions
    model: Roles
    params: Any
    step: int

    def policy(self, folder: str) -> Policy:
        """The trained model of the run in this folder, with the facts of its model card."""
        from jalign.run.export import card

        roles, options = self.model, self.options
        return Policy(
            nnx.merge(*roles.sampling_weights(self.params)),
            roles.tokenizer,
            roles.path,
            mesh_of(options.mesh),
            options.model,
            options.mesh,
            roles.shared_base,
            options.algorithm,
            card.facts_of(folder, options, self.step),
        )


def weights(folder: str, step: Which = None, beside: FrozenBase | None = None) -> Weights:
    """As `newest`, without the optimizer state; the algorithm may be unknown in this process."""
    checkpoints, step = _checkpoints(folder, step)
    options = readable(folder, step)
    mesh = mesh_of(options.mesh)
    model = load_roles(options, Source(mesh), tokenizer_of(options), shared_base=beside)
    wanted = {"params": jax.tree.map(_master, model.params)}
    # without AdamW's moments: a third of the bytes
    restored = checkpoints.restore(wanted, step, partial=True)
    if restored is None:
        raise ValueError(f"{folder} has no checkpoint")
    return Weights(options, model, restored[1]["params"], restored[0])


def _master(x: jax.Array) -> jax.ShapeDtypeStruct:
    """Shape of the float32 master of a trained parameter, in the same sharding."""
    return jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding)


def _checkpoints(folder: str, step: Which) -> tuple[Checkpointer, int | None]:
    if not is_run(folder):
        raise ValueError(f"{folder} is no folder of a run that jalign train wrote")
    checkpoints = Checkpointer(store.as_path(folder) / CHECKPOINTS)
    if step != "best":
        return checkpoints, step
    if checkpoints.pinned is None:
        raise ValueError(
            f"{folder} keeps no best checkpoint: it was trained without stop.metric, or was never "
            "better than before its first step"
        )
    return checkpoints, checkpoints.pinned


def step_of(folder: str, step: Which = None) -> int:
    """The step of a checkpoint: a given one, the best, or the newest.

    Raises:
      ValueError: the run has no checkpoint, or no best one.
    """
    checkpoints, step = _checkpoints(folder, step)
    if step is None and not checkpoints.steps():
        raise ValueError(f"{folder} has no checkpoint")
    return checkpoints.steps()[-1] if step is None else step


def readable(folder: str, step: int | None = None) -> RunOptions:
    """The options of a run; an unknown algorithm is replaced by one that trains the same
    parameters, with the options of model, data and mesh only.
    """
    saved = json.loads((store.as_path(folder) / CONFIG_FILE).read_text(encoding="utf-8"))
    try:
        algorithms.get(saved["algorithm"]["name"])
    except ValueError as error:
        log.warning("%s: %s; its weights are read without it", folder, error)
    else:
        return options_of(folder)
    names = _checkpoints(folder, step)[0].leaves(step_of(folder, step))
    if any(name.startswith("params.critic.") for name in names):
        raise ValueError(
            f"{folder} trained a critic by an algorithm that is not known here: "
            f"{saved['algorithm']['name']}"
        )
    # a row with the same parameters: its loss is never computed
    known = "bradley_terry" if "params.value.kernel" in names else "sft"
    model = saved["model"] | {"reference": None, "critic": None, "reference_offload": "none"}
    kept = {"algorithm": {"name": known}, "model": model, "out": folder}
    kept |= {name: saved[name] for name in ("data", "mesh", "seed") if name in saved}
    return _options_from(kept, folder)


def language_model(
    name: str, mesh: Mesh | None = None, step: Which = None
) -> tuple[Decoder, PreTrainedTokenizerBase, str]:
    """(model, tokenizer, path of the weights) of a run's newest or given checkpoint, a folder, a
    hub name, or the package's own model.
    """
    if is_run(name):
        _, model, params, _ = weights(name, step)
        return nnx.merge(*model.sampling_weights(params)), model.tokenizer, model.path
    if (Path(name) / peft.CONFIG).is_file():  # no model of its own
        return _with_adapter(Path(name), mesh)
    path = model_path(name)
    model = hub.load(path, dtype=compute_dtype("auto"), mesh=mesh)
    return model, load_tokenizer(path), path


def _with_adapter(folder: Path, mesh: Mesh | None) -> tuple[Decoder, PreTrainedTokenizerBase, str]:
    """Load a PEFT folder on the base that it names, with its own tokenizer if it has one."""
    base = peft.base_of(folder)
    own = (folder / "tokenizer.json").is_file()
    model = hub.load(model_path(base), dtype=compute_dtype("auto"), mesh=mesh)
    path = str(folder) if own else model_path(base)
    return peft.load_adapter(model, folder), load_tokenizer(path), path


def reward_model(
    name: str, mesh: Mesh | None = None, beside: FrozenBase | None = None
) -> RewardModel:
    """Load a reward model: of a run's newest checkpoint, of an exported folder, or any
    sequence-classification model with one label.
    """
    if is_run(name):
        trained = weights(name, beside=beside)
        scorer = reward_of(trained.options, trained.model, trained.params)
        scorer.step = trained.step
        return scorer
    return RewardModel.load(name, dtype=compute_dtype("auto"), mesh=mesh)


def process_model(name: str) -> RewardModel:
    """The process reward model of a run's newest checkpoint, for `rewards.process`."""
    row = options_of(name).algorithm
    if not row.scores_steps:
        rows = ", ".join(r.name for r in ALGORITHMS.values() if r.scores_steps)
        raise ValueError(
            f"{name} is no process reward model: {row.name} trains no reward of steps; this does: "
            f"{rows}"
        )
    trained = weights(name)
    scorer = scalar_model_of(trained.options, trained.model, trained.params)
    scorer.step = trained.step
    return scorer


def reward_of(options: RunOptions, model: Roles, params: PyTree) -> RewardModel:
    """The reward model with these parameters and the length limits of its training data."""
    if not options.algorithm.scores_responses:
        rows = ", ".join(row.name for row in ALGORITHMS.values() if row.scores_responses)
        raise ValueError(
            f"{options.out} is no reward model: {options.algorithm_name} trains no reward of a "
            f"whole response; these do: {rows}"
        )
    return scalar_model_of(options, model, params)


def scalar_model_of(options: RunOptions, model: Roles, params: PyTree) -> RewardModel:
    """The model with its scalar head, as its data were tokenized; what the head means is up to the
    algorithm.
    """
    return RewardModel(
        model.sampling_weights(params),
        model.tokenizer,
        max_prompt_len=options.data.max_prompt_len,
        max_response_len=options.data.max_response_len,
        keep_eos=options.data.keep_eos,
        template=options.data.template,
    )


def write_options(
    out: store.StorePath, options: RunOptions, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write config.json, which resuming, sampling and exporting read."""
    if not hosts.is_main():
        return
    facts = options.to_json()  # all values: another version may have other defaults
    if options.data.template:  # the text, so that the file is not needed again
        facts["data"]["template"] = template_source(tokenizer, options.data.template)
    text = json.dumps(facts, indent=2) + "\n"
    store.write(out / CONFIG_FILE, lambda file: file.write(text.encode()))


def date_of(folder: str) -> str | None:
    """`data.date` of the run in this folder; None if the folder is not a run directory."""
    if not is_run(folder):
        return None
    try:
        return json.loads((store.as_path(folder) / CONFIG_FILE).read_bytes())["data"]["date"]
    except (OSError, ValueError, KeyError, TypeError):  # damaged, or of a run without dates
        return None


def rollout_file(out: store.StorePath, step: int) -> store.StorePath:
    """File with the examples of the rollout that was in progress at a checkpoint."""
    return out / ROLLOUTS / f"under-way-{step}.npz"


def drop_rollouts(out: store.StorePath, keep: Sequence[int]) -> None:
    """Delete the files of unfinished rollouts that no checkpoint needs any more."""
    needed = {rollout_file(out, step) for step in keep}
    for file in (out / ROLLOUTS).glob("under-way-*.npz"):
        if file not in needed:
            file.unlink()
