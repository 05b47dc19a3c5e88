"""Checks of the options of a run, before any data or device is touched.

The rules read fields of the row, never its name, so that a new row meets them without a change
here: `general` for every run, `models` for weights and reference, `online` for rollouts, `rewards`
for what judges them, `stopping` for the stop rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jalign.options.checks.general import check_general, check_hyper
from jalign.options.checks.models import check_models
from jalign.options.checks.online import check_data_source
from jalign.options.checks.stopping import check_stopping

if TYPE_CHECKING:
    from jalign.options.run import RunOptions


def problems(options: RunOptions) -> Iterator[str]:
    """Error messages for a run, the most basic first. A later check may assume that the earlier
    ones found nothing, so read only the first message.
    """
    yield from check_hyper(options)
    yield from check_models(options)
    yield from check_general(options)
    yield from check_data_source(options)
    yield from check_stopping(options)
