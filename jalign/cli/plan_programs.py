"""The programs that a run compiles, compiled for the mesh in scope."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.cli import build, build_online, plan_data
from jalign.cli.plan_model import Roles, integers, key_in
from jalign.config import Config
from jalign.layout import Layout
from jalign.models.score import score
from jalign.parallel.rules import BATCH
from jalign.plan.compile import Program, compile_program
from jalign.rollout import sampler
from jalign.rollout.voice import prepare
from jalign.train.rollout import model_fields
from jalign.train.step import make_train_step

REWARD_ROWS = 32  # as `rewards.model.RewardModel` scores at once


def programs_of(config: Config, mesh: Mesh, roles: Roles, data: Any) -> Iterator[Program]:
    """The train step, and of an online run all that comes before it; the likeliest to be too
    large first.
    """
    yield _train_step(config, mesh, roles, data)
    if not build.algorithm_of(config).experience:
        return
    yield from _rollout(config, mesh, roles)
    if names := _read_names(config):
        yield _reader(config, mesh, roles, data, names)
    if roles.reward is not None:
        yield _reward(config, mesh, roles)


def _train_step(config: Config, mesh: Mesh, roles: Roles, data: Any) -> Program:
    algorithm, apply = build.algorithm_of(config), roles.model.apply
    if algorithm.experience:
        apply = partial(apply, temperature=config.rollout.temperature)
    optimizer, _ = config.optim.make(max(config.steps, config.optim.warmup_steps, 1))
    shardings = jax.tree.map(lambda x: x.sharding, roles.state)
    step = jax.jit(
        make_train_step(algorithm, apply, optimizer, **config.hyper),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )
    parts = plan_data.abstract(mesh, data)
    trips = float(sum(int(one["count"]) for one in data))
    return compile_program("train step", step, (roles.state, roles.frozen, parts), trips=trips)


def _rollout(config: Config, mesh: Mesh, roles: Roles) -> Iterator[Program]:
    plan, c = build_online.plan_of(config), config.rollout
    graphdef, state = build.merged(roles.model, roles.state.params)
    layout = prepare.lower(graphdef, state).compile()
    head = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(partial(prepare, graphdef), state),
        layout.output_shardings,
    )
    rows = c.rows and -(-c.rows // plan.responses)
    count = rows or c.sample_batch or plan.prompts
    longest, _ = plan_data.longest(config, roles.model.decoder.spec)
    longest = -(-longest // sampler.BUCKET) * sampler.BUCKET
    settings = sampler.Settings(
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        top_k=c.top_k or None,
        top_p=c.top_p,
        eos=(0,),
        responses=plan.responses,
    )
    yield compile_program(
        "sampling",
        sampler._sample,
        ((graphdef,), ((state, head),), integers(mesh, count, longest), integers(mesh, count)),
        trips=c.max_new_tokens,
        key=key_in(mesh),
        settings=settings,
    )


def _read_names(config: Config) -> tuple[str, ...]:
    """What a run asks its models about responses before it learns from them."""
    from jalign.train.rollout import FROM_MODELS

    plan, row = build_online.plan_of(config), build.algorithm_of(config)
    names = set(row.rollout_inputs()) & set(FROM_MODELS)
    if plan.steps > 1 or plan.importance_cap or "ref_token_logps" in names:
        names.add("old_token_logps")
    return tuple(sorted(names))


def _reader(config: Config, mesh: Mesh, roles: Roles, data: Any, names: tuple[str, ...]) -> Program:
    read = jax.jit(
        model_fields(roles.model.apply, config.rollout.temperature), static_argnames="names"
    )
    [part] = plan_data.abstract(mesh, data)

    def first(x: Any) -> Any:
        where = NamedSharding(mesh, PartitionSpec(*x.sharding.spec[1:]))
        return jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=where)

    batch = jax.tree.map(first, part.batch)
    args = (roles.state.params, roles.frozen, batch)
    return compile_program("log-probs of responses", read, args, names=names)


def _reward(config: Config, mesh: Mesh, roles: Roles) -> Program:
    prompt, response = plan_data.longest(config, roles.model.decoder.spec)
    length = -(-(prompt + response) // 128) * 128
    shape = {"tokens": (REWARD_ROWS, length), "positions": (REWARD_ROWS, length)}
    shape |= {"before": (REWARD_ROWS, 1), "at": (REWARD_ROWS, 1), "slots": (REWARD_ROWS, 1, 1, 1)}
    ways = int(np.prod([mesh.shape[axis] for axis in BATCH[0]]))
    where = NamedSharding(mesh, BATCH if REWARD_ROWS % ways == 0 else PartitionSpec())
    arrays = {n: jax.ShapeDtypeStruct(s, jnp.int32, sharding=where) for n, s in shape.items()}
    graphdef, state = nnx.split(roles.reward)

    def rewards(state: nnx.State, layout: Layout) -> jax.Array:
        return score(nnx.merge(graphdef, state), layout, ("scores",))["scores"]

    return compile_program("reward model", jax.jit(rewards), (state, Layout(**arrays)))
