"""Best of n: responses ranked by a reward model (rejection sampling).

Stiennon et al. 2020, https://arxiv.org/abs/2009.01325; Touvron et al. 2023 (Llama 2),
https://arxiv.org/abs/2307.09288, section 3.2.3, which fine-tunes on the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jalign.rewards.model import RewardModel

Row = dict[str, Any]


def best_first(rows: Sequence[Row], reward: RewardModel) -> list[Row]:
    """Sort the responses of each row by decreasing reward; add `rewards` and the best `reward`.

    Empty responses are dropped; if none remains, the lists are empty and `reward` is None. The data
    readers recognize such rows as rated lists: `sft` trains on the best response of each, `dpo` on
    the best against the worst.

    Args:
      rows: dictionaries with `prompt` and `responses`.
    """
    # one call for all rows, so that batches of the reward model are full
    prompts = [row["prompt"] for row in rows for _ in row["responses"]]
    scores = iter(reward(prompts, [text for row in rows for text in row["responses"]]))
    out = []
    for row in rows:
        values = np.array([next(scores) for _ in row["responses"]])
        # stable: equal rewards stay in the order of sampling; an empty response has the reward -inf
        order = [i for i in np.argsort(-values, kind="stable") if np.isfinite(values[i])]
        rewards = [float(values[i]) for i in order]
        ranked = {"responses": [row["responses"][i] for i in order], "rewards": rewards}
        out.append(row | ranked | {"reward": rewards[0] if rewards else None})
    return out
