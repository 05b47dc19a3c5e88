"""Checks of where the data come from: rollouts for online algorithms, fixed data for the others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jalign.algorithms.corrections import corrected
from jalign.core import ROLLOUT, arrays_of
from jalign.options.checks.rewards import check_rewards
from jalign.options.rollout import RolloutConfig

if TYPE_CHECKING:
    from jalign.options.run import RunOptions

OFFLINE_DATA_OPTIONS = {
    "layout": "flat",
    "group_by_length": 0,
    "shuffle": True,
    "soft_labels": 0.0,
    "balance": False,
    "loss_on": "response",
    "filters": [],
}
"""Options of `data` that have no meaning for prompts, with their defaults."""


def check_data_source(options: RunOptions) -> Iterator[str]:
    """Rollouts and rewards for an online algorithm, and for no other."""
    row = options.algorithm
    coef = row.hyperparameters.get("ptx_coef", 0.0)
    if bool(coef) != (options.data.pretraining is not None):
        yield (
            f"ptx_coef and data.pretraining go together: for {row.name} they are {coef} and "
            f"{options.data.pretraining}"
        )
    if row.experience is not None:
        yield from _check_rollouts(options)
        yield from check_rewards(options)
        yield from _check_experience(options)
        return
    for name, section in (("rollout", options.rollout), ("reward", options.reward)):
        # a section set to its defaults passes: nothing in it would have an effect
        if section != type(section)():
            yield f"{name} does not apply to {row.name}: its data are fixed"


def _check_rollouts(options: RunOptions) -> Iterator[str]:
    row, rollout = options.algorithm, options.rollout
    assert row.experience is not None
    if not options.steps:
        yield f"{row.name} samples its own data: set steps"
    for name, default in OFFLINE_DATA_OPTIONS.items():
        if getattr(options.data, name) != default:
            yield f"data.{name} does not apply to {row.name}: it samples its data"
    yield from _check_unread(options)
    yield from _check_corrections(options)
    yield from _check_kl(options)
    if rollout.batch_invariant:
        yield from _check_batch_invariant(options)
    if options.rollout.replay_router:
        yield from _check_replay(options)
    # the last response is the opponent's, the first ones the policy's: more would not be read
    opponent, usual = row.experience.opponent, row.experience.responses
    if opponent != "policy" and rollout.responses not in (0, usual):
        first = row.experience.by_policy(usual)
        of_policy = "one response" if first == 1 else f"{first} responses"
        writer = "the second moving reference" if opponent == "last" else f"the {opponent}"
        yield (
            f"rollout.responses must be {usual}, got {rollout.responses}: {row.name} compares "
            f"{of_policy} of the policy with {usual - first} of {writer}"
        )
    if row.calls_per_update == 2:
        yield from _check_half_step(options)
    prompts = rollout.prompts or options.batch_size
    if prompts % options.batch_size:
        yield (
            f"rollout.prompts ({prompts}) must be a multiple of batch_size ({options.batch_size})"
        )
    minimum = row.experience.relative.min_responses
    if 0 < rollout.responses < minimum:
        yield (
            f"rollout.responses is {rollout.responses}: {row.name} compares the responses to a "
            f"prompt with each other; set it to {minimum} or more (0 is "
            f"{row.experience.responses})"
        )


def _check_half_step(options: RunOptions) -> Iterator[str]:
    """Of two steps the second learns from the opponent that the first has moved."""
    row, rollout = options.algorithm, options.rollout
    if rollout.epochs > 1 or rollout.prompts not in (0, options.batch_size):
        yield (
            f"{row.name} takes two steps per update, each with a rollout of its own: set "
            "rollout.epochs to 1 and leave out rollout.prompts"
        )
    if options.steps % 2:
        yield (
            f"steps is {options.steps}: an update of {row.name} takes two steps; set an even number"
        )


def _check_unread(options: RunOptions) -> Iterator[str]:
    """Options of the rollout that this row does not read."""
    row, rollout, default = options.algorithm, options.rollout, RolloutConfig()
    assert row.experience is not None
    unread = {
        "kl_target": "kl_coef" not in row.experience_hyper() and "it reads none",
        "importance_cap": ("advantages" not in arrays_of(row.loss) and "it reads none")
        or (row.regression and "its loss is right whichever policy drew a sample")
        or (
            not row.linear_in_advantages
            and "its loss is not linear in the advantage: set rollout.corrections {tis: ..}"
        ),
        "mixture": row.experience.opponent != "mixture" and "it samples from no mixture",
        "teacher_prompt": not row.experience.teacher_prompt and "no teacher reads another prompt",
        "kl_horizon": not rollout.kl_target and "there is no kl_target",
    }
    for name, why in unread.items():
        if why and getattr(rollout, name) != getattr(default, name):
            yield f"rollout.{name} does not apply to {row.name}: {why}"


def _check_corrections(options: RunOptions) -> Iterator[str]:
    """Names, bounds, and whether the row's loss can be corrected at all."""
    rollout = options.rollout
    try:
        corrected(options.algorithm, rollout.corrections)
    except ValueError as error:
        yield f"rollout.corrections: {error}"
        return
    # both multiply with the same ratio
    weights = {"tis", "mis", "sequence_tis"} & set(rollout.corrections)
    if rollout.importance_cap and weights:
        yield f"rollout.importance_cap is a weight, too: leave it out beside {min(weights)}"


def _check_batch_invariant(options: RunOptions) -> Iterator[str]:
    """What makes the sampler's log-probs others than the trainer's."""
    row, rollout, mesh, model = options.algorithm, options.rollout, options.mesh, options.model
    assert row.experience is not None
    dropout = model.lora is not None and model.lora.dropout > 0
    obstacles = {
        "rollout.top_k to 0": rollout.top_k > 0 and "the trainer's log-probs ignore the cut",
        "rollout.top_p to 1": rollout.top_p < 1 and "the trainer's log-probs ignore the cut",
        "mesh.tensor to 1": mesh.tensor != 1 and "devices would add up parts of a product",
        "mesh.context to 1": mesh.context != 1 and "devices would add up parts of a product",
        "model.quant to none": model.quant != "none" and "the sampler decodes it beforehand",
        "model.lora.dropout to 0": dropout and "the sampler has none",
    }
    for remedy, why in obstacles.items():
        if why:
            yield f"rollout.batch_invariant: {why}; set {remedy}"
    if row.experience.opponent == "mixture":
        yield f"rollout.batch_invariant does not apply to {row.name}: it samples from two models"


def _check_replay(options: RunOptions) -> Iterator[str]:
    """Only what the policy has sampled in one go has recorded routes."""
    row = options.algorithm
    assert row.experience is not None
    if options.rollout.rows:
        yield "rollout.replay_router: refilled rows record no routes; set rollout.rows to 0"
    if row.experience.opponent != "policy":
        yield (
            f"rollout.replay_router does not apply to {row.name}: not all of its responses are "
            "samples of the policy"
        )
    if options.data.pretraining:
        yield "rollout.replay_router: texts of data.pretraining have no routes; leave them out"


def _check_kl(options: RunOptions) -> Iterator[str]:
    """A KL divergence is in the reward or in the loss, not in both."""
    row = options.algorithm
    hyper, in_reward = row.hyperparameters, row.experience_hyper().get("kl_coef", 0)
    for name, aux in row.available_aux_losses.items():
        # both would count the divergence twice, with different gradients
        if in_reward and aux.is_kl and hyper[name]:
            yield (
                f"{row.name} has the KL divergence in its reward (kl_coef: {in_reward}) and in its "
                f"loss ({name}: {hyper[name]}): set one of them to 0"
            )


def _check_experience(options: RunOptions) -> Iterator[str]:
    """Trace the experience: it refuses a number out of range, or too few responses."""
    row = options.algorithm
    assert row.experience is not None
    # eval_shape runs the Python of the experience and computes nothing
    responses = options.rollout.responses or row.experience.responses
    sizes = {"B": 1, "K": responses, "R": 1, "N": 1}
    arrays = [
        jax.ShapeDtypeStruct(
            tuple(sizes[axis] for axis in ROLLOUT[name]),
            jnp.bool_ if name in ("valid", "finished", "mask") else jnp.float32,
        )
        for name in row.rollout_inputs()
    ]
    fn = partial(row.experience.fn, **row.experience_hyper())
    try:
        fields = jax.eval_shape(fn, *arrays)
    except ValueError as error:
        yield str(error)
        return
    if row.format.k and "take" not in fields and responses != row.format.k:
        yield (
            f"rollout.responses is {responses}: {row.name} learns from {row.format.k} per prompt, "
            "and selects none"
        )
