"""What several rows have in common."""

from collections.abc import Callable
from typing import Any

from jalign import losses
from jalign.core import (
    Algorithm,
    AuxLoss,
    Experience,
    LossFn,
    mean_over_chosen_tokens,
    mean_over_tokens,
)
from jalign.formats import SAMPLES

NASH, LENGTH, SFT, NEGATIVE = (frozenset({x}) for x in ("nash", "length", "sft", "negative"))

# The reference is the policy of the last iteration, and a rollout, which it samples, lasts as long.
ITERATIVE = {"ref_sync_steps": 64}


def nll(coef: float) -> dict[str, AuxLoss]:
    """The likelihood of chosen responses as a term, every token counting the same."""
    return {"nll_coef": AuxLoss(losses.nll, coef, mean_over_chosen_tokens)}


def rl(name: str, loss: LossFn, paper: str, make: Callable, k: int, **more: Any) -> Algorithm:
    """A row of policy optimization on K responses to a prompt; the token mean unless it says
    otherwise.
    """
    more = {"reduce": mean_over_tokens} | more
    return Algorithm(name, loss, SAMPLES, paper, experience=Experience(make, k), **more)
