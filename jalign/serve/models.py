"""Load what a server answers with: policies, reward models, preference models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from jalign import algorithms
from jalign.data.templates import template_source
from jalign.models import hub
from jalign.models.adapters import peft
from jalign.models.decoder import Decoder
from jalign.models.keys import SCORE
from jalign.models.safetensors_io import Checkpoint
from jalign.options import ModelConfig, RunOptions
from jalign.run import folder as runs
from jalign.run import run_model
from jalign.run.decoders import FrozenBase, Source, base_origin, trained_decoder
from jalign.run.devices import compute_dtype, mesh_of
from jalign.run.policy import Policy, model_path, tokenizer_of
from jalign.serve.scorers import RewardScorer, Scorer, letter_model, pair_ranker

Loaded = Policy | Scorer


def load_models(
    names: Mapping[str, str], template: str | None = None
) -> tuple[dict[str, Policy], dict[str, Scorer]]:
    """(policies, scorers) by name.

    Args:
      names: name -> a run (RUN, RUN@STEP, RUN@best), a folder in Hugging Face's format, a PEFT
        folder, a hub name, or embedded. Adapters of one base share its weights.
      template: a chat template instead of the tokenizers'.

    Raises:
      ValueError: no such model, or a process reward model, whose rewards are of steps.
    """
    policies: dict[str, Policy] = {}
    scorers: dict[str, Scorer] = {}
    base: FrozenBase | None = None
    # Adapters first: the base they bring is the model that another name may stand for.
    for name in sorted(names, key=lambda name: not _is_adapted(names[name])):
        loaded = load_model(names[name], base)
        if isinstance(loaded, Policy):
            policies[name], base = loaded, base or loaded.shared_base
            if template:
                loaded.tokenizer.chat_template = template_source(loaded.tokenizer, template)
        else:
            scorers[name] = loaded
    in_order = {name: policies[name] for name in names if name in policies}
    return in_order, scorers


def load_model(name: str, base: FrozenBase | None = None) -> Loaded:
    """What a name stands for: a policy, or what scores texts.

    Args:
      base: frozen weights that adapters of the same model share.

    Raises:
      ValueError: as `load_models`.
    """
    if run := run_model.named(name):
        return _of_run(*run, base)
    if _is_peft(name):
        return _with_adapter(name, base)
    options = RunOptions(algorithm=algorithms.get("sft"), model=ModelConfig(path=name))
    path, dtype, mesh = model_path(name), compute_dtype("auto"), mesh_of(options.mesh)
    if base is not None and base.origin == base_origin(options, path, dtype):
        decoder = base.decoder
    else:
        with Checkpoint(hub.find(path)) as checkpoint:
            scores = SCORE in checkpoint.shapes
        if scores:
            return RewardScorer(runs.reward_model(path, mesh))
        decoder = hub.load(path, dtype=dtype, param_dtype=dtype, mesh=mesh)
    facts = {"base_model": name}
    return Policy(
        decoder, tokenizer_of(options), path, mesh, options.model, options.mesh, facts=facts
    )


def base_of(policy: Policy) -> Policy:
    """The model that a policy was trained from: the frozen weights under its adapters, or those
    that it was loaded from.
    """
    if policy.shared_base is not None:
        decoder = policy.shared_base.decoder
    else:
        dtype = compute_dtype("auto")
        decoder = hub.load(policy.path, dtype=dtype, param_dtype=dtype, mesh=policy.mesh)
    return replace(policy, decoder=decoder, algorithm=None, facts={"base_model": policy.path})


def _is_adapted(name: str) -> bool:
    run = run_model.named(name)
    return _is_peft(name) or bool(run and runs.options_of(run[0]).model.lora)


def _is_peft(name: str) -> bool:
    folder = Path(name).expanduser()
    return (folder / peft.CONFIG).is_file() and not (folder / "config.json").is_file()


def _of_run(folder: str, step: runs.Which, base: FrozenBase | None) -> Loaded:
    row = runs.readable(folder, runs.step_of(folder, step)).algorithm
    if row.scores_steps:
        raise ValueError(f"{folder} rewards steps, not responses: it cannot be served")
    if row.needs_value_head and (row.scores_responses or row.format.joint_prompt):
        trained = runs.weights(folder, step, base)
        if row.scores_responses:
            return RewardScorer(runs.reward_of(trained.options, trained.model, trained.params))
        return pair_ranker(runs.scalar_model_of(trained.options, trained.model, trained.params))
    policy = runs.weights(folder, step, base).policy(folder)
    if row.format.joint_prompt:
        return letter_model(policy)
    return replace(policy, decoder=_as_computed(policy))


def _with_adapter(name: str, base: FrozenBase | None) -> Policy:
    """A PEFT folder on the base that it names, with its own tokenizer if it has one."""
    folder = Path(name).expanduser()
    path = model_path(peft.base_of(folder))
    own = str(folder) if (folder / "tokenizer.json").is_file() else None
    model = ModelConfig(path=path, adapter=str(folder), tokenizer=own)
    # A row without a reference: nothing is trained.
    options = RunOptions(algorithm=algorithms.get("sft"), model=model)
    mesh = mesh_of(options.mesh)
    with jax.set_mesh(mesh):
        decoder, base = trained_decoder(
            options, Source(mesh), path, heads=0, seed=0, lm_head=True, shared_base=base
        )
    facts = {"base_model": path}
    tokenizer = tokenizer_of(options)
    return Policy(decoder, tokenizer, path, mesh, model, options.mesh, base, facts=facts)


def _as_computed(policy: Policy) -> Decoder:
    """The decoder with float32 masters in the dtype that it computes in: half the bytes to read for
    every token.
    """
    dtype = policy.decoder.dtype
    if dtype == jnp.float32:
        return policy.decoder
    graphdef, adapters, rest = nnx.split(policy.decoder, nnx.LoRAParam, ...)
    cast = jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, rest)
    return nnx.merge(graphdef, adapters, cast)
