"""What rewards of responses and of steps share: the texts, and how parts become a total."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jalign.checkpoint.fingerprint import combine, fingerprint
from jalign.data.chat import ends_of
from jalign.data.convert import to_records
from jalign.data.examples import Examples
from jalign.data.records import Message
from jalign.options import RewardConfig, RunOptions
from jalign.parallel import hosts
from jalign.rewards.functions import LARGEST, RewardFunctions, Scored
from jalign.rewards.identity import function_digest, template_digests
from jalign.rewards.judge import ModelJudge
from jalign.rewards.label import text_of
from jalign.rewards.model import RewardModel
from jalign.rollout.groups import Responses
from jalign.rollout.sampler import continuation
from jalign.train.rollout import Judged

LOG = logging.getLogger(__name__)


class Texts:
    """Prompts as texts and the columns of their rows, for rewards.

    Args:
      examples: prompts; their extra `row` says which row each came from.
      rows: of the data set, with the columns named as jalign names them.
      kind: of the records that the examples were made of.
    """

    def __init__(
        self, examples: Examples, rows: Sequence[Any], tokenizer: Any, kind: str = "prompts"
    ):
        self.examples, self.rows, self.tokenizer, self.kind = examples, rows, tokenizer, kind
        self.names = list(dict.fromkeys(name for row in rows for name in row))
        self._hidden: set[str] = set()

    @classmethod
    def of(
        cls, options: RunOptions, examples: Examples, rows: Sequence[Any], tokenizer: Any
    ) -> Texts:
        """Those of an online run, of its examples and of the rows they were made of."""
        return cls(examples, rows, tokenizer, options.algorithm.data_kind)

    @cached_property
    def ends(self) -> frozenset[int]:
        return ends_of(self.tokenizer)

    def row(self, i: int) -> Any:
        """What example number i was made of."""
        return self.rows[int(self.examples.extras["row"][i])]

    def given(self, i: int) -> str | list[Message]:
        """A prompt as models of rewards take it: the messages of a chat, which they put into a
        template of their own, or the text that the policy reads.
        """
        prompt = to_records([self.row(i)], self.kind)[0][0].prompt
        if not isinstance(prompt, str):
            return prompt
        return self.tokenizer.decode(self.examples[i].prompt, skip_special_tokens=True)

    def prompt(self, i: int) -> str:
        """A prompt as functions and judges read it."""
        return text_of(self.given(i))

    def policy_prompt(self, i: int) -> str:
        """A prompt as the policy reads it, with what its template puts around and behind it."""
        return self.tokenizer.decode(self.examples[i].prompt, skip_special_tokens=False)

    def response(self, i: int, tokens: np.ndarray) -> str:
        prompt = self.examples[i].prompt.tolist()
        return continuation(self.tokenizer, prompt, tokens.tolist(), self.ends)

    def columns(
        self, numbers: Sequence[int], own: Mapping[str, list[Any]] | None = None
    ) -> dict[str, list[Any]]:
        """Every column of the data, one entry per number, None where a row has none; and
        `policy_prompt`, if the data has none of this name.

        Args:
          own: columns that say something of the responses. A column of the data with such a name is
            not passed, which is said once.
        """
        rows, own = [self.row(i) for i in numbers], dict(own or {})
        if hidden := set(own) & set(self.names) - self._hidden:
            self._hidden |= hidden
            LOG.warning(
                "reward functions do not see the data's %s: so is called what jalign tells of a "
                "response; give the data's another name",
                ", ".join(sorted(hidden)),
            )
        prompts = {"policy_prompt": [self.policy_prompt(i) for i in numbers]}
        return prompts | {n: [row.get(n) for row in rows] for n in self.names} | own


@dataclass(frozen=True)
class Reward:
    """What judges the responses of an online run.

    Attributes:
      ask: (texts, numbers of prompts, their responses) -> what is said of them.
      identity: what may not change half-way, beside what the options says: the code of functions,
        the weights of models, the texts that a judge is asked with. JSON.
    """

    ask: Callable[[Texts, Sequence[int], Responses], Judged]
    identity: dict[str, Any]

    def __call__(self, texts: Texts, numbers: Sequence[int], responses: Responses) -> Judged:
        return self.ask(texts, numbers, responses)


def identity_of(
    c: RewardConfig, model: RewardModel | None = None, judge: Any = None
) -> dict[str, Any]:
    """`Reward.identity` of these parts; fingerprints read all weights once."""
    identity: dict[str, Any] = {"functions": {name: function_digest(name) for name in c.functions}}
    if model:
        identity["model"] = {"step": model.step, "weights": combine(fingerprint(model.state))}
    if isinstance(judge, ModelJudge):
        identity["judge"] = {"weights": combine(fingerprint(judge.state))}
    if texts := template_digests(c.judge.options):
        identity["templates"] = texts
    return identity


def asked(
    functions: RewardFunctions,
    prompts: Sequence[str],
    answers: Sequence[str],
    columns: dict[str, list[Any]],
    said: dict[str, Any] | None = None,
) -> Scored:
    """What functions say, asked on one process for all. Those in `said` have been asked already:
    programs over all devices, which all processes run.
    """
    ask = lambda: functions(prompts, answers, columns, said).record()  # noqa: E731
    return Scored.of_record(hosts.call_on_main(ask))


def total_of(
    c: RewardConfig, n: int, scored: Scored | None, found: np.ndarray | None
) -> tuple[np.ndarray, dict[str, float]]:
    """The weighted sum of what functions and a reward model say of n texts, within `clip`, and what
    is logged of it; 0 where neither was asked, NaN where one that counts failed or none applies.
    """
    total, metrics = np.zeros(n), {}
    if scored is not None:
        # where no function applies a model may still say something
        alone = 0.0 if found is not None else np.nan
        total, metrics = np.where(scored.applies, scored.total, alone), scored.metrics()
    if found is not None:
        known = found[np.isfinite(found)]
        # what is missing stays missing: a clip would make a reward of it
        total = total + c.model_weight * np.where(np.isfinite(found), found, np.nan)
        metrics["rewards/model/mean"] = float(known.mean()) if known.size else math.nan
        metrics["rewards/model/failed"] = float(found.size - known.size)
    total = np.where(np.abs(total) <= LARGEST, total, np.nan)
    return np.clip(total, -c.clip, c.clip) if c.clip else total, metrics


def failures_of(n: int, scored: Scored | None, found: np.ndarray | None) -> dict[str, str]:
    """name -> why it failed and for how many of n texts, and where it raised; in short it is said
    on the terminal.
    """
    said = {}
    if scored:
        for name, why in scored.errors.items():
            words = say_failure(name, scored.failed[name], n, "responses", why)
            said[name] = "\n".join([words, *filter(None, [scored.tracebacks.get(name)])])
    if found is not None and (failed := int((~np.isfinite(found)).sum())):
        said["model"] = say_failure("model", failed, n, "responses", "it gave no finite number")
    return said


def say_failure(name: str, count: int, n: int, what: str, why: str) -> str:
    """That a reward failed, in words, which are a warning of this process, too."""
    words = f"reward {name} failed for {'all' if count == n else f'{count} of'} {n} {what}: {why}"
    if hosts.is_main():
        LOG.warning("%s", words)
    return words
