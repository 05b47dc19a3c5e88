"""What all cells share, loaded once: the start, the data, the true reward and the learned one."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jalign.leaderboard.noise import Row, noisy
from jalign.leaderboard.spec import Spec
from jalign.options import DataConfig, OptimConfig
from jalign.rewards.functions import RewardFunctions
from jalign.run import api
from jalign.run.data import rows_of
from jalign.run.folder import reward_model as load_reward_model
from jalign.run.load import load
from jalign.train.exit_code import ExitCode

if TYPE_CHECKING:
    from jalign.rewards.model import RewardModel
    from jalign.run.policy import Policy


class Interrupted(Exception):
    """A run was asked to stop; the same command continues."""


@dataclass
class Setting:
    """The common part of all cells.

    Args:
      spec: of the leaderboard.
      out: its folder, where the proxy is kept.
    """

    spec: Spec
    out: Path

    @cached_property
    def start(self) -> Policy:
        """The policy that every method starts from."""
        return load(self.spec.start)

    @cached_property
    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """(training pairs, validation pairs, test pairs)."""
        spec = self.spec
        rows = _pairs(spec.pairs, "train")
        if not spec.test and spec.pairs != "embedded":
            raise ValueError("test: name a file of held-out pairs")
        test = _pairs(spec.test or spec.pairs, "test")[: spec.test_limit or None]
        if len(rows) <= spec.validation:
            raise ValueError(f"validation is {spec.validation}, and there are {len(rows)} pairs")
        return rows[: -spec.validation], rows[-spec.validation :], test

    @cached_property
    def true_reward(self) -> RewardFunctions | RewardModel:
        """The reward that ranks the methods."""
        name = self.spec.true_reward
        # a rule, file.py:function or package.module:function; not gs://bucket/run or org/model
        function = name.rpartition(":")[2].isidentifier() and not Path(name).is_dir()
        return RewardFunctions({name: 1.0}) if function else load_reward_model(name)

    def judged(self, prompts: list[str], responses: list[str]) -> np.ndarray:
        """[n] true rewards."""
        reward = self.true_reward
        if isinstance(reward, RewardFunctions):
            return np.asarray(reward(prompts, responses, {"prompt": prompts}).total)
        return np.asarray(reward.of_sampled(prompts, responses), float)

    @cached_property
    def margins(self) -> list[float]:
        """How much more true reward the preferred response of each training pair has."""
        train = self.rows[0]
        if all("margin" in row for row in train):
            return [float(row["margin"]) for row in train]
        prompts = [row["prompt"] for row in train]
        chosen = self.judged(prompts, [row["chosen"] for row in train])
        rejected = self.judged(prompts, [row["rejected"] for row in train])
        return list(chosen - rejected)

    def drawn(self, seed: int, noise: str = "none", share: float = 0.0) -> list[Row]:
        """The training pairs in the order of a seed, some of them with inverted labels: every
        method reads them from the front, so all see the same prompts first.
        """
        train = self.rows[0]
        if noise != "none":
            train = noisy(train, self.margins, noise, share, seed)
        return [train[i] for i in np.random.default_rng(seed).permutation(len(train))]

    @cached_property
    def mean_length(self) -> float:
        """Tokens of a response of the training pairs, as cut to the limit."""
        sample = self.rows[0][:200]
        texts = [row[name] for row in sample for name in ("chosen", "rejected")]
        lengths = [len(x) + 1 for x in self.start.tokenizer(texts)["input_ids"]]
        return float(np.minimum(lengths, self.spec.max_new_tokens).mean())

    def steps(self, tokens: int) -> int:
        """Optimizer steps of a budget, a multiple of the number of marks."""
        per_step = self.spec.responses_per_step * self.mean_length
        return max(1, round(tokens / per_step / self.spec.marks)) * self.spec.marks

    @cached_property
    def proxy(self) -> RewardModel:
        """The learned reward, trained on the first call and kept."""
        folder = self.out / "proxy"
        if not (folder / "done.json").exists():
            self._train_proxy(folder)
        return load_reward_model(str(folder))

    @property
    def proxy_seconds(self) -> float:
        """Device-seconds of training the proxy."""
        _ = self.proxy
        return float(json.loads((self.out / "proxy" / "done.json").read_text())["seconds"])

    def _train_proxy(self, folder: Path) -> None:
        from jalign.leaderboard.cost import Stopwatch, seconds_per_step

        p, (train, validation, _) = self.spec.proxy, self.rows
        run = api.reward_model(
            p.algorithm, self.start, train[: p.pairs or None], eval=validation,
            batch_size=p.batch_size, data_options=self.data,
        )  # fmt: skip
        optim = OptimConfig(
            learning_rate=p.learning_rate, schedule="constant", warmup_steps=p.steps // 10
        )
        with Stopwatch() as watch:
            code = run.fit(
                p.steps, optim, str(folder), checkpoint_every=0, log_every=1, console=None
            )
        if code is not ExitCode.OK:
            raise Interrupted(f"training the proxy ended with {code.name}")
        facts = {"seconds": seconds_per_step(run.record) * p.steps * watch.share}
        facts |= {n: x for n, x in run.evaluations[-1].items() if isinstance(x, int | float)}
        (folder / "done.json").write_text(json.dumps(facts) + "\n")

    @property
    def data(self) -> DataConfig:
        """Limits in tokens."""
        s = self.spec
        return DataConfig(
            max_prompt_len=s.max_prompt_len, max_response_len=s.max_new_tokens, holdout=0
        )

    @cached_property
    def identity(self) -> dict[str, str]:
        """SHA-256 of the data, of what all cells share, and of jalign's code."""
        return {
            "data": _digest([list(rows) for rows in self.rows]),
            "config": _digest(self.spec.shared()),
            "code": code_digest(),
        }


def _pairs(name: str, split: str) -> list[Row]:
    rows = rows_of(name, split)
    for i, row in enumerate(rows):
        if missing := {"prompt", "chosen", "rejected"} - set(row):
            raise ValueError(f"{name}: row {i} has no {', '.join(sorted(missing))}")
    return rows


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_digest() -> str:
    """SHA-256 over the names and contents of jalign's Python files."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def finite(x: float) -> float | None:
    """JSON has no NaN: null instead."""
    return float(x) if math.isfinite(x) else None
