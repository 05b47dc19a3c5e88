"""How responses sampled from the policy become the data of an online algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jax import Array

ROLLOUT: Mapping[str, str] = {
    "scores": "BK",
    "valid": "BK",
    "finished": "BK",
    "mask": "BKR",
    "old_token_logps": "BKR",
    "ref_token_logps": "BKR",
    "teacher_token_logps": "BKR",
    "values": "BKR",
    "greedy_scores": "B",
    "win_probs": "BKK",
    "step_scores": "BKR",
    "uniforms": "BKK",
    "token_uniforms": "BKR",
    "reward_parts": "BKN",
    "reward_weights": "N",
    "old_log_sum_p_squared": "BKR",
}
"""What an experience may read about K responses to each of B prompts, and its axes. scores: the
reward of a response; valid: whether it has one; finished: ended by EOS; values: of a critic, before
each token; greedy_scores: the reward of the most probable response; win_probs[b, i, j]: probability
that response i is preferred to j; step_scores: the reward of a step at its last token, NaN at every
other; uniforms: random numbers in [0, 1), independent of the responses; token_uniforms: one per
token; reward_parts: each of the N rewards that the score adds up, NaN where one does not apply;
reward_weights: of them;
old_log_sum_p_squared: log of the sum of squared probabilities of the next token;
teacher_token_logps: under the reference, of the same response after another prompt
(`Experience.teacher_prompt`)."""


class Relative(NamedTuple):
    """How an experience compares scores.

    Attributes:
      to: a number added to all scores of a "group" (the responses to a prompt), or of the
        "rollout", makes no difference; None: it may.
      min_responses: responses per prompt below which the scores decide nothing.
    """

    to: Literal["group", "rollout"] | None = None
    min_responses: int = 1


@dataclass(frozen=True)
class Experience:
    """How the responses of a rollout become training examples.

    Attributes:
      fn: a pure function; its positional parameters name arrays of `ROLLOUT`, its keyword-only ones
        are hyper-parameters. It returns data fields of the format, [B, K, R], [B, K] or [B], and
        may return `take` [B, k], the responses that become the example, in that order, and `keep`
        [B], the prompts that become one.
      responses: K, unless a run sets another.
      opponent: who writes the last responses of each prompt: the "policy", the "reference", the
        geometric "mixture" of both, the second moving reference ("last"), or the "data".
      opponents: number of responses that the opponent writes; the first is always the policy's.
      iterative: the method learns from samples of the policy of the last iteration, which is its
        reference or, if it has a second one, that: a rollout has as many steps as an iteration
        (ref_sync_steps, last_sync_steps).
      teacher_prompt: what a teacher reads in place of the prompt: a text with `{prompt}` and a
        column of the data in braces, `{demonstration}`.
    """

    fn: Callable[..., dict[str, Array]]
    responses: int = 4
    opponent: Literal["policy", "reference", "mixture", "last", "data"] = "policy"
    opponents: int = 1
    iterative: bool = False
    teacher_prompt: str = ""

    @property
    def relative(self) -> Relative:
        """The mark of `jalign.experience.relative_to` on `fn`."""
        return getattr(self.fn, "relative", Relative())

    def by_policy(self, responses: int) -> int:
        """How many of K responses the policy writes; they come first."""
        return responses if self.opponent == "policy" else max(responses - self.opponents, 1)

    @property
    def samples_reference(self) -> bool:
        """Whether the reference takes part in sampling."""
        return self.opponent in ("reference", "mixture")
