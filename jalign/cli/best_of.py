"""The best of N samples by a reward model (rejection sampling), for `jalign sample`.

Stiennon et al. 2020, https://arxiv.org/abs/2009.01325; Touvron et al. 2023 (Llama 2),
https://arxiv.org/abs/2307.09288, section 3.2.3, which fine-tunes on what it selects.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jalign.rewards.model import RewardModel


def check(options: Any) -> None:
    """Whether --best_of and --reward fit each other and the other options."""
    given = {"--best_of": options.best_of, "--reward": options.reward}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 1:
        raise ValueError(f"--best_of N and --reward DIR go together: {missing[0]} is missing")
    if missing:
        return
    if options.best_of < 1:
        raise ValueError(f"--best_of must be at least 1, got {options.best_of}")
    if options.responses != 1:
        raise ValueError("--best_of says how many are sampled: leave out --responses")
    if options.temperature == 0:
        raise ValueError("--best_of needs a --temperature above 0: greedy samples are all the same")


def best_first(rows: Sequence[dict[str, Any]], reward: RewardModel) -> list[dict[str, Any]]:
    """Rows with their responses by falling reward, `rewards` of each and `reward` of the first.

    Empty responses are left out; where nothing is left the lists are empty and `reward` is None.
    The data readers take such rows for rated lists: `sft` trains on the best of each, `dpo` on the
    best against the worst.

    Args:
      rows: each a prompt and its responses.
    """
    prompts = [row["prompt"] for row in rows for _ in row["responses"]]
    scores = iter(reward(prompts, [text for row in rows for text in row["responses"]]))
    out = []
    for row in rows:
        mine = np.array([next(scores) for _ in row["responses"]])
        order = [i for i in np.argsort(-mine, kind="stable") if np.isfinite(mine[i])]
        rewards = [float(mine[i]) for i in order]
        found = {"responses": [row["responses"][i] for i in order], "rewards": rewards}
        out.append(row | found | {"reward": rewards[0] if rewards else None})
    return out


def shown(row: dict[str, Any]) -> Iterator[str]:
    """The best response and its reward, as one text."""
    if row["responses"]:
        yield f"{row['responses'][0]}\nreward {row['reward']:.4f}"
    else:
        yield "\nno reward: every response is empty"
