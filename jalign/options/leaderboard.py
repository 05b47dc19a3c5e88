"""The command line of `jalign leaderboard`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LeaderboardConfig:
    """Compare methods from one start, on the same data and for equal tokens; resumable.

    Args:
        spec: YAML file with the methods; jalign/leaderboard/README.md has its keys.
        out: folder of cells, samples and results.
        methods: run only these, with those that they refer to; all by default.
        seeds: run only these; all by default.
        max_minutes: start no cell after so many minutes; 0: no limit.
        set: keys of the file that are replaced, {texts: stories.jsonl.gz}.
        report: train nothing, only write the results of what is finished.
    """

    spec: str
    out: str
    methods: list[str] | None = None
    seeds: list[str] | None = None
    max_minutes: float = 0.0
    set: dict[str, Any] = field(default_factory=dict)
    report: bool = False

    def __post_init__(self):
        if wrong := [x for x in self.seeds or () if not x.isdecimal()]:
            raise ValueError(f"--seeds takes numbers from 0, got {' '.join(wrong)}")
        if self.max_minutes < 0:
            raise ValueError(f"--max_minutes must be at least 0, got {self.max_minutes:g}")
