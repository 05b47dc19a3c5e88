"""Stepwise: one response whose steps are judged at their last tokens."""

import jax.numpy as jnp

from jalign.core.format import Arrays, Format
from jalign.formats._fields import (
    per_token,
)
from jalign.layout import Batch


def _stepwise(out: Arrays, batch: Batch) -> Arrays:
    mask = batch.mask[:, 0]
    named = {"present": mask.any(-1), "mask": mask}
    if "step_labels" in batch.extras:
        labels = batch.extras["step_labels"].reshape(mask.shape[0], -1)
        # where every example has one step, the data say so with one column
        missing = mask.shape[1] - labels.shape[1]
        # 0 is read nowhere: only the ends of steps are scored
        named["step_labels"] = jnp.pad(labels, ((0, 0), (0, missing)))
    if "scores" in out:
        named["token_scores"] = out["scores"][:, 0]
    return named


STEPWISE = Format(
    name="stepwise",
    k=1,
    view=_stepwise,
    reads={"token_scores": ("scores",)},
    mask_fields=frozenset({"present", "mask"}),
    data_fields=frozenset({"step_labels"}),
    axes=dict.fromkeys(("token_scores", "step_labels", "mask"), "BR"),
    metrics=per_token,
    feedback="steps",
)
