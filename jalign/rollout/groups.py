"""K responses to each of many prompts, in batches of similar prompt length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jalign.parallel import hosts
from jalign.rollout.decode_model import Model, for_sampling
from jalign.rollout.sampler import Settings, sample
from jalign.rollout.types import Rollout


def respond(
    model: Model,
    prompts: Sequence[np.ndarray],
    settings: Settings,
    key: jax.Array,
    *,
    batch_size: int,
    other: Model | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Rollout:
    """`settings.responses` responses to each prompt.

    Prompts of like length are sampled together; every call has `batch_size` of them (the last one
    repeats a prompt), so that a run compiles one program per bucket of prompt lengths.

    Args:
      model: as for `sample`.
      prompts: token ids, at least one each.
      key: a call folds its number into it.
      batch_size: prompts per call.
      other: the second model of a mixture.
      stop: called before every batch; once it returns True sampling ends, and the remaining prompts
        have no responses.
    """
    rows, k = batch_size * settings.responses, settings.responses
    # Once for all batches, since changing the layout copies the weights.
    model = for_sampling(model, rows)
    other = None if other is None else for_sampling(other, rows)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    rollout = Rollout.empty(prompts, k, settings.max_new_tokens)
    for number, start in enumerate(range(0, len(order), batch_size)):
        if stop():
            break
        batch = order[start : start + batch_size]
        ids, lengths = pad_prompts([prompts[i] for i in batch], batch_size)
        out = sample(model, ids, lengths, jax.random.fold_in(key, number), settings, other)
        if out.experts is not None and rollout.experts is None:
            rollout = rollout.with_experts(out.experts.shape[-1])
        for array, sampled in zip(rollout[1:], out, strict=True):
            if sampled is not None:
                grouped = hosts.gather(sampled).reshape(batch_size, k, *sampled.shape[1:])
                array[batch] = grouped[: len(batch)]
    return rollout


def pad_prompts(
    prompts: Sequence[np.ndarray], count: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """[count, P] token ids, right-padded with 0, and [count] lengths. The last prompt is repeated
    up to `count` rows, since a last batch of another size would compile another program.
    """
    count = count or len(prompts)
    rows = [*prompts, *[prompts[-1]] * (count - len(prompts))]
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.zeros((count, lengths.max()), np.int32)
    for row, prompt in zip(ids, rows, strict=True):
        row[: len(prompt)] = prompt
    return ids, lengths


def greedy(settings: Settings) -> Settings:
    """The same settings for one greedy response."""
    return dataclasses.replace(settings, temperature=0.0, top_k=None, top_p=1.0, responses=1)
