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

from jalign import store
from jalign.core import Frozen, TrainState
from jalign.data.examples import Example, Examples
from jalign.models.functional import StandaloneModel, policy_of
from jalign.options import RunOptions
from jalign.parallel import hosts
from jalign.rollout import record
from jalign.rollout.groups import Responses, greedy, respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from jalign.rollout.stops import stop_at
from jalign.run import data as build_data
from jalign.run import limits as check_tokens
from jalign.run.devices import usual_multiple, usual_tokens
from jalign.run.policy import eos_ids
from jalign.run.reward_parts import Reward, Texts
from jalign.run.roles import Roles
from jalign.train.online import Online, Plan
from jalign.train.online_metrics import diversity_metrics, length_metrics
from jalign.train.pretraining import Pretraining
from jalign.train.rollout import Bins, Reader
from jalign.train.rounding import same_rounding
from jalign.train.state import gathered_copy_fn

LOG = logging.getLogger(__name__)


def plan_of(options: RunOptions) -> Plan:
    c, row = options.rollout, options.algorithm
    assert row.experience is not None
    from_data = row.experience.opponent == "data" or options.data.pretraining is not None
    numbers = row.resolve_hyper()
    return Plan(
        batch_size=options.batch_size,
        prompts=prompts_of(options),
        epochs=c.epochs,
        responses=c.responses or row.experience.responses,
        response_len=max(c.max_new_tokens, options.data.max_response_len * from_data),
        max_tokens=options.data.max_tokens or usual_tokens(),
        multiple=usual_multiple(),
        temperature=c.temperature,
        kl_target=c.kl_target,
        kl_horizon=c.kl_horizon,
        importance_cap=c.importance_cap,
        attempts=c.attempts,
        mask_truncated=c.mask_truncated,
        max_new_tokens=c.max_new_tokens,
        ref_sync_steps=numbers.get("ref_sync_steps", 0),
        ref_mixup_alpha=numbers.get("ref_mixup_alpha", 1.0),
        run_steps=options.steps,
        max_idle=c.max_idle,
    )


def prompts_of(options: RunOptions) -> int:
    """Prompts per rollout: those of one step, or of an iteration where a method learns from
    samples of its reference.
    """
    row = options.algorithm
    assert row.experience is not None
    steps = 1
    if row.experience.iterative:
        iteration = row.resolve_hyper()["ref_sync_steps"]
        steps = max(1, -(-iteration // options.rollout.epochs))
    return options.rollout.prompts or steps * options.batch_size


def settings_of(options: RunOptions, eos: tuple[int, ...]) -> Settings:
    c = options.rollout
    return Settings(
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        top_k=c.top_k or None,
        top_p=c.top_p,
        eos=eos,
        responses=plan_of(options).responses,
    )


def whole_of(options: RunOptions, model: Roles) -> Callable[[Any], Any]:
    """`(params) -> policy` as the sampler takes it, its weights where rollout.weights says."""
    made: list[Callable[[Any], Any]] = []

    def whole(params: Any) -> Any:
        graphdef, state = model.sampling_weights(params)
        if options.rollout.weights == "sharded":
            return graphdef, state
        if not made:  # compiled once
            made.append(gathered_copy_fn(state, model.decoder.dtype)[0])
        return graphdef, made[0](state)

    return whole


def sampler_of(options: RunOptions, model: Roles, prompts: Examples) -> Any:
    """`(state, frozen, numbers, key) -> Responses`; the last response by whom the method says."""
    row = options.algorithm
    assert row.experience is not None
    last, whole = row.experience.opponent, whole_of(options, model)
    settings = settings_of(options, eos_ids(model.path, model.tokenizer))
    size = options.rollout.sample_batch or options.rollout.prompts or options.batch_size
    alone = last == "policy"
    own = settings if alone else replace(settings, responses=settings.responses - 1)
    one = replace(settings, responses=1)

    def sampler(state: TrainState, frozen: Frozen, numbers, key: jax.Array) -> Responses:
        found = sampled(state, frozen, numbers, key)
        return stop_at(found, model.tokenizer, options.rollout.stop)

    def sampled(state: TrainState, frozen: Frozen, numbers, key: jax.Array) -> Responses:
        ids = [prompts[i].prompt for i in numbers]
        policy = whole(state.params)
        if rows := options.rollout.rows:
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
        mixed = replace(one, mixture=options.rollout.mixture)
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


def greedy_of(options: RunOptions, model: Roles, prompts: Examples) -> Any:
    """The most probable response to each prompt."""
    settings = greedy(settings_of(options, eos_ids(model.path, model.tokenizer)))
    whole = whole_of(options, model)
    size = options.rollout.sample_batch or options.rollout.prompts or options.batch_size

    def sampler(state: TrainState, frozen: Frozen, numbers, key: jax.Array) -> Responses:
        del frozen
        ids = [prompts[i].prompt for i in numbers]
        found = respond(whole(state.params), ids, settings, key, batch_size=size)
        return stop_at(found, model.tokenizer, options.rollout.stop)

    return sampler


def reference_of(model: Roles, frozen: Frozen) -> Any:
    """The reference as the sampler takes it."""
    if isinstance(frozen.ref, StandaloneModel):
        return frozen.ref.graphdef, frozen.ref.state
    return model.sampling_weights(policy_of(frozen.ref))


def trained_temperature(options: RunOptions) -> float:
    """Of the log-probs that a loss reads: of sampling where it follows the gradient of what is
    sampled, 1 where it learns from fixed data, preferences or best responses.
    """
    return options.rollout.temperature if options.algorithm.policy_gradient else 1.0


def source_of(
    options: RunOptions, model: Roles, texts: Texts, mesh: Mesh, reward: Reward
) -> Online:
    """The source of an online run on these prompts."""
    prompts = texts.examples
    keeper = partial(keep, store.as_path(options.out) / record.FOLDER, texts)
    pretraining = None
    if options.data.pretraining is not None:
        found = build_data.pretraining_of(options, model.tokenizer)
        what = "data.pretraining"
        for warning in check_tokens.check_part(options, model.tokenizer, found, what):
            LOG.warning("%s", warning)
        pretraining = Pretraining(found, options.batch_size, options.seed)
    return Online(
        options.algorithm,
        {},
        prompts,
        sampler_of(options, model, prompts),
        partial(reward, texts),
        model.apply,
        plan_of(options),
        mesh,
        seed=options.seed,
        greedy=greedy_of(options, model, prompts),
        keep=keeper if options.rollout.record else None,
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
    options: RunOptions,
    model: Roles,
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
    plan, whole = plan_of(options), whole_of(options, model)
    settings = settings_of(options, eos_ids(model.path, model.tokenizer))
    settings = replace(settings, responses=1)
    c = options.rollout  # as many rows at once as a rollout has
    size = min((c.sample_batch or c.prompts or options.batch_size) * plan.responses, len(held))
    numbers, ids = range(len(held)), [example.prompt for example in held]
    key = jax.random.fold_in(jax.random.key(options.seed), 4)
    longest = int(held.lengths.prompt_len.max())
    bins = Bins(mesh, longest, plan.response_len, plan.max_tokens, plan.multiple)
    compiler_options = same_rounding(model.decoder.dtype)
    reader = Reader(model.apply, plan.temperature, bins, compiler_options)
    names = ("old_token_logps", "ref_token_logps")

    def answer(state: TrainState, frozen: Frozen) -> dict[str, float] | None:
        policy = whole(state.params)
        responses = respond(policy, ids, settings, key, batch_size=size, stop=stop)
        if stop():
            return None
        responses = stop_at(responses, model.tokenizer, options.rollout.stop)
        metrics = length_metrics(responses) | diversity_metrics(responses)
        if options.reward.given:
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
