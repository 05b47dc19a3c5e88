"""Select the responses of a rollout to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jalign.data.examples import Examples, Report
from jalign.rollout.types import Rollout
from jalign.train.scoring import examples_of


@dataclass(frozen=True)
class Selection:
    """The part of a rollout that is learned from.

    Attributes:
      rollout: prompts with the k responses that become an example.
      learned: [B, k] the responses whose tokens the loss reads.
      fields: data fields of the loss, float32: [B], [B, k] or [B, k, R].
    """

    rollout: Rollout
    learned: np.ndarray
    fields: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        rollout: Rollout,
        learned: np.ndarray,
        fields: Mapping[str, np.ndarray],
        *,
        policy_samples: bool,
    ) -> tuple[Selection, int]:
        """The prompts that `fields` keep, and their number. If none is kept, all are returned with
        nothing to learn: a step needs examples to have a shape.

        Args:
          rollout: [B, K] responses.
          learned: [B, K] those the loss may read.
          fields: the experience's result; `take` [B, k] selects the responses of
            an example, `keep` [B] the prompts.
          policy_samples: the format's examples are samples of the policy, whose loss reads
            `old_token_logps`; others (pairs) do not.
        """
        fields = dict(fields)
        take, keep = fields.pop("take", None), fields.pop("keep", None)
        if take is not None:
            rollout, learned = rollout.take(take), np.take_along_axis(learned, take, 1)
            for name in {"old_token_logps", "sampler_token_logps"} & set(fields):
                fields[name] = np.take_along_axis(fields[name], take[..., None], 1)
            if not policy_samples:
                # Pairs have no ratio: their losses compare with the reference.
                fields.pop("old_token_logps", None)
        selection = cls(rollout, learned, {n: np.asarray(x, np.float32) for n, x in fields.items()})
        kept = len(learned) if keep is None else int(np.count_nonzero(keep))
        if not kept:
            return cls(rollout, np.zeros_like(learned), selection.fields), 0
        return selection if kept == len(learned) else selection.at(np.flatnonzero(keep)), kept

    @property
    def scored(self) -> np.ndarray:
        """[B, k, R] the tokens the loss reads."""
        return self.rollout.mask & self.learned[..., None]

    def at(self, prompts: np.ndarray) -> Selection:
        """The prompts of these indices."""
        fields = {name: x[prompts] for name, x in self.fields.items()}
        return Selection(self.rollout.select(prompts), self.learned[prompts], fields)

    @classmethod
    def concatenate(cls, selections: Sequence[Selection], most: int) -> Selection:
        """The first `most` prompts of several selections of one rollout."""
        if len(selections) == 1:
            [selection] = selections
        else:
            names = selections[0].fields
            selection = cls(
                Rollout.concatenate([s.rollout for s in selections]),
                np.concatenate([s.learned for s in selections]),
                {name: np.concatenate([s.fields[name] for s in selections]) for name in names},
            )
        return selection if len(selection.learned) <= most else selection.at(np.arange(most))

    def examples(self, report: Report) -> Examples:
        """The selection as examples for packing."""
        return examples_of(self.rollout, self.learned, self.fields, report)
