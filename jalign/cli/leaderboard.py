"""`jalign leaderboard SPEC --out DIR`: methods compared from one start, on the same data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console

from jalign.config import packaged
from jalign.config.read import load_yaml, read_as


@dataclass(frozen=True, kw_only=True)
class LeaderboardWords:
    """Compare methods from one start on the same data; resumable, in pieces.

    Args:
        spec: YAML file: jalign/leaderboard/README.md describes its keys.
        out: folder of cells, samples and results.
        methods: only these, with those that they refer to; all.
        seeds: only these; all.
        max_minutes: start no cell after so many minutes; 0: no limit.
        set: keys of the file to replace, {texts: stories.jsonl.gz}.
        report: only write the tables of what is finished.
    """

    spec: str
    out: str
    methods: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    max_minutes: float = 0.0
    set: dict[str, object] = field(default_factory=dict)
    report: bool = False


def leaderboard(args: Sequence[str], console: Console) -> int:
    """Run what is not finished and write the results; 75 if cells are left."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    words = read_as(LeaderboardWords, args, "leaderboard", {"spec": None})
    from jalign.leaderboard import Spec, run_cells, write_report

    spec = Spec.from_dict(load_yaml(packaged.find(words.spec)) | dict(words.set))
    left = 0
    if not words.report:
        progress = run_cells(
            spec, words.out, methods=words.methods, seeds=words.seeds,
            max_minutes=words.max_minutes, say=say,
        )  # fmt: skip
        left = progress.left
    say(write_report(spec, words.out))
    return left
