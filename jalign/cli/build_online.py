"""What an online run needs beside an offline one: prompts, sampler, rewards, the source."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jalign.cli import build, build_data, runs
from jalign.config import Config
from jalign.core import Frozen, TrainState
from jalign.data.examples import Example, Examples
from jalign.models.functional import Whole, policy_of
from jalign.parallel import hosts
from jalign.rewards.functions import RewardFunctions
from jalign.rollout import record
from jalign.rollout.groups import Responses, greedy, respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings, continuation
from jalign.train.online import Online, Plan, length_metrics
from jalign.train.rollout import Bins, Judged, Reader
from jalign.train.step import with_reference

LOG = logging.getLogger(__name__)


class Texts:
    """Prompts as texts and the columns of their rows, for rewards.

    Args:
      examples: prompts; their extra `row` says which row each came from.
      rows: of the data set.
    """

    def __init__(self, examples: Examples, rows: Sequence[Any], tokenizer: Any):
        self.examples, self.rows, self.tokenizer = examples, rows, tokenizer

    def prompt(self, i: int) -> str:
        return self.tokenizer.decode(self.examples[i].prompt, skip_special_tokens=True)

    def response(self, i: int, tokens: np.ndarray) -> str:
        return continuation(self.tokenizer, self.examples[i].prompt.tolist(), tokens.tolist())

    def columns(self, numbers: Sequence[int]) -> dict[str, list[Any]]:
        """Every column of the data but the prompt, one entry per number."""
        rows = [self.rows[int(self.examples.extras["row"][i])] for i in numbers]
        return {name: [row.get(name) for row in rows] for name in rows[0]} if rows else {}


def plan_of(config: Config) -> Plan:
    c, row = config.rollout, build.algorithm_of(config)
    assert row.experience is not None
    cpu, from_data = jax.default_backend() == "cpu", row.experience.last == "data"
    return Plan(
        batch_size=config.batch_size,
        prompts=c.prompts or config.batch_size,
        epochs=c.epochs,
        responses=c.responses or row.experience.responses,
        response_len=max(c.max_new_tokens, config.data.max_response_len * from_data),
        max_tokens=config.data.max_tokens or (2048 if cpu else 8192),
        multiple=64 if cpu else 128,
        temperature=c.temperature,
        kl_target=c.kl_target,
        kl_horizon=c.kl_horizon,
        importance_cap=c.importance_cap,
        attempts=c.attempts,
        mask_truncated=c.mask_truncated,
    )


def settings_of(config: Config, model: build.Model) -> Settings:
    c = config.rollout
    return Settings(
        max_new_tokens=c.max_new_tokens,
        temperature=c.temperature,
        top_k=c.top_k or None,
        top_p=c.top_p,
        eos=build.eos_ids(model.path, model.tokenizer),
        responses=plan_of(config).responses,
    )


def sampler_of(config: Config, model: build.Model, prompts: Examples) -> Any:
    """`(state, frozen, numbers, key) -> Responses`; the last response by whom the method says."""
    row = build.algorithm_of(config)
    assert row.experience is not None
    settings, last = settings_of(config, model), row.experience.last
    size = config.rollout.sample_batch or config.rollout.prompts or config.batch_size
    alone = last == "policy"
    own = settings if alone else replace(settings, responses=settings.responses - 1)
    one = replace(settings, responses=1)

    def sampler(state: TrainState, frozen: Frozen, numbers, key: jax.Array) -> Responses:
        ids = [prompts[i].prompt for i in numbers]
        policy = build.merged(model, state.params)
        if rows := config.rollout.rows:
            found = respond_refilling(policy, ids, own, key, rows=rows)
        else:
            found = respond(policy, ids, own, key, batch_size=size)
        if alone:
            return found
        if last == "data":
            return found.beside(from_data([prompts[i] for i in numbers]))
        other_key = jax.random.fold_in(key, 1 << 20)
        other = reference_of(model, with_reference(frozen, state))
        if last == "reference":
            return found.beside(respond(other, ids, one, other_key, batch_size=size))
        mixed = replace(one, mixture=config.rollout.mixture)
        more = respond(policy, ids, mixed, other_key, batch_size=size, other=other)
        return found.beside(more)

    return sampler


def from_data(examples: Sequence[Example]) -> Responses:
    """The data's own responses, as if they had been sampled."""
    return Responses(
        [[e.responses[0]] for e in examples],
        [[np.zeros(len(e.responses[0]), np.float32)] for e in examples],
        np.ones((len(examples), 1), bool),
    )


def greedy_of(config: Config, model: build.Model, prompts: Examples) -> Any:
    """The most probable response to each prompt."""
    settings = greedy(settings_of(config, model))
    size = config.rollout.sample_batch or config.rollout.prompts or config.batch_size

    def sampler(state: TrainState, frozen: Frozen, numbers, key: jax.Array) -> Responses:
        del frozen
        ids = [prompts[i].prompt for i in numbers]
        return respond(build.merged(model, state.params), ids, settings, key, batch_size=size)

    return sampler


def reference_of(model: build.Model, frozen: Frozen) -> Any:
    """The reference as the sampler takes it."""
    if isinstance(frozen.ref, Whole):
        return frozen.ref.graphdef, frozen.ref.state
    return build.merged(model, policy_of(frozen.ref))


def judge_of(config: Config) -> Any:
    """`(texts, numbers, responses) -> Judged` by all rewards of the config (none: nothing)."""
    c = config.reward
    functions = RewardFunctions(c.functions, options=c.options) if c.functions else None
    model = runs.reward_model(c.model) if c.model else None

    def judge(texts: Texts, numbers: Sequence[int], responses: Responses) -> Judged:
        if not c.given:
            return Judged(None, None, {})
        b, k = len(numbers), len(responses.tokens[0])
        flat = [i for i in numbers for _ in range(k)]
        prompts = [texts.prompt(i) for i in flat]
        tokens = [t for row in responses.tokens for t in row]
        answers = [texts.response(i, t) for i, t in zip(flat, tokens, strict=True)]
        total, metrics = np.zeros(len(flat)), {}
        if functions:
            columns = texts.columns(flat) | {"response_tokens": [len(t) for t in tokens]}
            scored = functions(prompts, answers, columns)
            total, metrics = total + scored.total, scored.metrics()
            for name, why in scored.errors.items():
                LOG.warning("reward %s failed for some responses: %s", name, why)
        if model:
            found = model(prompts, answers)
            known = found[np.isfinite(found)]
            total = total + c.model_weight * found
            metrics["rewards/model/mean"] = float(known.mean()) if known.size else math.nan
            metrics["rewards/model/failed"] = float(found.size - known.size)
        if c.clip:
            total = np.clip(total, -c.clip, c.clip)
        total = total - c.missing_eos_penalty * ~responses.finished.reshape(-1)
        scores = total.reshape(b, k).astype(np.float32)
        return Judged(scores, bradley_terry(scores, c.temperature), metrics)

    return judge


def bradley_terry(scores: np.ndarray, temperature: float) -> np.ndarray:
    """[B, K, K] sigmoid((score_i - score_j) / temperature); a response without a score is nobody's
    equal or better: 0.5 against all, and not learnt from.
    """
    gap = (scores[:, :, None] - scores[:, None, :]) / temperature
    gap = np.nan_to_num(gap, nan=0.0, posinf=0.0, neginf=0.0)
    return (1 / (1 + np.exp(-gap))).astype(np.float32)


def source_of(config: Config, model: build.Model, prompts: Examples, mesh: Mesh) -> Online:
    """The source of an online run."""
    rows, _ = build_data.all_rows(config)
    texts = Texts(prompts, rows, model.tokenizer)
    keeper = partial(keep, Path(config.out) / record.FOLDER, texts)
    return Online(
        build.algorithm_of(config),
        config.hyper,
        prompts,
        sampler_of(config, model, prompts),
        partial(judge_of(config), texts),
        model.apply,
        plan_of(config),
        mesh,
        seed=config.seed,
        greedy=greedy_of(config, model, prompts),
        keep=keeper if config.rollout.record else None,
    )


def keep(
    folder: Path,
    texts: Texts,
    number: int,
    chosen: Sequence[int],
    responses: Responses,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write a rollout to the run's folder."""
    if not hosts.is_main():
        return
    prompts = [texts.prompt(i) for i in chosen]
    answers = [
        [texts.response(i, t) for t in row] for i, row in zip(chosen, responses.tokens, strict=True)
    ]
    record.write(folder, number, prompts, answers, responses, arrays)


def answers_of(config: Config, model: build.Model, held: Examples, mesh: Mesh) -> Any:
    """`(state, frozen) -> metrics` of one response to every held-out prompt: reward, lengths, and
    where there is a reference the KL divergence to it (k1, nats per response).
    """
    _, rows = build_data.all_rows(config)
    judge, texts = judge_of(config), Texts(held, rows, model.tokenizer)
    plan, settings = plan_of(config), replace(settings_of(config, model), responses=1)
    size = min(config.rollout.sample_batch or config.batch_size, len(held))
    numbers, ids = range(len(held)), [example.prompt for example in held]
    key = jax.random.fold_in(jax.random.key(config.seed), 4)
    longest = int(held.lengths().prompt_len.max())
    bins = Bins(mesh, longest, plan.response_len, plan.max_tokens, plan.multiple)
    reader = Reader(model.apply, plan.temperature, bins)
    names = ("old_token_logps", "ref_token_logps")

    def answer(state: TrainState, frozen: Frozen) -> dict[str, float]:
        responses = respond(build.merged(model, state.params), ids, settings, key, batch_size=size)
        metrics = length_metrics(responses)
        if config.reward.given:
            judged = judge(texts, numbers, responses)
            known = judged.scores[np.isfinite(judged.scores)]
            metrics |= judged.metrics | {"reward": float(known.mean()) if known.size else math.nan}
        if frozen.ref is not None:
            found = reader(ids, responses, names, state.params, frozen)
            k1 = found["old_token_logps"] - found["ref_token_logps"]
            metrics["objective/kl"] = float(k1.sum(-1).mean())
        return {name: x for name, x in metrics.items() if np.isfinite(x)}

    return answer
