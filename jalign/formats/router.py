"""Router losses beside the loss of any row, for models with a mixture of experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from jalign import losses
from jalign.core import Algorithm
from jalign.core.format import Arrays, AuxLoss, Format
from jalign.layout import Batch

# In the order of `jalign.models.experts.statistics`, which the scorer's output "router" stacks.
STATISTICS = ("router_balance", "router_z", "router_entropy", "router_load")
LENGTHS = "router_tokens"


def with_router_losses(row: Algorithm, balance: float, z: float) -> Algorithm:
    """`row` with the terms balance * `losses.router_balance` + z * `losses.router_z`, each a mean
    over all scored tokens of the step; `row` itself if both are 0.

    Raises:
      ValueError: a negative weight.
    """
    weights = {"router_balance": balance, "router_z": z}
    for name, weight in weights.items():
        if weight < 0:
            raise ValueError(f"model.{name} must be at least 0, got {weight}")
    terms = {
        f"{name}_coef": AuxLoss(getattr(losses, name), weight, _mean_over_scored_tokens)
        for name, weight in weights.items()
        if weight
    }
    if not terms:
        return row
    return replace(row, format=_with_router(row.format), aux_losses={**row.aux_losses, **terms})


def _with_router(format: Format) -> Format:
    return replace(
        format,
        view=_viewed(format.view),
        reads={**format.reads, **dict.fromkeys(STATISTICS, ("router",))},
        mask_fields=format.mask_fields | {LENGTHS},
        axes={**format.axes, **dict.fromkeys((*STATISTICS, LENGTHS), "BK")},
    )


def _viewed(view: Callable[[Arrays, Batch], Arrays]) -> Callable[[Arrays, Batch], Arrays]:
    def with_router(out: Arrays, batch: Batch) -> Arrays:
        named = view(out, batch)
        # Samples are examples of their own.
        mask = batch.mask.reshape(named["present"].shape[0], -1, batch.mask.shape[-1])
        tokens = mask.sum(-1).astype(jnp.float32)
        named[LENGTHS] = tokens
        if "router" in out:
            each = jnp.where(mask[..., None], out["router"].reshape(*mask.shape, -1), 0.0)
            means = each.sum(2) / jnp.maximum(tokens, 1.0)[..., None]
            named |= {name: means[..., i] for i, name in enumerate(STATISTICS)}
        return named

    return with_router


def _mean_over_scored_tokens(fields: Arrays) -> tuple[Array, Array]:
    return fields[LENGTHS], jnp.sum(fields[LENGTHS])
