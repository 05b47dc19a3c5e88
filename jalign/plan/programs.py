"""Compile the programs of a run for the mesh in scope."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.data.examples import Example, Examples
from jalign.kernels.compiler_options import compiler_options
from jalign.models.experts.exchange import with_whole_kernels
from jalign.options import RunOptions
from jalign.plan import data as plan_data
from jalign.plan.compile import Program, compile_program
from jalign.plan.roles import PlannedRoles, integers, key_in
from jalign.rewards import judge
from jalign.rewards import model as reward_model
from jalign.rollout import sampler
from jalign.rollout.decode_model import SamplingWeights, relayout
from jalign.run import rollouts as build_online
from jalign.train.scoring import model_fields
from jalign.train.state import abstract_in, gathered_copy_fn
from jalign.train.step import make_train_step, with_reference

if TYPE_CHECKING:
    from jalign.layout import MicroBatches

_INSTRUCTIONS = 512  # tokens of a judge's template
_ANSWERS = 10  # that it chooses among
_JUDGMENT = 256  # tokens that it writes, as `rating.additive_ratings` asks for
_SCORED, _WRITTEN = 32, 8  # rows of a call, as in `ModelJudge` and `run.judge`


def programs_of(
    options: RunOptions, mesh: Mesh, roles: PlannedRoles, data: tuple[MicroBatches, ...]
) -> Iterator[Program]:
    """The train step, and for an online run the programs of a rollout; the program most likely to
    exceed memory comes first.
    """
    yield _train_step(options, mesh, roles, data)
    if not options.algorithm.experience:
        return
    yield from _rollout(options, mesh, roles)
    names = build_online.spec_of(options).model_arrays(options.algorithm)
    if names:
        yield _reader(options, mesh, roles, data, names)
    if roles.reward is not None:
        yield _reward(options, mesh, roles)
    if roles.judge is not None:
        yield _judge(options, mesh, roles)


def _train_step(
    options: RunOptions, mesh: Mesh, roles: PlannedRoles, data: tuple[MicroBatches, ...]
) -> Program:
    algorithm, apply = options.trained_algorithm, roles.model.apply
    apply = partial(apply, temperature=build_online.trained_temperature(options))
    optimizer = options.any_optimizer()
    shardings = jax.tree.map(lambda x: x.sharding, roles.state)
    step = jax.jit(
        make_train_step(algorithm, apply, optimizer),
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=compiler_options(roles.model.decoder.dtype),
    )
    parts = plan_data.abstract(mesh, data)
    # the count of micro-batches is an array, so the compiler sees a loop without an end
    trips = float(sum(int(stack.count) for stack in data))
    return compile_program("train step", step, (roles.state, roles.frozen, parts), trips=trips)


def _rollout(options: RunOptions, mesh: Mesh, roles: PlannedRoles) -> Iterator[Program]:
    """The sampler, and the one of an opponent that writes the last responses to each prompt."""
    spec, c = build_online.spec_of(options), options.rollout
    graphdef, state = roles.model.sampling_weights(roles.state.params)
    if c.weights == "gathered":
        state = gathered_copy_fn(state, roles.model.decoder.dtype)[1]
        graphdef = with_whole_kernels(graphdef, state)
    policy = _sampling_weights(graphdef, state)
    # the refilling sampler holds c.rows responses at once, the other one calls of prompts
    rows = c.rows and -(-c.rows // spec.responses)
    count = rows or c.sample_batch or spec.prompts
    longest, _ = plan_data.longest(options, roles.model.decoder.spec)
    # prompts are padded to buckets, so that a run compiles few programs
    longest = -(-longest // sampler.BUCKET) * sampler.BUCKET
    settings = build_online.settings_of(options, eos=(0,))
    assert options.algorithm.experience is not None
    opponent = options.algorithm.experience.opponent
    others = options.algorithm.experience.by_policy(settings.responses)
    prompts = (count, longest)
    yield _sampler("sampling", mesh, (policy,), prompts, replace(settings, responses=others))
    if opponent in ("policy", "data"):
        return
    frozen = with_reference(roles.frozen, roles.state)
    other = _sampling_weights(*build_online.opponent_weights(options, roles.model, frozen))
    models = (policy, other) if opponent == "mixture" else (other,)
    mixture = c.mixture if opponent == "mixture" else 0.0
    single = replace(settings, responses=settings.responses - others, mixture=mixture)
    prompts = (build_online.prompts_per_call(options), longest)
    yield _sampler(f"sampling of the {opponent}", mesh, models, prompts, single)


def _sampling_weights(graphdef: nnx.GraphDef, state: nnx.State) -> SamplingWeights:
    """Weights as the sampler lays them out."""
    # compiled for its output shardings, which the compiler chooses
    layout = relayout.lower(graphdef, False, state).compile()
    shapes = jax.eval_shape(partial(relayout, graphdef, False), state)
    head, layers = abstract_in(shapes, layout.output_shardings)
    return SamplingWeights(state, head, layers, graphdef=graphdef, vocab_axis=1)


def _sampler(
    name: str,
    mesh: Mesh,
    models: tuple[SamplingWeights, ...],
    prompts: tuple[int, int],
    settings: sampler.Settings,
) -> Program:
    count, longest = prompts
    return compile_program(
        name,
        sampler._sample,
        (models, integers(mesh, count, longest), integers(mesh, count)),
        trips=settings.max_new_tokens,
        key=key_in(mesh),
        settings=settings,
    )


def _reader(
    options: RunOptions,
    mesh: Mesh,
    roles: PlannedRoles,
    data: tuple[MicroBatches, ...],
    names: tuple[str, ...],
) -> Program:
    read = jax.jit(
        model_fields(roles.model.apply, options.rollout.temperature),
        static_argnames="names",
        compiler_options=compiler_options(roles.model.decoder.dtype),
    )
    # log-probs are read micro-batch by micro-batch: one of them is the program
    [part] = plan_data.abstract(mesh, data)

    def first(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        where = NamedSharding(mesh, PartitionSpec(*x.sharding.spec[1:]))
        return jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=where)

    batch = jax.tree.map(first, part.batch)
    args = (roles.state.params, with_reference(roles.frozen, roles.state), batch)
    return compile_program("log-probs of responses", read, args, names=names)


def _reward(options: RunOptions, mesh: Mesh, roles: PlannedRoles) -> Program:
    prompt, response = plan_data.longest(options, roles.model.decoder.spec)
    scored = np.arange(response) == response - 1
    longest = Example(np.zeros(prompt, np.int32), (np.zeros(response, np.int32),), (scored,), {})
    rows = Examples.from_list([longest] * reward_model.BATCH_SIZE)
    layout = reward_model.padded(rows, np.arange(len(rows)), len(rows)).layout
    layout = jax.tree.map(lambda x: integers(mesh, *x.shape), layout)
    return compile_program(
        "reward model", reward_model.scores_of, (*nnx.split(roles.reward), layout)
    )


def _judge(options: RunOptions, mesh: Mesh, roles: PlannedRoles) -> Program:
    """A call of a judge: it scores answers, or for points writes them."""
    prompt, response = plan_data.longest(options, roles.model.decoder.spec)
    ask = options.reward.judge.ask
    length = prompt + response * (1 + (ask == "preference")) + _INSTRUCTIONS
    length = -(-length // sampler.BUCKET) * sampler.BUCKET
    graphdef, state = nnx.split(roles.judge)
    if ask == "points":
        settings = sampler.Settings(max_new_tokens=_JUDGMENT, temperature=0.0)
        weights = (_sampling_weights(graphdef, state),)
        return _sampler("judge", mesh, weights, (_WRITTEN, length), settings)
    layout = judge._layout([((0,), [0] * _ANSWERS)], _SCORED, length, _ANSWERS)
    layout = jax.tree.map(lambda x: integers(mesh, *x.shape), layout)
    return compile_program("judge", judge._token_logps, (graphdef, state, layout))
