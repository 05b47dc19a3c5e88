"""Preferences of pairs of responses from a language model.

Lee et al. 2023, "RLAIF vs. RLHF: Scaling Reinforcement Learning from Human Feedback with AI
Feedback", https://arxiv.org/abs/2309.00267, section 2.1: a prompt of preamble, exemplars,
sample and ending, and the softmax over the log-probabilities of the two answers. Guo et al. 2024
(OAIF), https://arxiv.org/abs/2402.04792, label responses of the policy in training the same way,
and steer with further instructions. Wording is our own; both spellings of an answer, with a space
before it and without, count (the paper names one).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jalign.rewards.judge import Judge, choose
from jalign.rewards.preference import BothOrders
from jalign.rewards.template import load

SLOTS = ((" 1", "1"), (" 2", "2"))
_PAIR = ("prompt", "response_1", "response_2")


class Exemplar(NamedTuple):
    """A pair that is shown with its label.

    Attributes:
      preferred: 1 or 2.
      reasons: why; needed where the judge is asked for reasons.
    """

    prompt: str
    first: str
    second: str
    preferred: int
    reasons: str = ""


class Comparison:
    """P(the response in the first slot is better), in the order given: a `PreferenceFn`.

    Judges have a position bias; `labeler` asks in both orders.

    Args:
      judge: the model that is asked.
      preamble, sample, ending: names of templates, or files; the sample has the fields prompt,
        response_1 and response_2, the others none.
      reasons: template that asks for reasons, which the judge writes before its answer (chain of
        thought). None: it answers directly.
      votes: how often it writes reasons; P is the mean over them, as of a generative reward model
        that thinks before it compares.
      temperature: of the reasons; above 0 where there are several votes.
      exemplars: shown before the sample.
      instructions: put after the preamble; OAIF's way to steer.
      max_reason_tokens: most tokens of the reasons.

    Raises:
      ValueError: a template with other fields, or exemplars that lack reasons or have unused ones.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        preamble: str | Path = "preamble_helpful",
        sample: str | Path = "sample",
        ending: str | Path = "ending",
        reasons: str | Path | None = None,
        exemplars: Sequence[Exemplar | Mapping[str, Any]] = (),
        instructions: str = "",
        max_reason_tokens: int = 512,
        votes: int = 1,
        temperature: float = 0.0,
    ):
        if max_reason_tokens < 1:
            raise ValueError(f"max_reason_tokens must be at least 1, got {max_reason_tokens}")
        _check_votes(votes, temperature, reasons is not None)
        self.votes, self.temperature = votes, temperature
        self.judge, self.max_reason_tokens = judge, max_reason_tokens
        self._sample, self._ending = load(sample, _PAIR), load(ending).fill()
        self._reasons = None if reasons is None else load(reasons).fill()
        parts = [load(preamble).fill(), instructions.strip()]
        for i, given in enumerate(exemplars):
            e = _exemplar(given, i)
            if e.preferred not in (1, 2):
                raise ValueError(f"exemplar {i}: preferred must be 1 or 2, got {e.preferred!r}")
            # A judge imitates its exemplars: their form must be the one that is asked for.
            if bool(e.reasons) != (reasons is not None):
                what = "has no reasons" if reasons is not None else "has reasons nobody asks for"
                raise ValueError(f"exemplar {i} {what}")
            shown = self._sample.fill(prompt=e.prompt, response_1=e.first, response_2=e.second)
            parts.append(f"{self._asked(shown, e.reasons)} {e.preferred}")
        self._head = "\n\n".join(part for part in parts if part)

    def __call__(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> list[float | None]:
        rows = zip(prompts, first, second, strict=True)
        # one call for all votes: a server works on them together
        samples = [
            f"{self._head}\n\n{self._sample.fill(prompt=p, response_1=a, response_2=b)}"
            for p, a, b in rows
            for _ in range(self.votes)
        ]
        reasons: list[str | None] = [""] * len(samples)
        if self._reasons is not None:
            asking = [f"{sample}\n\n{self._reasons}" for sample in samples]
            n = self.max_reason_tokens
            reasons = self.judge.complete(asking, max_tokens=n, temperature=self.temperature)
        requests = [
            None if r is None or (self._reasons and not r.strip()) else self._asked(sample, r)
            for sample, r in zip(samples, reasons, strict=True)
        ]
        probs = [None if p is None else float(p[0]) for p in choose(self.judge, requests, SLOTS)]
        # votes of one pair stand beside each other
        votes = [probs[i : i + self.votes] for i in range(0, len(probs), self.votes)]
        return [_mean(known) for known in votes]

    def _asked(self, sample: str, reasons: str) -> str:
        """A sample up to the position of the answer."""
        if self._reasons is None:
            return f"{sample}\n\n{self._ending}"
        return f"{sample}\n\n{self._reasons} {reasons.strip()}\n\n{self._ending}"


def _check_votes(votes: int, temperature: float, reasons: bool) -> None:
    if votes < 1:
        raise ValueError(f"votes must be at least 1, got {votes}")
    if temperature < 0:
        raise ValueError(f"temperature must be >= 0, got {temperature}")
    if not reasons and (votes > 1 or temperature):
        raise ValueError(
            "votes and temperature are of the reasons that the judge writes: set reasons"
        )
    if votes > 1 and not temperature:
        raise ValueError("at temperature 0 all votes are the same: use votes=1 or a temperature")


def _mean(votes: Sequence[float | None]) -> float | None:
    """The mean of the votes that were given; None without any."""
    known = [p for p in votes if p is not None]
    return sum(known) / len(known) if known else None


def _exemplar(given: Exemplar | Mapping[str, Any], number: int) -> Exemplar:
    """The exemplar itself, or one built from its fields by name, as in a config."""
    if isinstance(given, Exemplar):
        return given
    needed = set(Exemplar._fields) - set(Exemplar._field_defaults)
    if not isinstance(given, Mapping) or not needed <= set(given) <= set(Exemplar._fields):
        raise ValueError(
            f"exemplar {number} must have {', '.join(Exemplar._fields)} (reasons may be missing), "
            f"got {given!r:.80}"
        )
    return Exemplar(**given)


def labeler(judge: Judge, **options: object) -> BothOrders:
    """The labels of Lee et al.: `Comparison` in both orders, averaged.

    Args:
      options: of `Comparison`. `reasons="reasons"` is chain of thought; `preamble` may be
        preamble_helpful, preamble_harmless or preamble_summary.
    """
    return BothOrders(Comparison(judge, **options))  # type: ignore[arg-type]


def annotator(judge: Judge, *, instructions: str = "", **options: object) -> BothOrders:
    """OAIF's annotator: `labeler` for responses of the policy in training, told what to look at.

    Args:
      instructions: such as "Of two responses of like worth, the shorter is better."
      options: of `Comparison`.
    """
    return labeler(judge, instructions=instructions, **options)
