"""The state of a training step: what it updates, and what stays frozen."""

from __future__ import annotations

from dataclasses import dataclass

from flax import struct
from jax import Array
from jaxtyping import Int, PyTree

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


@struct.dataclass
class Frozen:
    """Everything that a run does not change: neither donated nor saved, but fingerprinted."""

    base: PyTree  # weights that are not trained (empty in full fine-tuning)
    # A copy of the initial trainable parameters, or another model
    # (`models.functional.StandaloneModel`); None when no loss asks for it.
    ref: PyTree


@dataclass(frozen=True)
class Carry:
    """Running values that a loss keeps between steps. It reads them by name and returns the new
    ones as metrics of the same names; NaN means "no value yet".
    """

    names: tuple[str, ...]

    def update(self, carry: Arrays, metrics: Arrays) -> Arrays:
        """The values after a step with these metrics."""
        return {name: metrics[name] for name in carry}
