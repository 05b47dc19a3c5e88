"""The config of a run. One YAML file and `--dotted.key value` overrides fill these dataclasses
(jsonargparse).

An algorithm's hyper-parameters are not declared here: `algorithm: {name: dpo, beta: 0.1}` is
checked against the loss's signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jalign.config.build import options_of
from jalign.options import (
    CheckpointConfig,
    DataConfig,
    JudgeConfig,
    LabelConfig,
    LanguageModelConfig,
    LogConfig,
    LoraConfig,
    MergingConfig,
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
from jalign.options.run import RunFields
from jalign.train.stopping import StopRules

__all__ = [
    "EMBEDDED",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "JudgeConfig",
    "LabelConfig",
    "LanguageModelConfig",
    "LogConfig",
    "LoraConfig",
    "MergingConfig",
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
class Config(RunFields):
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

    def __post_init__(self):
        # before options_of, whose KeyError would not name the section
        if "name" not in self.algorithm:
            raise ValueError(f"algorithm needs a name, got {self.algorithm!r}")
        # built here for its errors, so that YAML and Python users get the same ones
        options_of(self).check()

    @property
    def hyper(self) -> dict[str, float]:
        """The algorithm's hyper-parameters that the config sets."""
        return {k: v for k, v in self.algorithm.items() if k != "name"}
