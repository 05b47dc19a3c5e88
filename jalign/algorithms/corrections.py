"""Rollout corrections of a row."""

from collections.abc import Mapping
from dataclasses import replace

from jalign import losses
from jalign.core import Algorithm, arrays_of


def corrected(row: Algorithm, corrections: Mapping[str, float]) -> Algorithm:
    """The row with its loss weighed by `losses.corrected`; auxiliary losses stay as they are.

    Raises:
      ValueError: a name or number that `losses.corrected` refuses, or a row whose loss is right
        whoever sampled, or has no advantage for a correction to read.
    """
    if not corrections:
        return row
    if not row.format.policy_samples:
        raise ValueError(
            f"the loss of {row.name} weighs no samples of the policy (it reads {row.format.name} "
            "data): leave corrections out"
        )
    if row.regression:
        raise ValueError(f"the loss of {row.name} is right whichever policy drew a sample")
    if "opsm" in corrections and row.needs_critic:
        raise ValueError(
            "opsm leaves out responses that are worse than expected, which the critic of "
            f"{row.name} has to learn, too"
        )
    if "opsm" in corrections and "advantages" not in arrays_of(row.loss):
        raise ValueError(f"opsm reads the sign of advantages, and {row.name} has none")
    return replace(row, loss=losses.corrected(row.loss, corrections))
