"""The record of a rollout: K sampled responses to each of B prompts, padded once, on the host.

Letters: B prompts, K responses per prompt, R most tokens of a response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Rollout(NamedTuple):
    """K responses to each of B prompts. Sampling, stop strings, rewards, scoring and packing share
    this record, so that responses are padded once.

    Attributes:
      prompts: B arrays of token ids, as the policy reads them.
      tokens: [B, K, R] token ids, the ending EOS included; 0 behind a response.
      mask: [B, K, R] True on the tokens of a response, which are the first of its row.
      token_logps: [B, K, R] log-probs under the distribution each token was sampled from, nats;
        0 behind a response.
      finished: [B, K] the response ended by itself (EOS or stop string), not by the limit.
      experts: [B, K, R, L * k] the experts of a mixture that each token used in each layer, -1
        where that is not known (as of the last token, which the sampler does not read); or None.
    """

    prompts: Sequence[np.ndarray]
    tokens: Int[np.ndarray, "B K R"]
    mask: Bool[np.ndarray, "B K R"]
    token_logps: Float[np.ndarray, "B K R"]
    finished: Bool[np.ndarray, "B K"]
    experts: Int[np.ndarray, "B K R E"] | None = None

    @classmethod
    def empty(cls, prompts: Sequence[np.ndarray], responses: int, length: int) -> Rollout:
        """No tokens yet: arrays of zeros for a sampler to write into."""
        shape = (len(prompts), responses, length)
        return cls(
            tuple(prompts),
            np.zeros(shape, np.int32),
            np.zeros(shape, bool),
            np.zeros(shape, np.float32),
            np.zeros(shape[:2], bool),
        )

    @classmethod
    def from_lists(
        cls,
        prompts: Sequence[np.ndarray],
        tokens: Sequence[Sequence[Sequence[int] | np.ndarray]],
        *,
        token_logps: Sequence[Sequence[Sequence[float] | np.ndarray]] | None = None,
        finished: np.ndarray | Sequence[Sequence[bool]] | None = None,
    ) -> Rollout:
        """The record of responses of any lengths, as another sampling engine returns them.

        Args:
          prompts: B arrays of token ids.
          tokens: [B][K] token ids of responses.
          token_logps: [B][K] their log-probs, nats; None if unknown, stored as 0
            (`rollout.importance_cap`, `rollout.corrections` and the metric
            `rollout/kl_to_trainer` are then meaningless).
          finished: [B, K]; None: all ended by themselves.

        Raises:
          ValueError: prompts that do not all have the same number of responses.
        """
        counts = {len(row) for row in tokens}
        if len(counts) > 1 or len(tokens) != len(prompts):
            raise ValueError(
                f"each of {len(prompts)} prompts needs the same number of responses, got "
                f"{len(tokens)} lists of {sorted(counts)}"
            )
        longest = max((len(ids) for row in tokens for ids in row), default=0)
        rollout = cls.empty(prompts, max(counts, default=0), longest)
        for b, row in enumerate(tokens):
            for k, ids in enumerate(row):
                logps = None if token_logps is None else token_logps[b][k]
                rollout.write(b, k, ids, logps)
        ended = np.ones(rollout.finished.shape, bool) if finished is None else finished
        return rollout._replace(finished=np.asarray(ended, bool).reshape(rollout.finished.shape))

    def write(
        self,
        b: int,
        k: int,
        ids: Sequence[int] | np.ndarray,
        token_logps: Sequence[float] | np.ndarray | None,
    ) -> None:
        """Fill the empty slot of response k to prompt b."""
        self.tokens[b, k, : len(ids)], self.mask[b, k, : len(ids)] = ids, True
        if token_logps is not None:
            self.token_logps[b, k, : len(ids)] = token_logps

    @property
    def lengths(self) -> Int[np.ndarray, "B K"]:
        """Tokens of each response."""
        return self.mask.sum(-1)

    def response(self, b: int, k: int) -> np.ndarray:
        """Token ids of one response, without padding."""
        return self.tokens[b, k, : int(self.mask[b, k].sum())]

    def responses(self) -> list[np.ndarray]:
        """Token ids of all B*K responses without padding, those to a prompt one after the other."""
        flat, lengths = self.tokens.reshape(-1, self.tokens.shape[-1]), self.lengths.reshape(-1)
        return [ids[:n] for ids, n in zip(flat, lengths, strict=True)]

    def padded_to(self, length: int) -> Rollout:
        """The same responses in arrays with R = `length`.

        Raises:
          ValueError: a longer response.
        """
        more = length - self.tokens.shape[-1]
        if not more:
            return self
        if more < 0:
            # Empty columns may go: a sampler may pad to more than the run allows.
            if self.mask[..., length:].any():
                raise ValueError(
                    f"a response has {int(self.lengths.max())} tokens, more than the {length} that "
                    "are allowed"
                )
            tokens, mask, logps = (x[..., :length] for x in self[1:4])
            experts = None if self.experts is None else self.experts[:, :, :length]
            return Rollout(self.prompts, tokens, mask, logps, self.finished, experts)
        pad = ((0, 0), (0, 0), (0, more))
        tokens, mask, logps = (np.pad(x, pad) for x in self[1:4])
        experts = self.experts
        if experts is not None:
            experts = np.pad(experts, (*pad, (0, 0)), constant_values=-1)
        return Rollout(self.prompts, tokens, mask, logps, self.finished, experts)

    def cut(self, lengths: Int[np.ndarray, "B K"]) -> Rollout:
        """The first `lengths` tokens of each response."""
        mask = self.mask & (np.arange(self.mask.shape[-1]) < lengths[..., None])
        return self._replace(
            tokens=np.where(mask, self.tokens, 0).astype(np.int32),
            mask=mask,
            token_logps=np.where(mask, self.token_logps, 0).astype(np.float32),
        )

    def beside(self, other: Rollout) -> Rollout:
        """The responses of both to the same prompts, these first."""
        length = max(self.tokens.shape[-1], other.tokens.shape[-1])
        pairs = zip(self.padded_to(length)[1:], other.padded_to(length)[1:], strict=True)
        return Rollout(self.prompts, *(_joined(pair, 1) for pair in pairs))

    def take(self, responses: Int[np.ndarray, "B k"]) -> Rollout:
        """For every prompt the responses of these indices, in their order."""
        at = np.arange(len(self.prompts))[:, None], responses
        return self._mapped(lambda x: x[at])

    def select(self, prompts: Int[np.ndarray, " b"]) -> Rollout:
        """The prompts of these indices with their responses."""
        selected = tuple(self.prompts[i] for i in prompts)
        return self._mapped(lambda x: x[prompts])._replace(prompts=selected)

    def with_experts(self, width: int) -> Rollout:
        """The same with experts that are not known yet."""
        return self._replace(experts=np.full((*self.tokens.shape, width), -1, np.int16))

    def _mapped(self, fn: Callable[[np.ndarray], np.ndarray]) -> Rollout:
        return Rollout(self.prompts, *(None if x is None else fn(x) for x in self[1:]))

    @classmethod
    def concatenate(cls, rollouts: Sequence[Rollout]) -> Rollout:
        """The prompts of several rollouts of equal K and R with their responses."""
        prompts = tuple(prompt for rollout in rollouts for prompt in rollout.prompts)
        return cls(prompts, *(_joined(x, 0) for x in zip(*(r[1:] for r in rollouts), strict=True)))


def _joined(arrays: Sequence[np.ndarray | None], axis: int) -> np.ndarray | None:
    """Concatenated; experts are known of all responses or of none."""
    present = [x for x in arrays if x is not None]
    return np.concatenate(present, axis) if len(present) == len(arrays) else None
