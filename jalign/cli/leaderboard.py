"""`jalign leaderboard SPEC --out DIR`: methods compared from one start, on the same data."""

from collections.abc import Sequence
from functools import partial

from rich.console import Console

from jalign.config import packaged
from jalign.config.read import load_yaml, read_as
from jalign.options.leaderboard import LeaderboardConfig


def leaderboard(args: Sequence[str], console: Console) -> None:
    """Run the cells that are not finished, then write and print the results."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    options = read_as(LeaderboardConfig, args, "leaderboard", {"spec": None})
    # imported late: the options above answer --help at once
    from jalign.leaderboard import Spec, run_cells, write_report

    spec = Spec.from_dict(load_yaml(packaged.find(options.spec)) | options.set)
    if not options.report:
        progress = run_cells(
            spec,
            options.out,
            methods=options.methods or (),
            seeds=[int(x) for x in options.seeds or ()],
            max_minutes=options.max_minutes,
            say=say,
        )
        say(f"{progress.ran} cells finished, {progress.left} left")
    say(write_report(spec, options.out))
