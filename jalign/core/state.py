"""The state of a training step: what it updates, and what stays frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Int, PyTree

from jalign.core.reductions import Mean

Arrays = dict[str, Array]


@struct.dataclass
class TrainState:
    """Everything that changes in a step; the step donates it and checkpoints save it."""

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    carry: Arrays
    key: Array
    skipped: Int[Array, ""]  # total steps with a non-finite loss or gradient
    skipped_in_a_row: Int[Array, ""]
    ref: PyTree = None  # a moving reference; None if the reference is fixed (`Frozen.ref`)
    last: PyTree = None  # a second one (`Algorithm.last`)


@struct.dataclass
class Frozen:
    """Everything that a run does not change: neither donated nor saved, but fingerprinted."""

    base: PyTree  # weights that are not trained (empty in full fine-tuning)
    # A copy of the initial trainable parameters, or another model
    # (`models.functional.StandaloneModel`); None when no loss asks for it.
    ref: PyTree
    last: PyTree = None  # only inside a step: the state's (`train.step.with_reference`)


@dataclass(frozen=True)
class Carry:
    """Running values that a loss keeps between steps. It reads them by name and returns the new
    ones as metrics of the same names; NaN means "no value yet".

    Attributes:
      names: of the values. Each is one number, the mean over examples of what the loss returns.
      by: name -> a data field of ids, for a value with one number per id ("annotator"). The loss
        reads that of each example's id, [B]; the new one is the mean over the examples of the id.
        An id that a step lacks keeps its number; an id below 0 has none.
      size: most ids; they are in [0, size).
    """

    names: tuple[str, ...]
    by: Mapping[str, str] = field(default_factory=dict)
    size: int = 1024

    def start(self) -> Arrays:
        """The values before the first step."""
        return {
            name: jnp.full((self.size,) if name in self.by else (), jnp.nan, jnp.float32)
            for name in self.names
        }

    def read(self, carry: Arrays, fields: Arrays) -> Arrays:
        """The arrays that the loss reads, with the values of each example's id."""
        arrays = dict(carry)
        for name, ids in self.by.items():
            index = fields[ids].astype(jnp.int32)
            # a negative index would count from the end
            arrays[name] = jnp.where(index >= 0, carry[name][index], jnp.nan)
        return arrays

    def means(self, metrics: Arrays, fields: Arrays) -> dict[str, Mean]:
        """Of every value with ids, the mean of each id over these examples, as `key(name)`."""
        means = {}
        for name, ids in self.by.items():
            index = fields[ids].astype(jnp.int32)
            # sums and counts, which micro-batches and devices add before the division
            counted = fields["present"] & (index >= 0)
            sums = (jnp.where(counted, metrics[name], 0.0), counted.astype(jnp.float32))
            means[self.key(name)] = Mean(
                *(jax.ops.segment_sum(x, jnp.maximum(index, 0), self.size) for x in sums)
            )
        return jax.lax.stop_gradient(means)

    def key(self, name: str) -> str:
        """Name of the mean that becomes a value."""
        return f"{name} by {self.by[name]}" if name in self.by else name

    def update(self, carry: Arrays, means: Mapping[str, Mean]) -> Arrays:
        """The values after a step with these means."""
        new = {name: means[self.key(name)] for name in carry}
        return {
            name: jnp.where(mean.count > 0, mean.value, carry[name]) if name in self.by
            else mean.value
            for name, mean in new.items()
        }  # fmt: skip
