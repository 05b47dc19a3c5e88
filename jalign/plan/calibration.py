"""Factors between predicted seconds and published ones, by generation of TPU.

`python -m jalign.plan.anchors` compiles the published programs and prints both.
"""

from __future__ import annotations

from typing import NamedTuple


class Calibration(NamedTuple):
    """A factor for predicted seconds.

    Attributes:
      factor: published seconds over predicted seconds, the mean of the anchors.
      anchors: what it was computed from, in words.
    """

    factor: float
    anchors: str


CALIBRATIONS: dict[str, Calibration] = {
    "TPU v6 lite": Calibration(0.95, "MaxText's published step of Llama 3.1 8B on a v6e-8"),
}
"""By device kind. A generation that is not here is not calibrated."""
