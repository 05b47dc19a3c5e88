"""The catalogue. Adding an algorithm: write its loss, add its row, add its golden test."""

import jax.numpy as jnp
from jax import Array

from jalign import losses
from jalign.core import (
    Algorithm,
    Arrays,
    did_you_mean,
    mean_over_examples,
    mean_over_tokens,
)
from jalign.formats import BINARY, PAIRS, SUPERVISED


def mean_over_chosen_tokens(fields: Arrays) -> tuple[Array, Array]:
    """Every token of a chosen response counts the same (for a loss that is already per token)."""
    weights = jnp.where(fields["present"], fields["chosen_len"], 0.0)
    return weights, jnp.sum(weights)


def _nll(coef: float) -> dict:
    return {"nll_coef": (losses.nll, coef, mean_over_chosen_tokens)}


_CENTER = {"center_coef": (losses.reward_centering, 0.0, mean_over_examples)}

ROWS = (
    Algorithm("sft", losses.sft, SUPERVISED, "2203.02155", reduce=mean_over_tokens),
    Algorithm("dpo", losses.dpo, PAIRS, "2305.18290", plus=_nll(0.0)),
    Algorithm("ipo", losses.ipo, PAIRS, "2310.12036"),
    Algorithm("ipo_sum", losses.ipo_sum, PAIRS, "2310.12036"),
    Algorithm("simpo", losses.simpo, PAIRS, "2405.14734", plus=_nll(0.0)),
    Algorithm("orpo", losses.orpo, PAIRS, "2403.07691", plus=_nll(1.0)),
    Algorithm("kto", losses.kto, BINARY, "2402.01306", batch_coupled=True),
    Algorithm("bradley_terry", losses.bradley_terry, PAIRS, "2203.02155", plus=_CENTER),
)
ALGORITHMS = {row.name: row for row in ROWS}
assert len(ALGORITHMS) == len(ROWS), "two rows share a name"


def get(name: str) -> Algorithm:
    """The row of that name; an unknown one is a ValueError with the nearest."""
    if name not in ALGORITHMS:
        raise ValueError(f"no algorithm {name!r}{did_you_mean(name, ALGORITHMS)}")
    return ALGORITHMS[name]
