"""What is measured of a policy, alike for every method: answers, rewards, KL, accuracy, NLL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jalign import algorithms
from jalign.core import Frozen
from jalign.leaderboard.noise import Row
from jalign.leaderboard.setting import Setting
from jalign.options import RunOptions
from jalign.rollout.groups import respond
from jalign.rollout.sampler import Settings
from jalign.rollout.types import Rollout
from jalign.run.data import held_of, rows_of
from jalign.run.devices import usual_multiple, usual_tokens
from jalign.run.policy import Policy
from jalign.run.prompts import PromptTable
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.scoring import ResponseScorer

SAMPLE_BATCH = 64


@dataclass
class Answers:
    """One response to each of n prompts, with [n] values.

    Attributes:
      ids: token ids of each response.
      true, proxy: rewards.
      kl: log p(response) - log p_start(response), nats: its mean estimates KL(policy || start).
    """

    prompts: list[str]
    texts: list[str]
    ids: list[list[int]]
    finished: np.ndarray
    true: np.ndarray
    proxy: np.ndarray
    kl: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each response."""
        return np.array([len(x) for x in self.ids])


class Measure:
    """Measures policies with programs that are compiled once.

    Args:
      setting: start, data and rewards.
    """

    def __init__(self, setting: Setting):
        self.setting, self.spec = setting, setting.spec
        self._scorers: dict[Any, ResponseScorer] = {}
        self._data = setting.data

    # ---- answers to prompts

    @cached_property
    def validation(self) -> PromptTable:
        """Prompts on which learning rates are selected."""
        return self._table(self.setting.rows[1])

    @cached_property
    def test(self) -> PromptTable:
        """Prompts on which methods are ranked."""
        return self._table(self.setting.rows[2])

    def answers(self, policy: Policy, table: PromptTable, seed: int) -> Answers:
        """Sample one response to every prompt; equal seeds draw equal random numbers."""
        s = self.spec
        settings = Settings(
            max_new_tokens=s.max_new_tokens, temperature=s.temperature, eos=policy.eos
        )
        ids = [table[i].ids for i in range(len(table))]
        key = jax.random.key(seed)
        size = min(SAMPLE_BATCH, len(ids))
        with jax.set_mesh(policy.mesh):
            rollout = respond(policy.weights, ids, settings, key, batch_size=size)
        texts = [table.decode(i, rollout.response(i, 0)) for i in range(len(table))]
        prompts = [table[i].text for i in range(len(table))]
        # at temperature 1 and without cuts the sampler's log-probs are those of the policy
        own = rollout.token_logps.sum(-1) if s.temperature == 1 else self._logps(policy, rollout)
        kl = own - self._logps(self.setting.start, rollout)
        return Answers(
            prompts,
            texts,
            [rollout.response(i, 0).tolist() for i in range(len(table))],
            rollout.finished[:, 0],
            self.setting.judged(prompts, texts),
            np.asarray(self.setting.proxy.of_sampled(prompts, texts), float),
            kl[:, 0],
        )

    def _table(self, rows: Sequence[Row]) -> PromptTable:
        prompts = [{"prompt": row["prompt"]} for row in rows]
        return PromptTable.of_rows(prompts, self.setting.start.tokenizer, self._data)

    # ---- log-probs of given texts

    @cached_property
    def pairs(self) -> Rollout:
        """The test pairs, the preferred response first."""
        return self._rollout("dpo", self.setting.rows[2])

    @cached_property
    def texts(self) -> Rollout:
        """Texts that no method learns from."""
        if not self.spec.texts:
            return self.pairs
        rows = rows_of(self.spec.texts, "train")[: self.spec.text_limit]
        return self._rollout("sft", rows)

    def margins(self, policy: Policy) -> np.ndarray:
        """[n] implicit-reward margins of the test pairs, nats:
        log(p/p_start)(chosen) - log(p/p_start)(rejected).
        """
        ratio = self._logps(policy, self.pairs) - self._start_of_pairs
        return ratio[:, 0] - ratio[:, 1]

    def nll(self, policy: Policy) -> np.ndarray:
        """[n] negative log-likelihood of the held-out texts, nats."""
        return -self._logps(policy, self.texts).sum(-1)

    @cached_property
    def _start_of_pairs(self) -> np.ndarray:
        return self._logps(self.setting.start, self.pairs)

    def _rollout(self, row: str, rows: Sequence[Row]) -> Rollout:
        options = RunOptions(algorithm=algorithms.get(row), data=self._data)
        examples = held_of(options, self.setting.start.tokenizer, list(rows))
        assert examples is not None
        # a text without a prompt: its first token, the BOS where there is one, is not scored
        split = [
            (e.prompt, e.responses) if len(e.prompt) else (e.responses[0][:1], [e.responses[0][1:]])
            for e in examples
        ]
        return Rollout.from_lists([prompt for prompt, _ in split], [x for _, x in split])

    def _logps(self, policy: Policy, rollout: Rollout) -> np.ndarray:
        """[B, K] log p(response | prompt), nats."""
        apply, params, base = policy.functional()
        # policies of one architecture share a program; adapters make another
        kind = (policy.weights[0], rollout.tokens.shape[1:])
        if kind not in self._scorers:
            longest = max(map(len, rollout.prompts))
            packer = MicroBatchPacker(
                policy.mesh, max(longest, self.spec.max_prompt_len), rollout.tokens.shape[-1],
                usual_tokens(), usual_multiple(),
            )  # fmt: skip
            self._scorers[kind] = ResponseScorer(apply, 1.0, packer)
        with jax.set_mesh(policy.mesh):
            name = "old_token_logps"
            logps = self._scorers[kind](rollout, (name,), params, Frozen(base, None))[name]
        return logps.sum(-1)
