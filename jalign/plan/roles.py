"""The roles of a run as shapes in their shardings: what `build` makes, without the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jalign import store
from jalign.core import Frozen, TrainState
from jalign.models.adapters.lora import trainable_filter
from jalign.models.decoder import Decoder
from jalign.models.families import family_of
from jalign.models.functional import StandaloneModel, functional, policy_of
from jalign.options import RunOptions
from jalign.parallel.memory import on_host
from jalign.parallel.paths import path_name
from jalign.parallel.rules import shardings
from jalign.plan.architectures import config_of
from jalign.run import folder as runs
from jalign.run import roles as build
from jalign.run import run_model
from jalign.train.state import abstract_in, abstract_reference, abstract_state


@dataclass
class Roles:
    """What stands in memory during a run, all leaves `jax.ShapeDtypeStruct` with shardings.

    Attributes:
      origin: where the architecture is from, in words.
      model: the policy (and critic), as `build.model_of` gives it, without a tokenizer.
      state, frozen: of the train step.
      reward: a reward model beside it, or None.
      judge: a language model in this process that judges, or None.
    """

    origin: str
    model: build.Model
    state: TrainState
    frozen: Frozen
    reward: Decoder | None
    judge: Decoder | None = None


def roles_of(options: RunOptions, mesh: Mesh) -> Roles:
    """Everything a run would load and make on this mesh."""
    c, algorithm = options.model, options.algorithm
    path = _path(c.path)
    origin = config_of(path)[1]
    shared = algorithm.needs_critic and c.critic == build.SHARED
    heads = 1 if shared else c.heads * algorithm.needs_value_head
    vocabulary = build.reads_vocabulary(options)
    policy = _trained(options, mesh, path, heads=heads, seed=0, lm_head=vocabulary)
    critic = None
    if algorithm.needs_critic and not shared:
        start = _path(c.critic or c.path)
        critic = _trained(options, mesh, start, heads=1, seed=2, lm_head=False)
    apply, params, base = functional(policy, trainable_filter(policy), critic)
    if critic is not None and (c.critic or c.path) == c.path and c.lora:
        base = base | {"critic": _same(base["critic"], base["policy"])}  # one copy serves both
    reference = None
    if c.reference:
        reference = StandaloneModel.of(_loaded(options, mesh, _path(c.reference)))
    model = build.Model(path, policy, None, apply, params, base, reference)
    steps = max(options.steps, options.optim.warmup_steps, 1)
    optimizer, _ = options.optim.make(steps)
    offload = options.optim.offload == "host"
    state = abstract_state(mesh, params, optimizer, algorithm, options.seed, offload=offload)
    ref: Any = reference
    cached = options.reference == "cached"
    needs = algorithm.needs_reference() and not cached
    if needs and state.ref is None and reference is None:
        ref = abstract_reference(policy_of(params), policy.dtype)
    if c.reference_offload == "host":
        ref = abstract_in(ref, on_host(jax.tree.map(lambda x: x.sharding, ref)))
    reward = _reward(options, mesh) if algorithm.experience and options.reward.model else None
    asks = algorithm.experience and options.reward.judge.ask != "nothing"
    judge = _judge(options, mesh) if asks and not options.reward.judge.server else None
    return Roles(origin, model, state, Frozen(base, ref if needs else None), reward, judge)


def _trained(options: RunOptions, mesh: Mesh, path: str, **load_options: Any) -> Decoder:
    make = partial(build.trained, options, mesh, path, load=_blank, **load_options)
    return _placed(nnx.eval_shape(lambda: make()[0]), options, mesh)


def _loaded(options: RunOptions, mesh: Mesh, path: str, **load_options: Any) -> Decoder:
    dtype = build.compute_dtype(options.model.dtype)
    make = partial(build.loaded, options, mesh, path, dtype, _blank, **load_options)
    return _placed(nnx.eval_shape(make), options, mesh)


def _reward(options: RunOptions, mesh: Mesh) -> Decoder:
    assert options.reward.model is not None
    return _loaded(options, mesh, _path(options.reward.model), value_head=1, lm_head=False)


def _judge(options: RunOptions, mesh: Mesh) -> Decoder:
    """As `runs.language_model` loads it: the parameters are float32."""
    path = _path(options.reward.judge.model or "")
    make = partial(build.loaded, options, mesh, path, jnp.float32, _blank)
    return _placed(nnx.eval_shape(make), options, mesh)


def _path(name: str) -> str:
    """A run has the shapes of the model it started from: nothing is read of its weights."""
    while run := run_model.named(name):
        file = store.as_path(run[0]) / runs.CONFIG_FILE
        name = json.loads(file.read_text(encoding="utf-8"))["model"]["path"]
    return build.model_path(name)


def _blank(name: str, **load_options: Any) -> Decoder:
    """As `hub.load`, but nothing is read; to be traced, so that nothing is made either."""
    for placement in ("mesh", "rules", "key"):
        load_options.pop(placement, None)
    config, _ = config_of(name)
    model = Decoder(family_of(config).spec(config), rngs=nnx.Rngs(0), **load_options)
    model.source = json.dumps(config)
    return model


def _placed(model: Decoder, options: RunOptions, mesh: Mesh) -> Decoder:
    graphdef, abstract = nnx.split(model)
    where = shardings(mesh, abstract, build.rules_of(options))
    return nnx.merge(graphdef, abstract_in(abstract, where))


def _same(state: Any, other: Any) -> Any:
    """`state` with the very leaves of `other` where both have the same."""
    known = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(other)}

    def one(path: tuple, x: Any) -> Any:
        found = known.get(path_name(path))
        return x if found is None or found.shape != x.shape else found

    return jax.tree_util.tree_map_with_path(one, state)


def key_in(mesh: Mesh) -> Any:
    """The shape of a random key on every device of a mesh."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=where)


def integers(mesh: Mesh, *shape: int) -> Any:
    """The shape of an int32 array that is the same on every device."""
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=where)
