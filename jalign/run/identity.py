"""The identity of a run: facts stored in every checkpoint that must not change on resume."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from jalign.algorithms import custom
from jalign.checkpoint.fingerprint import combine, fingerprint
from jalign.core import Frozen, TrainState
from jalign.options import OptimConfig, RewardConfig, RolloutConfig, RunOptions
from jalign.options.judge import TRANSPORT_KEYS
from jalign.parallel import hosts
from jalign.parallel.memory import to_device
from jalign.run.setup import Setup
from jalign.train.online import Online
from jalign.train.source import Source

if TYPE_CHECKING:
    from jalign.checkpoint.manifest import Facts

_HOW = {"record", "sample_batch", "max_idle"}  # rollout options that do not change the samples


def unsaid(options: RunOptions) -> Facts:
    """Values of facts that older checkpoints lack; None accepts any value."""
    return {
        "algorithm": options.algorithm.hyperparameters,
        "optimizer": asdict(OptimConfig()),
        "rollout": asdict(RolloutConfig()),
        "reward": asdict(RewardConfig()),
        "judged_by": None,
        "shuffle": True,
    }


NOTES = {
    "judged_by.functions": "the file of this reward function has changed",
    "judged_by.model": "the run behind reward.model has trained on, or is another",
    "judged_by.judge": "the judge has other weights",
    "judged_by.templates": "the file of this template has changed",
    "algorithm.code": "the file of this algorithm has changed",
    "data": "other rows, limits of lengths, template or tokenizer",
    "tokenizer": "another tokenizer or chat template",
    "held_out": "other rows, limits of lengths, template or tokenizer",
    "schedule_steps": "to extend the run: allow it, and the learning rate follows the schedule of "
    "so many steps from here on",
}
"""Name of a fact, or its prefix -> explanation of a difference."""


def identity_of(
    setup: Setup, source: Source, state: TrainState, frozen: Frozen, steps: int
) -> Facts:
    """The identity: name -> value or dictionary of values, JSON-serializable."""
    options, held = setup.options, setup.held
    lora = options.model.lora
    constant = options.optim.schedule == "constant" and setup.inputs.optimizer is None
    # equal weights are another model if, e.g., the base of their rotary angles differs
    # of the state before its first step: weights of the same name may have changed on the hub
    base = fingerprint((state.params, frozen.base)) | {"spec": repr(setup.roles.decoder.spec)}
    row = options.trained_algorithm
    algorithm = row.hyperparameters | {"name": row.name}
    # a row in a file keeps its name when its code changes
    if code := custom.code_digest(options.algorithm_name, row):
        algorithm |= {"code": code}
    facts = {
        "schema": 1,
        "algorithm": dict(sorted(algorithm.items())),
        "data": setup.examples.fingerprint if setup.examples else None,
        "held_out": held.fingerprint if held else None,
        # by content: one tokenizer may come from the hub, a folder or a run
        "tokenizer": _tokenizer_hash(setup.tokenizer),
        "base_model": combine(base),
        "reference": combine(fingerprint(frozen.ref)) if frozen.ref is not None else None,
        "adapters": None if lora is None else vars(lora),
        "optimizer": _optimizer(setup, state),
        "schedule_steps": None if constant else steps,  # another end of the decay is another run
        "batch_size": options.batch_size,
        "group_by_length": options.data.group_by_length,
        "shuffle": options.data.shuffle,
        "seed": options.seed,
    }
    if isinstance(source, Online):
        assert setup.reward is not None
        facts |= _online(options, source) | {"judged_by": setup.reward.identity}
    return facts


def _optimizer(setup: Setup, state: TrainState) -> dict[str, Any]:
    """The options that change updates; where the optimizer state is kept does not."""
    # an optax object has no fields to compare, only behavior
    if setup.inputs.optimizer is not None:
        return {"updates": update_digest(setup.inputs.optimizer, state)}
    facts = asdict(setup.options.optim)
    del facts["offload"]
    if facts["moments"] == "float32":  # older checkpoints lack the key
        del facts["moments"]
    return facts


def update_digest(optimizer: optax.GradientTransformation, start: TrainState) -> str:
    """Hash of three updates of fixed parameters by fixed gradients.

    A function cannot be compared by its values, but other rates, decays or rules change the hash.
    An optimizer that holds a tree of one model's parameters refuses others: it updates those of the
    run before its first step, `start`, and a few entries of every tensor are hashed.
    """
    params = {"kernel": jnp.arange(1.0, 7.0).reshape(2, 3), "bias": jnp.array([0.5, -2.0, 3.0])}
    try:
        updates = _three_updates(optimizer, params, optimizer.init(params))
    except ValueError:  # such as `online_merging`, whose base has other names
        updates = _on_the_model(optimizer, start)
    values = [x for leaf in updates for x in np.ravel(leaf).tolist()]
    text = ",".join(f"{x:.4g}" for x in values)  # programs may differ in the last bits
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _three_updates(
    optimizer: optax.GradientTransformation, params: PyTree, state: PyTree
) -> list[jax.Array]:
    updates = []
    # several in a row: momentum and second moments first show in the second update
    for scale in (1.0, -0.3, 0.01):
        gradients = jax.tree.map(lambda x, scale=scale: scale * jnp.cos(x), params)
        update, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, update)
        updates += jax.tree.leaves(update)
    return updates


def _on_the_model(optimizer: optax.GradientTransformation, start: TrainState) -> list[np.ndarray]:
    @jax.jit
    def first_entries(params: PyTree, state: PyTree) -> list[jax.Array]:
        leaves = _three_updates(optimizer, params, to_device(state))
        # of the first row: a shard of a tensor is not moved for them
        return [jnp.atleast_1d(x[(0,) * (x.ndim - 1)])[:8] for x in leaves]

    return [hosts.gather(x) for x in first_entries(start.params, start.opt_state)]


def _online(options: RunOptions, source: Online) -> dict[str, Any]:
    """Identity of sampling, rewards and pretraining texts of an online run."""
    # prompts per call or a record may change: the same responses are sampled
    rollout = {name: x for name, x in asdict(options.rollout).items() if name not in _HOW}
    reward = asdict(options.reward)
    # a resumed run may pay another price or wait longer: answers do not depend on it
    judge = {name: x for name, x in reward["judge"].items() if name not in TRANSPORT_KEYS}
    texts = source.pretraining.texts.fingerprint if source.pretraining else None
    facts = {"rollout": rollout, "reward": reward | {"judge": judge}, "pretraining": texts}
    # only where there is a teacher: older checkpoints lack the key
    teacher = {"teacher": source.teacher.prompts.fingerprint} if source.teacher else {}
    return facts | teacher


def _tokenizer_hash(tokenizer: Any) -> str:
    text = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(text.encode()).hexdigest()
