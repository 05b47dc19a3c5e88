"""Load what a run trains with: data, models, rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import optax
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from jalign.data.clock import CLOCK
from jalign.data.examples import Examples
from jalign.data.rows import Row
from jalign.log import Display, Tracker
from jalign.models import hub
from jalign.options import RunOptions
from jalign.parallel.axes import EXPERT
from jalign.run import data as run_data
from jalign.run import limits
from jalign.run.dated import dated
from jalign.run.decoders import Source
from jalign.run.policy import Policy, tokenizer_of
from jalign.run.prompts import PromptTable
from jalign.run.rewards import Function, RewardFn, compose
from jalign.run.roles import Roles, load_roles
from jalign.train.protocols import Sampler
from jalign.train.source import Source as BatchSource


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Python objects that replace what the options name.

    Attributes:
      policy: a loaded model instead of `model.path`.
      reference: a loaded model instead of `model.reference`.
      train, eval: rows instead of `data.train` and `data.eval`.
      rewards: name -> function or reward model, or (either, weight); added to those of `reward`.
      sampler: replaces the default sampler.
      source: yields the batches of an offline run instead of `data.train`.
      optimizer: replaces `optim`.
      trackers: receive metrics and texts, besides those of `log.trackers`.
    """

    policy: Policy | None = None
    reference: Policy | None = None
    train: Sequence[Row] | None = None
    eval: Sequence[Row] | None = None
    rewards: Mapping[str, Function | tuple[Function, float]] = field(default_factory=dict)
    sampler: Sampler | None = None
    source: BatchSource | None = None
    optimizer: optax.GradientTransformation | None = None
    trackers: Sequence[Tracker] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """Names of those that are given; the options alone do not repeat such a run."""
        names = [f.name for f in fields(self) if f.name not in ("rewards", "trackers")]
        given = [name for name in names if getattr(self, name) is not None]
        return (*given, *(["rewards"] if self.rewards else []))


@dataclass
class Setup:
    """A run that is ready to train.

    Attributes:
      options: options of the run, with `data.date` if the chat template writes the date.
      examples, held: tokenized training and held-out data.
      table, held_table: the prompts of an online run.
    """

    options: RunOptions
    inputs: Inputs
    mesh: Mesh
    tokenizer: PreTrainedTokenizerBase
    roles: Roles
    examples: Examples | None
    held: Examples | None
    table: PromptTable | None = None
    held_table: PromptTable | None = None
    reward: RewardFn | None = None


def set_up(options: RunOptions, inputs: Inputs, mesh: Mesh, display: Display) -> Setup:
    """Read the data, then load the models, so that bad data are reported early."""
    undated, options = options, dated(options)
    tokenizer = inputs.policy.tokenizer if inputs.policy else tokenizer_of(options)
    with display.phase("reading the data"):
        rows, examples, held = _read(options, inputs, tokenizer)
        # known only now: templates ask for the date while they render
        if CLOCK.asked:
            display.say(f"data: the chat template writes the date: {options.data.date} (data.date)")
        else:
            options = undated  # no template wrote it: the date must not be part of the run
        if examples:
            examples.report.warnings += limits.check(options, tokenizer, examples, held)
    # before the model is loaded, which takes minutes
    limits.check_experts(options)
    if mesh.shape[EXPERT] > 1 and (spec := limits.specs_of(options).get(options.model.path)):
        limits.check_expert_axis(spec, mesh.shape[EXPERT], options.model.path)
    if options.eval_every and not held:
        raise ValueError("eval_every needs held-out data: set data.eval or data.holdout")
    with display.transfer("loading the model") as progress:
        source = Source(mesh, read=partial(hub.load, progress=progress))
        policy, reference = inputs.policy, inputs.reference
        roles = load_roles(options, source, tokenizer, policy=policy, reference=reference)
    setup = Setup(options, inputs, mesh, tokenizer, roles, examples, held)
    if options.algorithm.experience:
        assert examples is not None
        kind = options.algorithm.data_kind
        setup.table = PromptTable(examples, rows[0], tokenizer, kind)
        setup.held_table = PromptTable(held, rows[1], tokenizer, kind) if held else None
        setup.reward = compose(
            options.reward,
            options.algorithm,
            mesh,
            shared_base=roles.shared_base,
            functions=inputs.rewards,
        )
    return setup


def _read(
    options: RunOptions, inputs: Inputs, tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[Sequence[Row], Sequence[Row]], Examples | None, Examples | None]:
    """(training rows, held-out rows) and the examples of both."""
    if inputs.source is not None:
        # the source has the training data, but an evaluation reads rows as in every run
        held_rows = list(inputs.eval or ())
        return ([], held_rows), None, run_data.held_of(options, tokenizer, held_rows)
    data = run_data.load(options, tokenizer, inputs.train, inputs.eval)
    return (data.rows, data.held_rows), data.examples, data.held


def model_options(policy: Policy | None, options: RunOptions) -> RunOptions:
    """Options of a run that trains this policy: they take its model and mesh options."""
    if policy is None:
        return options
    facts: dict[str, Any] = {"critic": options.model.critic, "heads": options.model.heads}
    facts["reference"] = options.model.reference
    return replace(options, model=replace(policy.model, **facts), mesh=policy.mesh_options)
