"""`jalign rollouts RUN`: sampled responses with their rewards."""

import math
from collections.abc import Sequence

import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console

from jalign import store
from jalign.cli.rollout_tables import score, show
from jalign.rollout import record


def rollouts(args: Sequence[str], console: Console) -> None:
    """Show the recorded responses of a run (`rollout.record: true`), the best rewards first."""
    parser = ArgumentParser(prog="jalign rollouts", description=rollouts.__doc__)
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--last", type=int, default=1, help="number of newest rollouts")
    parser.add_argument("--limit", type=int, default=20, help="responses to show; 0: all")
    parser.add_argument("--worst", type=bool, default=False, help="the worst rewards first")
    options = parser.parse_args(list(args))
    rows = record.read(store.as_path(options.run) / record.FOLDER, options.last)
    # a missing reward is neither good nor bad: last in both orders
    sign = 1 if options.worst else -1
    rows.sort(key=lambda row: (math.isnan(score(row)), sign * score(row)))
    show(rows[: options.limit or None], console)
    scores = np.array([score(row) for row in rows])
    known = scores[~np.isnan(scores)]
    lengths = np.array([len(row["tokens"]) for row in rows])
    console.print(
        f"{len(rows)} responses, "
        + (f"mean reward {known.mean():.4g}, " if len(known) else "")
        + (f"{len(rows) - len(known)} without a reward, " if len(known) < len(rows) else "")
        + f"mean length {lengths.mean():.4g} tokens",
        highlight=False,
    )
