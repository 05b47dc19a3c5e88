"""K responses to each of many prompts, as lists of token ids on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jalign.parallel import hosts
from jalign.rollout.decode_model import Model, ready
from jalign.rollout.sampler import Settings, sample


class Responses(NamedTuple):
    """K responses to each of B prompts.

    Attributes:
      tokens: [B][K] int32 ids, the ending EOS included.
      token_logps: [B][K] float32 log-probs under the distribution each was sampled from, nats.
      finished: [B, K] ended by an EOS, not by the limit.
    """

    tokens: list[list[np.ndarray]]
    token_logps: list[list[np.ndarray]]
    finished: np.ndarray

    def beside(self, other: Responses) -> Responses:
        """The responses of both to the same prompts, these first."""
        return Responses(
            [a + b for a, b in zip(self.tokens, other.tokens, strict=True)],
            [a + b for a, b in zip(self.token_logps, other.token_logps, strict=True)],
            np.concatenate([self.finished, other.finished], 1),
        )

    def part(self, of: slice) -> Responses:
        """Some of the K responses."""
        tokens, logps = ([row[of] for row in rows] for rows in (self.tokens, self.token_logps))
        return Responses(tokens, logps, self.finished[:, of])


def respond(
    model: Model,
    prompts: Sequence[np.ndarray],
    settings: Settings,
    key: jax.Array,
    *,
    batch_size: int,
    other: Model | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Responses:
    """`settings.responses` responses to each prompt.

    Prompts of like length are sampled together; every call has `batch_size` of them (the last one
    repeats a prompt), so that a run compiles one program per bucket of prompt lengths.

    Args:
      model: as for `sample`.
      prompts: token ids, at least one each.
      key: a call folds its number into it.
      batch_size: prompts per call.
      other: the second model of a mixture.
      stop: asked before every call; once it says so there is no further one, and the prompts that
        are left have no responses.
    """
    rows = batch_size * settings.responses
    model = ready(model, rows)
    other = None if other is None else ready(other, rows)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    k = settings.responses
    tokens: list[list[np.ndarray]] = [[] for _ in prompts]
    logps: list[list[np.ndarray]] = [[] for _ in prompts]
    finished = np.zeros((len(prompts), k), bool)
    for number, start in enumerate(range(0, len(order), batch_size)):
        if stop():
            break
        chosen = order[start : start + batch_size]
        rows = [prompts[i] for i in chosen]
        rows += [rows[-1]] * (batch_size - len(chosen))
        lengths = np.array([len(row) for row in rows], np.int32)
        ids = np.zeros((batch_size, lengths.max()), np.int32)
        for row, prompt in zip(ids, rows, strict=True):
            row[: len(prompt)] = prompt
        out = sample(model, ids, lengths, jax.random.fold_in(key, number), settings, other)
        ids, mask, found, done = (hosts.gather(x) for x in out)
        for j, i in enumerate(chosen):
            at = range(j * k, (j + 1) * k)
            tokens[i] = [ids[r][mask[r]] for r in at]
            logps[i] = [found[r][mask[r]] for r in at]
            finished[i] = done[j * k : (j + 1) * k]
    return Responses(tokens, logps, finished)


def greedy(settings: Settings) -> Settings:
    """The same settings for one most probable response."""
    return dataclasses.replace(settings, temperature=0.0, top_k=None, top_p=1.0, responses=1)
