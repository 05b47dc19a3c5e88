"""Constants and constructors shared by several rows."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jax import Array

from jalign import losses
from jalign.core import (
    Algorithm,
    AuxLoss,
    Experience,
    LossFn,
    Reduction,
    mean_over_chosen_tokens,
    mean_over_tokens,
)
from jalign.formats import SAMPLES

# only for what `taxonomy` cannot derive from the arrays of a loss
NASH, LENGTH, SFT, NEGATIVE = (frozenset({x}) for x in ("nash", "length", "sft", "negative"))
TEACHER = frozenset({"teacher"})

# The reference is the policy of the last iteration, and a rollout, which it samples, lasts as long.
ITERATIVE = {"ref_sync_steps": 64}


def nll(coef: float) -> dict[str, AuxLoss]:
    """The likelihood of chosen responses as a term, every token counting the same."""
    return {"nll_coef": AuxLoss(losses.nll, coef, mean_over_chosen_tokens)}


def rl(
    name: str,
    loss: LossFn,
    paper: str,
    fn: Callable[..., dict[str, Array]],
    responses: int,
    *,
    reduce: Reduction = mean_over_tokens,
    # immutable: a default argument is shared by all rows
    defaults: Mapping[str, float] = MappingProxyType({}),
    aux_losses: Mapping[str, AuxLoss] = MappingProxyType({}),
    tags: frozenset[str] = frozenset(),
    linear_in_advantages: bool = True,
    about: str,
) -> Algorithm:
    """A row of policy optimization: `fn` makes advantages of `responses` samples per prompt."""
    return Algorithm(
        name,
        loss,
        SAMPLES,
        paper,
        dict(defaults),
        aux_losses,
        reduce,
        tags=tags,
        linear_in_advantages=linear_in_advantages,
        experience=Experience(fn, responses),
        about=about,
    )
