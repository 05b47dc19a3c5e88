"""Shapes and shardings of the models of a run, computed by the functions of the run itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jalign import store
from jalign.core import Frozen, TrainState
from jalign.models.decoder import Decoder
from jalign.models.families import family_of
from jalign.models.quant import quantize_in_place
from jalign.options import RunOptions
from jalign.parallel.memory import on_host
from jalign.parallel.paths import path_name
from jalign.parallel.rules import shardings
from jalign.plan.architectures import config_of
from jalign.run import run_model
from jalign.run.decoders import Source, read_decoder
from jalign.run.devices import compute_dtype, rules_of
from jalign.run.folder import CONFIG_FILE
from jalign.run.policy import model_path
from jalign.run.roles import Roles, initial_state, load_roles
from jalign.train.state import abstract_in, abstract_reference, abstract_state

if TYPE_CHECKING:
    from jaxtyping import PyTree


@dataclass
class PlannedRoles:
    """The arrays of a run; all leaves are `jax.ShapeDtypeStruct` with shardings.

    Attributes:
      origin: source of the architecture, in words.
      model: the policy (and critic), as `jalign.run.roles.load_roles` returns it.
      state, frozen: arguments of the train step.
      reward: the reward model, or None.
      judge: a judge model in this process, or None.
    """

    origin: str
    model: Roles
    state: TrainState
    frozen: Frozen
    reward: Decoder | None
    judge: Decoder | None = None


def roles_of(options: RunOptions, mesh: Mesh) -> PlannedRoles:
    """Shapes of everything a run would load and create on this mesh."""
    c, row = options.model, options.algorithm
    source = Source(mesh, read=_blank, place=partial(_abstract, mesh, options))
    roles = load_roles(options, source, None, path_of=_path)
    optimizer = options.any_optimizer()
    state, frozen = initial_state(
        options,
        roles,
        mesh,
        optimizer,
        init=abstract_state,
        copy=abstract_reference,
        move=_abstract_on_host,
    )
    needs_reference = row.needs_reference() and options.reference != "cached"
    # cached log-probs are read before training: the reference is gone by then
    frozen = frozen if needs_reference else Frozen(frozen.base, None)
    reward, judge = None, None
    if row.experience and options.reward.model:
        reward = _scorer(options, source, options.reward.model)
    asks = row.experience and options.reward.judge.ask != "nothing"
    if asks and not options.reward.judge.server:
        # as `folder.language_model` loads it: the parameters are float32
        path = _path(options.reward.judge.model or "")
        judge = source.place(lambda: read_decoder(options, source, path, jnp.float32))
    return PlannedRoles(config_of(_path(c.path))[1], roles, state, frozen, reward, judge)


def _scorer(options: RunOptions, source: Source, name: str) -> Decoder:
    path, dtype = _path(name), compute_dtype(options.model.dtype)
    heads = {"value_head": 1, "lm_head": False}
    return source.place(lambda: read_decoder(options, source, path, dtype, **heads))


def _abstract(
    mesh: Mesh, options: RunOptions, make: Callable[..., Decoder], *decoders: Decoder
) -> Decoder:
    """Shapes and shardings of `make(*decoders)`; leaves of the decoders are reused, so that roles
    that share arrays share shapes.
    """
    graphdef, shapes = nnx.split(nnx.eval_shape(make, *decoders))
    shapes = abstract_in(shapes, shardings(mesh, shapes, rules_of(options.mesh)))
    # by identity: `bytes_on_one` counts an array that two roles share once
    for decoder in decoders:
        shapes = _reuse_leaves(shapes, nnx.state(decoder))
    return nnx.merge(graphdef, shapes)


def _abstract_on_host(tree: PyTree) -> PyTree:
    return abstract_in(tree, on_host(jax.tree.map(lambda x: x.sharding, tree)))


def _path(name: str) -> str:
    """Resolve a run to its initial model, which has the same shapes; no weights are read."""
    while run := run_model.named(name):
        file = store.as_path(run[0]) / CONFIG_FILE
        name = json.loads(file.read_text(encoding="utf-8"))["model"]["path"]
    return model_path(name)


def _blank(name: str, *, quant: str | None = None, **load_options: Any) -> Decoder:
    """Like `hub.load` without reading weights; traced, so that no array is created."""
    # `_abstract` shards the shapes, and traced weights need no key
    for placement in ("mesh", "rules", "key"):
        load_options.pop(placement, None)
    config, _ = config_of(name)
    model = Decoder(family_of(config).spec(config), rngs=nnx.Rngs(0), **load_options)
    model.source = json.dumps(config)
    if quant:
        quantize_in_place(model, quant)
    return model


def _reuse_leaves(state: Any, other: Any) -> Any:
    """Replace leaves of `state` by those of `other` with the same path and shape."""
    known = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(other)}

    def one(path: tuple, x: Any) -> Any:
        leaf = known.get(path_name(path))
        return x if leaf is None or leaf.shape != x.shape else leaf

    return jax.tree_util.tree_map_with_path(one, state)


def key_in(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """The shape of a random key, replicated over a mesh."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=where)


def integers(mesh: Mesh, *shape: int) -> jax.ShapeDtypeStruct:
    """The shape of an int32 array, replicated over a mesh."""
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=where)
