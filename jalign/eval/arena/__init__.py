"""Models answer the same prompts, and a judge or people compare the answers of every pair."""

from jalign.eval.arena.arena import Arena, arena
from jalign.eval.arena.judges import PairJudge, ScoreJudge, Verdict

__all__ = ["Arena", "PairJudge", "ScoreJudge", "Verdict", "arena"]
