"""LLM-as-a-judge.

A judge writes text and scores the probability of each of a few answers; most uses need one of the
two. `ModelJudge` runs in this process, `jalign.rewards.server.ServerJudge` queries a server.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import jax
import numpy as np
from flax import nnx
from transformers import PreTrainedTokenizerBase

from jalign.data.chat import Template
from jalign.data.encoder import Encoder
from jalign.layout import Layout
from jalign.models.decoder import Decoder
from jalign.models.limits import check_rows
from jalign.models.score import score
from jalign.parallel import hosts
from jalign.rewards import shared_prefix
from jalign.rewards.model import _rounded
from jalign.rewards.options import exclusive

LOG = logging.getLogger(__name__)

Ids = tuple[int, ...]
Generate = Callable[..., list[str]]
"""`(prompts as lists of token ids, *, max_tokens, temperature) -> texts`, one per prompt."""


class Judge(Protocol):
    """Interface of a judge. None means that a prompt got no answer."""

    def complete(
        self, prompts: Sequence[str], *, max_tokens: int, temperature: float
    ) -> list[str | None]:
        """A continuation of each prompt, at most `max_tokens`; deterministic at temperature 0."""
        ...

    def option_logps(
        self, prompts: Sequence[str], options: Sequence[str]
    ) -> list[list[float] | None]:
        """For each prompt, log P (nats) that the next text is this option and not a longer one
        (`jalign.rewards.options`).
        """
        ...


def choose(
    judge: Judge, prompts: Sequence[str | None], options: Sequence[Sequence[str]]
) -> list[np.ndarray | None]:
    """softmax over the options of log P(option): [options] float64 for each prompt.

    Args:
      prompts: None is skipped and stays None.
      options: each with its spellings, whose probabilities are summed: a tokenizer may have "1"
        and " 1".
    """
    spellings = [text for option in options for text in option]
    indices = [i for i, prompt in enumerate(prompts) if prompt is not None]
    out: list[np.ndarray | None] = [None] * len(prompts)
    if not indices:
        return out
    texts = [prompt for prompt in prompts if prompt is not None]
    starts = np.cumsum([0] + [len(option) for option in options])[:-1]
    for i, logps in zip(indices, judge.option_logps(texts, spellings), strict=True):
        x = np.array(math.nan if logps is None else logps, np.float64)
        if x.shape == (len(spellings),) and not np.isnan(x).any() and np.isfinite(x.max()):
            # Relative to the largest: log-probs of long options underflow in exp.
            p = np.add.reduceat(np.exp(x - x.max()), starts)
            out[i] = p / p.sum()
    return out


class ModelJudge:
    """A jalign model as a judge.

    Args:
      model: a decoder, or its `nnx.split`.
      tokenizer: its tokenizer.
      template: renders a prompt as the user's turn of a conversation; None passes the plain text,
        for a base model.
      generate: samples text; None is a judge that can only choose among options. It takes token
        ids, which include the BOS.
      batch_size: most rows of one call of the model.
    """

    def __init__(
        self,
        model: Decoder | tuple[nnx.GraphDef, nnx.State],
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: Template | None = None,
        generate: Generate | None = None,
        batch_size: int = 32,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        # Split once: jit takes the state as an argument, else weights become its constants.
        self._split = model if isinstance(model, tuple) else nnx.split(model)
        self._spec = nnx.merge(*self._split).spec
        self._tokenizer = tokenizer
        self._warned = False
        self._encoder, self._template = Encoder(tokenizer), template
        self._generate, self.batch_size = generate, batch_size

    @property
    def state(self) -> nnx.State:
        """Its weights."""
        return self._split[1]

    def complete(
        self, prompts: Sequence[str], *, max_tokens: int, temperature: float
    ) -> list[str | None]:
        """As `Judge.complete`; None if prompt and answer exceed the model's positions.

        Raises:
          ValueError: a judge without `generate`.
        """
        if self._generate is None:
            raise ValueError("this judge cannot write: it was made without `generate`")
        ids = self._encoded(prompts)
        fits = [i for i, x in enumerate(ids) if self._has_room(len(x) + max_tokens)]
        batch = [list(ids[i]) for i in fits]
        self._check(batch, max_tokens)
        texts = self._generate(batch, max_tokens=max_tokens, temperature=temperature)
        completions = dict(zip(fits, texts, strict=True))
        return [completions.get(i) for i in range(len(ids))]

    def option_logps(
        self, prompts: Sequence[str], options: Sequence[str]
    ) -> list[list[float] | None]:
        """As `Judge.option_logps`, by the chain rule; None if a prompt is too long.

        A row of the model holds a prompt and a token prefix that some options share; all of their
        next tokens are scored at its end: ten numbers take one or two rows, not ten.

        Raises:
          ValueError: no options, or an empty one.
        """
        tokens, nexts = self._spelled(options)
        ids, fits = self._fitting(prompts, tokens)
        rows = iter(self.next_logps([(ids[i] + s, nexts[s]) for i in fits for s in nexts]))
        out: list[list[float] | None] = [None] * len(ids)
        for i in fits:
            out[i] = _chained(tokens, {s: next(rows) for s in nexts}, nexts)
        return out

    def grouped_option_logps(
        self, groups: Sequence[Sequence[str]], options: Sequence[str]
    ) -> list[list[list[float] | None]]:
        """`option_logps` of each prompt of each group; what the prompts of a group begin with is
        read once (`jalign.rewards.shared_prefix`).
        """
        tokens, nexts = self._spelled(options)
        out: list[list[list[float] | None]] = []
        # groups without a prompt that fits are left out, and keep their None
        asked, spots = [], []
        for g, prompts in enumerate(groups):
            ids, fits = self._fitting(prompts, tokens)
            out.append([None] * len(ids))
            if fits:
                asked.append([(ids[i] + s, nexts[s]) for i in fits for s in nexts])
                spots.append((g, fits))
        grouped = shared_prefix.next_logps(asked, self._scored, rows=self.batch_size)
        for (g, fits), group in zip(spots, grouped, strict=True):
            rows = iter(group)
            for i in fits:
                out[g][i] = _chained(tokens, {s: next(rows) for s in nexts}, nexts)
        return out

    def _scored(self, layout: Layout) -> np.ndarray:
        return hosts.gather(_all_token_logps(*self._split, layout))

    def _spelled(self, options: Sequence[str]) -> tuple[list[Ids], dict[Ids, list[int]]]:
        """Tokens of the options, and for every prefix of them the tokens that may come next."""
        if not options or not all(options):
            raise ValueError(f"options must be texts, got {list(options)}")
        tokens: list[Ids] = [tuple(ids) for ids in self._encoder.continuations(options)]
        if not all(tokens):
            raise ValueError(f"the tokenizer makes nothing of some of the options {list(options)}")
        shared = sorted({ids[:j] for ids in tokens for j in range(len(ids))})
        nexts = {s: sorted({x[len(s)] for x in tokens if x[: len(s)] == s != x}) for s in shared}
        return tokens, nexts

    def _fitting(self, prompts: Sequence[str], tokens: list[Ids]) -> tuple[list[Ids], list[int]]:
        """Ids of the prompts, and which of them have room for an option."""
        ids, longest = self._encoded(prompts), max(map(len, tokens))
        fits = [i for i, x in enumerate(ids) if x and self._has_room(len(x) + longest)]
        self._check([ids[i] for i in fits], longest)
        self._check(tokens, 0)
        return ids, fits

    def _has_room(self, tokens: int) -> bool:
        room = self._spec.learned_positions
        return room is None or tokens <= room

    def _check(self, rows: Sequence[Sequence[int]], more: int) -> None:
        """Check that all tokens have embeddings; warn once if rows exceed the trained context."""
        where = {"tokenizer": self._tokenizer, "model": "the judge", "what": "the judge's prompt"}
        warning = check_rows(rows, self._spec, sampled=more, **where)
        if warning and not self._warned:
            self._warned = True
            LOG.warning("%s", warning)

    def _encoded(self, prompts: Sequence[str]) -> list[Ids]:
        """Ids of prompts: text with the tokenizer's default BOS, or a chat as rendered by its
        template.
        """
        texts, bos = list(prompts), self._encoder.bos
        if (template := self._template) is not None:
            turns = [[{"role": "user", "content": text}] for text in texts]
            texts, bos = [template.render(turn, open_turn=True) for turn in turns], None
        encoded = [tuple(ids) for ids in self._encoder.starts(texts)]
        return [x if bos is None or x[:1] == (bos,) else (bos, *x) for x in encoded]

    def next_logps(self, rows: Sequence[tuple[Ids, list[int]]]) -> list[list[float]]:
        """log P (nats) of the given next tokens of each row; similar lengths share a batch."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        width = max((len(nexts) for _, nexts in rows), default=0)
        out: list[list[float]] = [[] for _ in rows]
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            length = _rounded(max(len(rows[i][0]) for i in batch) + width, least=32)
            # Rounded: every new shape compiles the model again.
            count = min(_rounded(len(batch), least=1), self.batch_size)
            layout = _layout([rows[i] for i in batch], count, length, width)
            next_logps = hosts.gather(_token_logps(*self._split, layout))
            for i, logps in zip(batch, next_logps, strict=False):
                out[i] = [float(x) for x in logps[: len(rows[i][1])]]
        return out


def _chained(
    tokens: list[Ids], logps: Mapping[Ids, list[float]], nexts: Mapping[Ids, list[int]]
) -> list[float]:
    """log P of each option, by the chain rule over its tokens."""
    of: dict[Ids, float] = {}
    for s in nexts:
        of |= {(*s, t): p for t, p in zip(nexts[s], logps[s], strict=True)}
    chain = [sum(of[x[: j + 1]] for j in range(len(x))) for x in tokens]
    return exclusive(tokens, chain)


def _layout(rows: Sequence[tuple[Ids, list[int]]], count: int, length: int, width: int) -> Layout:
    """Padded rows, scored at their ends once per next token. The next tokens are stored in the
    padding, behind all positions that are read."""
    tokens, positions = np.zeros((2, count, length), np.int32)
    before, at = np.zeros((2, count, width), np.int32)
    for row, (ids, nexts) in enumerate(rows):
        end, m = len(ids), len(nexts)
        tokens[row, :end], tokens[row, end : end + m] = ids, nexts
        positions[row, :end] = np.arange(end)
        before[row, :m], at[row, :m] = end - 1, np.arange(end, end + m)
    slots = np.tile(np.arange(width, dtype=np.int32), (count, 1, 1, 1))
    return Layout(tokens, positions, before, at, slots)


@partial(jax.jit, static_argnums=0)
def _token_logps(graphdef: nnx.GraphDef, state: nnx.State, layout: Layout) -> jax.Array:
    """[rows, width] log-probs, nats."""
    return _all_token_logps(graphdef, state, layout)[:, 0, :]


@partial(jax.jit, static_argnums=0)
def _all_token_logps(graphdef: nnx.GraphDef, state: nnx.State, layout: Layout) -> jax.Array:
    """[B, K, R] log-probs, nats."""
    return score(nnx.merge(graphdef, state), layout, ("token_logps",))["token_logps"]
