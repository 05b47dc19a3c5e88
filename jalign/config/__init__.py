"""What a run can be told. One YAML file and `--dotted.key value` overrides fill these dataclasses
(jsonargparse).

An algorithm's hyper-parameters are not declared here: `algorithm: {name: dpo, beta: 0.1}` is
checked against the loss's signature.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Any, Literal

import jax

from jalign import algorithms
from jalign.core import ROLLOUT, TWO_MODELS, Algorithm, arrays_of
from jalign.experience import relative
from jalign.options import (
    CheckpointConfig,
    DataConfig,
    JudgeConfig,
    LabelConfig,
    LanguageModelConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    PromptsConfig,
    ReviseConfig,
    RewardConfig,
    RolloutConfig,
    SampleConfig,
    Sources,
)
from jalign.options.data import EMBEDDED, is_embedded
from jalign.options.rates import usual
from jalign.train.stopping import StopRules

__all__ = [
    "EMBEDDED",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "JudgeConfig",
    "LabelConfig",
    "LanguageModelConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimConfig",
    "PromptsConfig",
    "ReviseConfig",
    "RewardConfig",
    "RolloutConfig",
    "SampleConfig",
    "Sources",
    "StopRules",
    "is_embedded",
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run.

    Args:
        algorithm: its name (of your own file.py:row or package.module:row) and any of its
          hyper-parameters (see `jalign algorithms NAME`). Another name on the command line than in
          the file begins with its own defaults.
        out: folder of the run: metrics, TensorBoard, checkpoints.
        steps: optimizer steps; 0 to use epochs.
        epochs: passes over the data, when steps is 0.
        batch_size: examples (prompts with their responses) per optimizer step, over all devices.
        seed: of the data order, fresh weights, dropout and sampling.
        reference: compute the reference's log-probs in the step, or once before training (kept on
          disk).
        log_every: steps between log lines; their metrics are averaged.
        eval_every: steps between evaluations on the held-out data; 0 for before and after only.
        max_bad_steps: non-finite steps in a row that end the run.
        deterministic: train with XLA's run-to-run deterministic operations and without autotuning,
          so that a run on GPUs repeats bit for bit on the same hardware and software; slower there.
          TPUs and CPUs repeat anyway.
    """

    algorithm: dict[str, Any]
    out: str = "runs/run"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    stop: StopRules = field(default_factory=StopRules)
    steps: int = 0
    epochs: float = 1.0
    batch_size: int = 32
    seed: int = 0
    reference: Literal["step", "cached"] = "step"
    log_every: int = 10
    eval_every: int = 0
    max_bad_steps: int = 10
    deterministic: bool = False

    def __post_init__(self):
        """Whatever can be known to be wrong without looking at data or devices."""
        hyper = dict(self.algorithm)
        if "name" not in hyper:
            raise ValueError(f"algorithm needs a name, got {self.algorithm!r}")
        row = algorithms.get(hyper.pop("name"))
        self._set_learning_rate(row)
        row.trace(**hyper)  # a loss refuses a hyper-parameter out of range
        if self.model.quant != "none" and not (self.model.lora or self.model.adapter):
            raise ValueError(
                f"model.quant: {self.model.quant} freezes the matrices, and nothing stands on "
                "them: set model.lora or model.adapter"
            )
        if self.model.lora and self.model.lora.dropout and row.needs_reference(**hyper):
            raise ValueError(
                f"model.lora.dropout does not apply to {row.name}: policy and reference would "
                "differ where they are the same; set it to 0"
            )
        ratio = row.experience and "old_token_logps" in row.inputs(**hyper)
        if self.model.lora and self.model.lora.dropout and ratio:
            raise ValueError(
                f"model.lora.dropout does not apply to {row.name}: the policy would differ from "
                "what was sampled where it is the same; set it to 0"
            )
        adapters, numbers = self.model.lora or self.model.adapter, row.resolve_hyper(**hyper)
        if adapters and row.moves_reference(**hyper) and numbers["ref_mixup_alpha"] < 1:
            raise ValueError(
                "ref_mixup_alpha < 1 does not apply to adapters: the mean of two adapters' "
                "factors is not the mean of the weights; set it to 1"
            )
        self._check_numbers()
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {self.batch_size}")
        if self.steps < 0 or (self.steps == 0 and self.epochs <= 0):
            raise ValueError("set steps > 0, or epochs > 0")
        if self.reference == "cached" and not row.needs_reference(**hyper):
            raise ValueError(f"reference: cached does not apply: {row.name} reads no reference")
        if self.reference == "cached":
            self._check_cached(row, hyper)
        self._check_models(row, hyper)
        self._check_online(row)
        self._check_stop(row, hyper)
        self._check_experience(row, hyper)
        if row.batch_coupled and self.batch_size < 2:
            raise ValueError(
                f"{row.name} compares the examples of a batch: batch_size must be >= 2"
            )
        for name in ("score", "every"):
            if getattr(self.sample, name) and not self.sample.prompts:
                raise ValueError(f"sample.{name} needs sample.prompts > 0")
        if self.sample.prompts and row.needs_value_head:
            raise ValueError(
                f"sample.prompts does not apply to {row.name}: it trains no language model"
            )
        if self.data.holdout and (self.data.eval is not None or is_embedded(self.data.train)):
            raise ValueError("data.holdout does not apply: there are held-out data already")
        own = isinstance(self.data.train, str) and not is_embedded(self.data.train)
        if self.data.eval is None and self.data.eval_split != "test" and not own:
            raise ValueError("data.eval_split needs data.eval")

    def _set_learning_rate(self, row: Algorithm) -> None:
        """What is usual where none is given, so that all that reads a config sees a number."""
        if self.optim.learning_rate is not None:
            return
        if self.optim.name not in ("adamw", "adafactor"):
            raise ValueError(
                f"optim.learning_rate: the usual ones are those of adamw; set it for "
                f"{self.optim.name}"
            )
        rate, _ = usual(row, adapters=bool(self.model.lora or self.model.adapter))
        object.__setattr__(self, "optim", replace(self.optim, learning_rate=rate))

    def _check_cached(self, row: Algorithm, hyper: dict[str, Any]) -> None:
        """Reference log-probs are computed once only where nothing else would come out later."""
        inputs = row.inputs(**hyper)
        why = None
        if row.experience:
            why = "its responses are sampled anew"
        elif row.moves_reference(**hyper):
            why = "its reference moves (ref_sync_steps)"
        elif "kl_present" in inputs:
            why = "which mismatched response an example gets changes with its batch"
        elif any(output in TWO_MODELS for output in row.outputs(inputs)):
            why = "it compares policy and reference over the whole vocabulary"
        elif any(name.removeprefix("ref_") in row.format.token_fields for name in inputs):
            why = "it reads the reference token by token"
        if why:
            raise ValueError(f"reference: cached does not apply to {row.name}: {why}")

    def _check_models(self, row: Algorithm, hyper: dict[str, Any]) -> None:
        """Models that the algorithm needs, and none that it would not look at."""
        c = self.model
        if row.needs_teacher and not c.reference:
            raise ValueError(f"{row.name} learns from a teacher: set model.reference")
        if c.reference and not row.needs_reference(**hyper):
            raise ValueError(f"model.reference does not apply: {row.name} reads no reference")
        if c.reference and row.moves_reference(**hyper):
            raise ValueError(
                "model.reference does not apply: with ref_sync_steps the reference is the model "
                "of earlier steps"
            )
        if hyper.get("ref_mixup_alpha", 1.0) != 1.0 and not row.moves_reference(**hyper):
            raise ValueError(
                "ref_mixup_alpha does nothing while the reference stands still: set ref_sync_steps"
            )
        if row.moves_reference(**hyper) and not row.needs_reference(**hyper):
            raise ValueError(
                f"ref_sync_steps does not apply: with these numbers {row.name} reads no reference"
            )
        if c.critic and not row.needs_critic:
            raise ValueError(f"model.critic does not apply: {row.name} trains no critic")
        if c.reference_offload == "host":
            self._check_offload(row, hyper)
        several = "attribute_scores" in row.inputs(**hyper)
        if c.heads < 1 or (c.heads != 1 and not several):
            raise ValueError(
                f"model.heads is {c.heads}: "
                + ("it must be at least 1" if c.heads < 1 else f"{row.name} reads one number")
            )

    def _check_offload(self, row: Algorithm, hyper: dict[str, Any]) -> None:
        """A reference that stands still, is a model of its own, and is only scored with."""
        why = None
        if not row.needs_reference(**hyper):
            why = f"{row.name} reads no reference"
        elif self.reference == "cached":
            why = "reference: cached keeps none"
        elif row.moves_reference(**hyper):
            why = "with ref_sync_steps it is part of what is trained"
        elif (self.model.lora or self.model.adapter) and not self.model.reference:
            why = "policy and reference stand on the same frozen weights"
        elif row.experience and row.experience.samples_reference:
            why = f"{row.name} samples from it"
        if why:
            raise ValueError(f"model.reference_offload does not apply: {why}")

    def _check_online(self, row: Algorithm) -> None:
        """Rollouts and rewards where they are read, and only there."""
        coef = row.resolve_hyper(**self.hyper).get("ptx_coef", 0.0)
        if bool(coef) != (self.data.pretraining is not None):
            raise ValueError(
                f"ptx_coef and data.pretraining go together: for {row.name} they are {coef} and "
                f"{self.data.pretraining}"
            )
        if row.experience is None:
            for name, given in (("rollout", self.rollout), ("reward", self.reward)):
                if given != type(given)():
                    raise ValueError(f"{name} does not apply to {row.name}: its data are fixed")
            return
        if not self.steps:
            raise ValueError(f"{row.name} samples its own data: set steps")
        fixed = {"layout": "flat", "group_by_length": 0, "shuffle": True, "soft_labels": 0.0}
        fixed |= {"balance": False, "loss_on": "response", "filters": []}
        for name, default in fixed.items():
            if getattr(self.data, name) != default:
                raise ValueError(f"data.{name} does not apply to {row.name}: it samples its data")
        unread = {
            "kl_target": "kl_coef" not in row.experience_hyper(),
            "importance_cap": "advantages" not in arrays_of(row.loss),
        }
        for name, applies_not in unread.items():
            if applies_not and getattr(self.rollout, name):
                raise ValueError(f"rollout.{name} does not apply to {row.name}: it reads none")
        self._check_unread(row)
        self._check_kl(row)
        if row.experience.opponent != "policy" and self.rollout.responses not in (0, 2):
            raise ValueError(
                f"rollout.responses must be 2, got {self.rollout.responses}: {row.name} compares "
                f"one response of the policy with one of the {row.experience.opponent}"
            )
        prompts = self.rollout.prompts or self.batch_size
        if prompts % self.batch_size:
            raise ValueError(
                f"rollout.prompts ({prompts}) must be a multiple of batch_size ({self.batch_size})"
            )
        read = set(row.rollout_inputs())
        if 0 < self.rollout.responses < (least := relative(row.experience.fn).least):
            raise ValueError(
                f"rollout.responses is {self.rollout.responses}: {row.name} compares the responses "
                f"to a prompt with each other; set it to {least} or more (0 is "
                f"{row.experience.responses})"
            )
        self._check_steps(row)
        if "scores" in read and not self.reward.scores:
            raise ValueError(f"{row.name} learns from rewards: {self._no_rewards()}")
        if "win_probs" in read and not self.reward.given:
            raise ValueError(f"{row.name} learns from preferences: set reward.judge or a reward")
        if self.reward.judge.ask == "preference" and "win_probs" not in read:
            raise ValueError(
                f"reward.judge.ask: preference does not apply: {row.name} reads no preferences"
            )

    def _no_rewards(self) -> str:
        """What to set where a method learns from rewards, and perhaps why what is set is none."""
        if self.reward.judge.ask != "preference":
            return "set reward.functions, reward.model or reward.judge"
        rows = (row.name for row in algorithms.ROWS if "win_probs" in row.rollout_inputs())
        return (
            "reward.judge.ask is preference, which gives no response a reward: ask for score or "
            f"points, or take a method that learns from preferences ({', '.join(rows)})"
        )

    def _check_kl(self, row: Algorithm) -> None:
        """A KL divergence is in the reward or in the loss, not in both."""
        numbers = row.resolve_hyper(**self.hyper)
        in_reward = row.experience_hyper(**self.hyper).get("kl_coef", 0)
        in_loss = [name for name, aux in row.available_aux_losses.items() if aux.is_kl]
        for name in in_loss if in_reward else ():
            if numbers[name]:
                raise ValueError(
                    f"{row.name} has the KL divergence in its reward (kl_coef: {in_reward}) and "
                    f"in its loss ({name}: {numbers[name]}): set one of them to 0"
                )

    def _check_unread(self, row: Algorithm) -> None:
        """Numbers of mixtures, preferences and reward models where there are none."""
        assert row.experience is not None
        asked = self.reward.judge.ask == "preference"
        unread = {
            "rollout.mixture": row.experience.opponent != "mixture"
            and "it samples from no mixture",
            "reward.temperature": ("win_probs" not in row.rollout_inputs() or asked)
            and "no preferences are made of rewards",
            "reward.model_weight": not self.reward.model and "there is no reward.model",
        }
        monitored = "scores" not in row.rollout_inputs() and asked
        for name in ("reward.clip", "reward.missing_eos_penalty"):
            unread[name] = monitored and "the judge's preferences know no number"
        unread["rollout.kl_horizon"] = not self.rollout.kl_target and "there is no kl_target"
        plain = {"rollout": RolloutConfig(), "reward": RewardConfig()}
        for name, why in unread.items():
            section, _, number = name.partition(".")
            if why and getattr(getattr(self, section), number) != getattr(plain[section], number):
                raise ValueError(f"{name} does not apply to {row.name}: {why}")

    def _check_stop(self, row: Algorithm, hyper: dict[str, Any]) -> None:
        """Rules that the run's evaluations can answer."""
        if not self.stop.given:
            return
        if not self.eval_every:
            raise ValueError("stop goes by the evaluations during the run: set eval_every > 0")
        of_answers = ("kl_budget", "length_ratio", "min_diversity")
        for name in of_answers if row.experience is None else ():
            if getattr(self.stop, name):
                raise ValueError(
                    f"stop.{name} does not apply to {row.name}: it answers no held-out prompts"
                )
        if self.stop.kl_budget and not row.needs_reference(**hyper):
            raise ValueError(f"stop.kl_budget does not apply: {row.name} reads no reference")
        if self.stop.kl_budget and row.moves_reference(**hyper):
            raise ValueError(
                f"stop.kl_budget does not apply: the reference of {row.name} follows the policy "
                "(ref_sync_steps)"
            )
        if self.stop.min_diversity and self.rollout.max_new_tokens < 2:
            raise ValueError("stop.min_diversity needs rollout.max_new_tokens >= 2")
        if row.experience and self.stop.metric in ("auto", "reward") and not self.reward.scores:
            raise ValueError(
                f"stop.metric is {self.stop.metric}, and nothing gives a reward: set "
                "reward.functions, reward.model or reward.judge"
            )

    def _check_steps(self, row: Algorithm) -> None:
        """Rewards of steps where a method learns from them, and none of whole responses."""
        c = self.reward
        if "step_scores" not in row.rollout_inputs():
            if c.step_separator != RewardConfig().step_separator:
                raise ValueError(
                    f"reward.step_separator does not apply: {row.name} reads no rewards of steps"
                )
            return
        if not (c.functions or c.model):
            raise ValueError(
                f"{row.name} learns from rewards of steps: set reward.functions, which are then "
                "asked about each step, or reward.model, the folder of a run of prm"
            )
        for name, given in (
            ("judge", c.judge.ask != "nothing"),
            ("missing_eos_penalty", c.missing_eos_penalty),
        ):
            if given:
                raise ValueError(
                    f"reward.{name} does not apply: {row.name} learns from rewards of steps"
                )

    def _check_experience(self, row: Algorithm, hyper: dict[str, Any]) -> None:
        """Traced, not run: a number out of range, or too few responses, are refused here."""
        if row.experience is None:
            return
        sizes = {"B": 1, "K": self.rollout.responses or row.experience.responses, "R": 1}
        truths = ("valid", "finished", "mask")
        arrays = [
            jax.ShapeDtypeStruct(
                tuple(sizes[axis] for axis in ROLLOUT[name]),
                jax.numpy.bool_ if name in truths else jax.numpy.float32,
            )
            for name in row.rollout_inputs()
        ]
        make = partial(row.experience.fn, **row.experience_hyper(**hyper))
        made, only = jax.eval_shape(make, *arrays), row.format.k
        if only and "take" not in made and sizes["K"] != only:
            raise ValueError(
                f"rollout.responses is {sizes['K']}: {row.name} learns from {only} per prompt, and "
                "chooses none"
            )

    def _check_numbers(self) -> None:
        """Numbers that are out of range, or that the optimizer does not read; and the date."""
        if self.data.date is not None:
            try:
                datetime.fromisoformat(self.data.date)
            except ValueError:
                raise ValueError(
                    "data.date must be a date such as 2026-11-30, or 2026-11-30T18:05 with a "
                    f"time, got {self.data.date!r}"
                ) from None
        least = {
            "log_every": 1, "max_bad_steps": 1, "eval_every": 0, "data.limit": 0,
            "data.eval_limit": 0, "data.holdout": 0, "data.soft_labels": 0, "sample.prompts": 0,
            "sample.every": 0, "sample.max_new_tokens": 1,
            "checkpoint.every": 0, "checkpoint.keep": 1, "model.depth": 0,
        }  # fmt: skip
        for name, smallest in least.items():
            value = attrgetter(name)(self)
            if value is not None and value < smallest:
                raise ValueError(f"{name} must be >= {smallest}, got {value}")
        self.optim.make(self.steps or max(self.optim.warmup_steps, 1))  # of epochs nothing is known

    @property
    def hyper(self) -> dict[str, Any]:
        """The algorithm's hyper-parameters that the config sets."""
        return {k: v for k, v in self.algorithm.items() if k != "name"}
