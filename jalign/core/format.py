"""The fields of one kind of data: which named arrays a loss may read, and their origin.

`jalign.formats` defines the formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from jax import Array

from jalign.core.reductions import Reduction
from jalign.layout import Batch

Arrays = dict[str, Array]
LossFn = Callable[..., tuple[Array, Arrays]]

NOISE = "gumbel"
"""[B] standard Gumbel noise, drawn anew in every step. It is drawn by example number, so it does
not depend on how a step is split into micro-batches; zeros in evaluation."""

# Both distributions exist only block by block of the vocabulary: log-probs of a token could be kept
# from another pass, distributions could not.
TWO_MODELS = ("kl_to_ref", "kl_from_ref", "jsd_to_ref")
"""Scorer outputs that need policy and reference in the same forward pass."""

SCORER_HYPER: Mapping[str, Mapping[str, float]] = {
    "competitor_logps": {"top_k": 1},
    "jsd_to_ref": {"jsd_beta": 0.5, "temperature": 1.0},
}
"""Hyper-parameters that the scorer reads to compute an output."""

REFERENCE_HYPER: Mapping[str, float] = {"ref_sync_steps": 0, "ref_mixup_alpha": 1.0}
"""Hyper-parameters of the reference: every `ref_sync_steps` steps (0: never) it moves to alpha *
policy + (1 - alpha) * reference."""

Last = Literal["policy", "reference", "half_step"]
LAST_HYPER: Mapping[Last, Mapping[str, float]] = {
    "policy": {"last_sync_steps": 1, "last_mixup_alpha": 1.0},
    "reference": {},
    "half_step": {"half_step": 1.0},
}
"""Hyper-parameters of the second moving reference, by what it is (`Algorithm.last`): as those of
the reference; none, as it moves with the reference; the fraction of an update that it is ahead."""


class AuxLoss(NamedTuple):
    """A pure loss that is added to another one.

    Attributes:
      loss: unreduced, as every loss.
      weight: its default; a hyper-parameter. At 0 the loss and the arrays only it reads are left
        out.
      reduce: how it becomes a mean.
      is_kl: it is a KL divergence between policy and reference, which a method has either here or
        in its reward.
    """

    loss: LossFn
    weight: float
    reduce: Reduction
    is_kl: bool = False


class Term(NamedTuple):
    """One weighted, reduced term of an objective, with its hyper-parameters fixed."""

    name: str
    weight: float
    loss: LossFn
    hyper: dict[str, float]
    reduce: Reduction


@dataclass(frozen=True)
class Format:
    """How the scored tokens `[B, K, R]` of a batch become the named arrays a loss reads.

    Attributes:
      name: supervised | pairs | binary | rated | lists | stepwise | samples | joint.
      k: responses per prompt; None when it is free.
      view: (outputs of the scorer, batch) -> named arrays. With no outputs it returns only what
        follows from the mask.
      reads: for every array of `view` that needs the model, the scorer outputs it is made from.
        Each also exists as `ref_<name>` and as `last_<name>` (`Algorithm.last`).
      mask_fields: arrays of `view` that follow from the mask.
      data_fields: arrays read from `Batch.extras`.
      axes: letters of the axes of an array that is not [B]: "BR" one value per scored token, "BK"
        one per response, "BA" one per attribute.
      metrics: (fields, what the loss returned) -> {TRL name: (unreduced values, weights)}.
      aux_losses: losses that any policy loss of this format may be combined with; their weights are
        0 unless a row sets them.
      feedback: labels of the responses: none (demonstrations), pair, binary, rating, list,
        steps, score.
      policy_samples: each response is a sample of the policy that is weighted by an advantage or a
        win rate. False: an experience selects responses, or the data are fixed.
      joint_prompt: both responses of a pair are in one prompt, and the model compares them.
      class_weights: hyper-parameters of a loss that weight desirable and undesirable examples.
    """

    name: str
    k: int | None
    view: Callable[[Arrays, Batch], Arrays]
    reads: Mapping[str, tuple[str, ...]]
    mask_fields: frozenset[str]
    data_fields: frozenset[str]
    axes: Mapping[str, str]
    metrics: Callable[[Arrays, Arrays], dict[str, tuple[Array, Array]]]
    aux_losses: Mapping[str, AuxLoss] = field(default_factory=dict)
    feedback: str = "none"
    policy_samples: bool = False
    joint_prompt: bool = False
    class_weights: tuple[str, ...] = ()

    @property
    def token_fields(self) -> frozenset[str]:
        """Arrays with one value per scored token."""
        return frozenset(name for name, axes in self.axes.items() if axes == "BR")

    @property
    def fields(self) -> frozenset[str]:
        """The closed vocabulary: every name a loss of this format may use for an array."""
        return (
            frozenset(self.reads)
            | {f"{model}_{x}" for x in self.reads for model in ("ref", "last")}
            | self.mask_fields
            | self.data_fields
            | {NOISE}
        )
