"""The values that describe a run or a command: one dataclass per section, checked when constructed.

`jalign.config` reads them from YAML and the command line; `jalign.run` and the other packages take
them as they are.
"""

from jalign.options.arena import ArenaConfig, ArenaJudgeConfig
from jalign.options.benchmarks import BenchmarkConfig
from jalign.options.data import DataConfig, Sources
from jalign.options.feedback import LabelConfig, PromptsConfig, ReviseConfig
from jalign.options.judge import JudgeConfig, LanguageModelConfig
from jalign.options.model import LoraConfig, ModelConfig
from jalign.options.optim import MergingConfig, OptimConfig
from jalign.options.reward import RewardConfig
from jalign.options.rollout import RolloutConfig
from jalign.options.run import RunOptions
from jalign.options.runtime import CheckpointConfig, LogConfig, MeshConfig, SampleConfig
from jalign.train.stopping import StopRules

__all__ = [
    "ArenaConfig",
    "ArenaJudgeConfig",
    "BenchmarkConfig",
    "CheckpointConfig",
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
    "RunOptions",
    "SampleConfig",
    "Sources",
    "StopRules",
]
