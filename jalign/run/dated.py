"""The date that a chat template writes: the date of the first start of the run."""

from dataclasses import replace
from datetime import datetime

from jalign.options import RunOptions
from jalign.parallel import hosts
from jalign.run.folder import date_of


def dated(options: RunOptions) -> RunOptions:
    """Set `data.date`: keep a given date, else use that of the run in this folder, else now."""
    if options.data.date:
        return options
    now = datetime.now().isoformat(timespec="minutes")
    # one clock for all processes: the date is in every prompt, and prompts must be the same
    date = hosts.call_on_main(lambda: date_of(options.out) or now)
    return replace(options, data=replace(options.data, date=date))
