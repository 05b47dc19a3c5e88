"""What an online run needs beside an offline one: prompts, sampler, rewards, the source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jalign import losses, store
from jalign.config import Config
from jalign.core import Frozen, TrainState
from jalign.data.examples import Example, Examples
from jalign.models.functional import StandaloneModel, policy_of
from jalign.parallel import hosts
from jalign.rollout import record
from jalign.rollout.groups import Responses, greedy, respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from jalign.rollout.stops import stop_at
from jalign.run import data as build_data
from jalign.run import limits as check_tokens
from jalign.run import roles as build
from jalign.run.reward_parts import Reward, Texts
from jalign.train.online import Online, Plan
from jalign.train.online_metrics import diversity_metrics, length_metrics
from jalign.train.pretraining import Pretraining
from jalign.train.rollout import Bins, Reader
from jalign.train.rounding import same_rounding
from jalign.train.state import gathered_copy_fn

LOG = logging.getLogger(__name__)


def plan_of(config: Config) -> Plan:
    c, row = config.rollout, build.algorithm_of(config)
    assert row.experience is not None
    from_data = row.experience.last == "data" or config.data.pretraining is not None
    numbers = row.numbers(**config.hyper)
    return Plan(
        batch_size=config.batch_size,
        prompts=prompts_of(config),
        epochs=c.epochs,
        responses=c.responses or row.experience.responses,
        response_len=max(c.max_new_tokens, config.data.max_response_len * from_data),
        max_tokens=config.data.max_tokens or build.usual_tokens(),
        multiple=build.usual_multiple(),
        temperature=c.temperature,
        kl_target=c.kl_target,
        kl_horizon=c.kl_horizon,
        importance_cap=c.importance_cap,
        attempts=c.attempts,
        mask_truncated=c.mask_truncated,
        max_new_tokens=c.max_new_tokens,
        ref_sync_steps=numbers.get("ref_sync_steps", 0),
        ref_mixup_alpha=numbers.get("ref_mixup_alpha", 1.0),
        run_steps=config.steps,
        max_idle=c.max_idle,
    )


def prompts_of(config: Config) -> int:
    """Prompts per rollout: those of one step, or of an iteration where a method learns from
    samples of its reference.
    """
    row = build.algorithm_of(config)
    assert row.experience is not None
    steps = 1
    if row.experience.iterative:
        iteration = row.numbers(**config.hyper)["ref_sync_steps"]
        steps = max(1, -(-iteration // config.rollout.epochs))
    return config.rollout.prompts or steps * config.batch_size


def settings_of(config: Config, eos: tuple[int, ...]) -> Settings:
    c = config.rollout
    return Settings(
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        top_k=c.top_k or None,
        top_p=c.top_p,
        eos=eos,
        responses=plan_of(config).responses,
    )


def whole_of(config: Config, model: build.Model) -> Callable[[Any], Any]:
    """`(params) -> policy` as the sampler takes it, its weights where rollout.weights says."""
    made: list[Callable[[Any], Any]] = []

    def whole(params: Any) -> Any:
        graphdef, state = build.merged(model, params)
        if config.rollout.weights == "sharded":
            return graphdef, state
        if not made:  # compiled once
            made.append(gathered_copy_fn(state, model.decoder.dtype)[0])
        return graphdef, made[0](state)

    return whole


def sampler_of(config: Config, model: build.Model, prompts: Examples) -> Any:
    """`(state, frozen, numbers, key) -> Responses`; the last response by whom the method says."""
    row = build.algorithm_of(config)
    assert row.experience is not None
    last, whole = row.experience.last, whole_of(config, model)
    settings = settings_of(config, build.eos_ids(model.path, model.tokenizer))
    size = config.rollout.sample_batch or config.rollout.prompts or config.batch_size
    alone = last == "policy"
    own = settings if alone else replace(settings, responses=settings.responses - 1)
    one = replace(settings, responses=1)

    def sampler(state: TrainState, frozen: Frozen, numbers, key: jax.Array) -> Responses:
        found = sampled(state, frozen, numbers, key)
        return stop_at(found, model.tokenizer, config.rollout.stop)

    def sampled(state: TrainState, frozen: Frozen, numbers, key: jax.Array) -> Responses:
        ids = [prompts[i].prompt for i in numbers]
        policy = whole(state.params)
        if rows := config.rollout.rows:
            found = respond_refilling(policy, ids, own, key, rows=rows)
        else:
            found = respond(policy, ids, own, key, batch_size=size)
        if alone:
            return found
        if last == "data":
            return found.beside(from_data([prompts[i] for i in numbers], settings.eos))
        other_key = jax.random.fold_in(key, 1 << 20)
        other = reference_of(model, frozen)
        if last == "reference":
            return found.beside(respond(other, ids, one, other_key, batch_size=size))
        mixed = replace(one, mixture=config.rollout.mixture)
        more = respond(policy, ids, mixed, other_key, batch_size=size, other=other)
        return found.beside(more)

    return sampler


def from_data(examples: Sequence[Example], eos: Sequence[int]) -> Responses:
    """The data's own responses, as if they had been sampled: one that was cut has no end."""
    return Responses(
        [[e.responses[0]] for e in examples],
        [[np.zeros(len(e.responses[0]), np.float32)] for e in examples],
        np.array([[e.responses[0][-1] in eos] for e in examples]),
    )


def greedy_of(config: Config, model: build.Model, prompts: Examples) -> Any:
    """The most probable response to each prompt."""
    settings = greedy(settings_of(config, build.eos_ids(model.path, model.tokenizer)))
    whole = whole_of(config, model)
    size = config.rollout.sample_batch or config.rollout.prompts or config.batch_size

    def sampler(state: TrainState, frozen: Frozen, numbers, key: jax.Array) -> Responses:
        del frozen
        ids = [prompts[i].prompt for i in numbers]
        found = respond(whole(state.params), ids, settings, key, batch_size=size)
        return stop_at(found, model.tokenizer, config.rollout.stop)

    return sampler


def reference_of(model: build.Model, frozen: Frozen) -> Any:
    """The reference as the sampler takes it."""
    if isinstance(frozen.ref, StandaloneModel):
        return frozen.ref.graphdef, frozen.ref.state
    return build.merged(model, policy_of(frozen.ref))


def trained_temperature(config: Config) -> float:
    """Of the log-probs that a loss reads: of sampling where it follows the gradient of what is
    sampled, 1 where it learns from fixed data, preferences or best responses.
    """
    row = build.algorithm_of(config)
    direct = row.format.name != "samples" or row.loss is losses.sppo_samples
    return 1.0 if direct else config.rollout.temperature


def source_of(
    config: Config, model: build.Model, texts: Texts, mesh: Mesh, reward: Reward
) -> Online:
    """The source of an online run on these prompts."""
    prompts = texts.examples
    keeper = partial(keep, store.as_path(config.out) / record.FOLDER, texts)
    pretraining = None
    if config.data.pretraining is not None:
        found = build_data.pretraining_of(config, model.tokenizer)
        what = "data.pretraining"
        for warning in check_tokens.check_part(config, model.tokenizer, found, what):
            LOG.warning("%s", warning)
        pretraining = Pretraining(found, config.batch_size, config.seed)
    return Online(
        build.algorithm_of(config),
        config.hyper,
        prompts,
        sampler_of(config, model, prompts),
        partial(reward, texts),
        model.apply,
        plan_of(config),
        mesh,
        seed=config.seed,
        greedy=greedy_of(config, model, prompts),
        keep=keeper if config.rollout.record else None,
        pretraining=pretraining,
        compiler_options=same_rounding(model.decoder.dtype),
    )


def keep(
    folder: store.StorePath,
    texts: Texts,
    number: tuple[int, int],
    chosen: Sequence[int],
    responses: Responses,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write a rollout, or an attempt at one, to the run's folder."""
    if not hosts.is_main():
        return
    prompts = [texts.prompt(i) for i in chosen]
    answers = [
        [texts.response(i, t) for t in row] for i, row in zip(chosen, responses.tokens, strict=True)
    ]
    try:
        record.write(folder, *number, prompts, answers, responses, arrays)
    except OSError as error:  # the record is no reason to end a run
        LOG.error("rollout %d is not recorded in %s: %s", number[0], folder, error)


def answers_of(
    config: Config,
    model: build.Model,
    texts: Texts,
    mesh: Mesh,
    reward: Reward,
    stop: Callable[[], bool] = lambda: False,
) -> Any:
    """`(state, frozen) -> metrics` of one response to every held-out prompt: reward, lengths,
    diversity, and where there is a reference the KL divergence to it (k1, nats per response). None
    where `stop` says so on the way.
    """
    held = texts.examples
    plan, whole = plan_of(config), whole_of(config, model)
    settings = settings_of(config, build.eos_ids(model.path, model.tokenizer))
    settings = replace(settings, responses=1)
    c = config.rollout  # as many rows at once as a rollout has
    size = min((c.sample_batch or c.prompts or config.batch_size) * plan.responses, len(held))
    numbers, ids = range(len(held)), [example.prompt for example in held]
    key = jax.random.fold_in(jax.random.key(config.seed), 4)
    longest = int(held.lengths().prompt_len.max())
    bins = Bins(mesh, longest, plan.response_len, plan.max_tokens, plan.multiple)
    options = same_rounding(model.decoder.dtype)
    reader = Reader(model.apply, plan.temperature, bins, options)
    names = ("old_token_logps", "ref_token_logps")

    def answer(state: TrainState, frozen: Frozen) -> dict[str, float] | None:
        policy = whole(state.params)
        responses = respond(policy, ids, settings, key, batch_size=size, stop=stop)
        if stop():
            return None
        responses = stop_at(responses, model.tokenizer, config.rollout.stop)
        metrics = length_metrics(responses) | diversity_metrics(responses)
        if config.reward.given:
            judged = reward(texts, numbers, responses)
            metrics |= judged.metrics
            if judged.scores is not None and np.isfinite(judged.scores).any():
                metrics["reward"] = float(judged.scores[np.isfinite(judged.scores)].mean())
        if stop():
            return None
        if frozen.ref is not None:
            found = reader(ids, responses, names, state.params, frozen)
            k1 = found["old_token_logps"] - found["ref_token_logps"]
            metrics["objective/kl"] = float(k1.sum(-1).mean())
        return {name: x for name, x in metrics.items() if np.isfinite(x)}

    return answer
