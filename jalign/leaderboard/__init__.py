"""Methods compared from one start, on the same prompts and pairs, for equal tokens."""

from jalign.leaderboard.board import Leaderboard, read_leaderboard
from jalign.leaderboard.claims import Claim, judge_claims
from jalign.leaderboard.report import write_report
from jalign.leaderboard.run import Progress, run_cells
from jalign.leaderboard.spec import Method, Proxy, Spec
from jalign.leaderboard.table import Row

__all__ = [
    "Claim",
    "Leaderboard",
    "Method",
    "Progress",
    "Proxy",
    "Row",
    "Spec",
    "judge_claims",
    "read_leaderboard",
    "run_cells",
    "write_report",
]
