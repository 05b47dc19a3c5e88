"""Pure alignment losses: positional arrays, keyword-only numbers, unreduced results.

Every function returns `(loss, metrics)`: the loss per example `[B]` (or per token `[B, R]`) and
named arrays of the same shape. Log-probabilities are in nats. Nothing here knows a model, a config
or a device.
"""

from jalign.losses.binary.kto import kto
from jalign.losses.pairwise.dpo import dpo
from jalign.losses.pairwise.ipo import ipo, ipo_sum
from jalign.losses.pairwise.orpo import orpo
from jalign.losses.pairwise.simpo import simpo
from jalign.losses.reward.bradley_terry import bradley_terry, reward_centering
from jalign.losses.supervised import nll, sft

__all__ = [
    "bradley_terry",
    "dpo",
    "ipo",
    "ipo_sum",
    "kto",
    "nll",
    "orpo",
    "reward_centering",
    "sft",
    "simpo",
]
