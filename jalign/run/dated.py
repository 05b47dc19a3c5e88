"""The date of a run, where its chat template writes one: that of its first start."""

import json
from dataclasses import replace
from datetime import datetime

from jalign import store
from jalign.options import RunOptions
from jalign.parallel import hosts
from jalign.run.folder import CONFIG_FILE


def dated(options: RunOptions, out: store.StorePath) -> RunOptions:
    """The config with a `data.date`: the one given, that of the run in this folder, or now."""
    if options.data.date:
        return options
    now = datetime.now().isoformat(timespec="minutes")
    date = hosts.call_on_main(lambda: _kept(out) or now)
    return replace(options, data=replace(options.data, date=date))


def _kept(out: store.StorePath) -> str | None:
    """What the run's config says, if there is a run that goes on."""
    if not (out / "checkpoints").is_dir():
        return None
    try:
        return json.loads((out / CONFIG_FILE).read_bytes())["data"]["date"]
    except (OSError, ValueError, KeyError, TypeError):  # damaged, or of a run before there were any
        return None
