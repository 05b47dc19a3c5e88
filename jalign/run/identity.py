"""The facts about a run that may not change half-way: they are in every checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from jalign.algorithms import custom
from jalign.checkpoint.fingerprint import combine, fingerprint
from jalign.core import Frozen, TrainState
from jalign.options import OptimConfig, RewardConfig, RolloutConfig, RunOptions
from jalign.options.judge import TRANSPORT_KEYS
from jalign.run.roles import Roles
from jalign.train.online import Online

_HOW = {"record", "sample_batch", "max_idle"}  # of rollouts: not what is sampled


def unsaid(options: RunOptions) -> dict[str, Any]:
    """What is meant by facts that older checkpoints do not have; None: anything."""
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
"""Fact, or the beginning of its name -> what a difference means."""


def identity_of(
    options: RunOptions,
    model: Roles,
    examples: Any,
    held: Any,
    state: TrainState,
    frozen: Frozen,
    steps: int,
    source: Any = None,
    reward: Any = None,
) -> dict[str, Any]:
    """Name -> value or dictionary of values, as JSON can hold it."""
    lora = options.model.lora
    constant = options.optim.schedule == "constant"
    # equal weights are another model when, say, the base of its rotary angles differs
    base = fingerprint((state.params, frozen.base)) | {"spec": repr(model.decoder.spec)}
    row = options.algorithm
    algorithm = row.hyperparameters | {"name": row.name}
    if code := custom.code_digest(options.algorithm_name, row):
        algorithm |= {"code": code}
    facts = {
        "schema": 1,
        "algorithm": dict(sorted(algorithm.items())),
        "data": examples.fingerprint,
        "held_out": held.fingerprint if held else None,
        "tokenizer": _tokenizer_hash(model.tokenizer),
        "base_model": combine(base),
        "reference": combine(fingerprint(frozen.ref)) if frozen.ref is not None else None,
        "adapters": None if lora is None else vars(lora),
        "optimizer": _optimizer(options),
        "schedule_steps": None if constant else steps,  # a decay to another end is another run
        "batch_size": options.batch_size,
        "group_by_length": options.data.group_by_length,
        "shuffle": options.data.shuffle,
        "seed": options.seed,
    }
    if isinstance(source, Online):
        facts |= _online(options, source) | {"judged_by": reward.identity}
    return facts


def _optimizer(options: RunOptions) -> dict[str, Any]:
    """How updates are computed; where the state waits meanwhile is not part of it."""
    facts = asdict(options.optim)
    del facts["offload"]
    if facts["moments"] == "float32":  # as checkpoints say that know of nothing else
        del facts["moments"]
    return facts


def _online(options: RunOptions, source: Online) -> dict[str, Any]:
    """What an online run may not change half-way: how it samples and what it is rewarded for."""
    rollout = {name: x for name, x in asdict(options.rollout).items() if name not in _HOW}
    reward = asdict(options.reward)
    judge = {name: x for name, x in reward["judge"].items() if name not in TRANSPORT_KEYS}
    texts = source.pretraining.texts.fingerprint if source.pretraining else None
    return {"rollout": rollout, "reward": reward | {"judge": judge}, "pretraining": texts}


def _tokenizer_hash(tokenizer: Any) -> str:
    text = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(text.encode()).hexdigest()
