"""Everything that describes a run, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import optax

from jalign import algorithms
from jalign.algorithms.corrections import corrected
from jalign.core import Algorithm
from jalign.formats.router import with_router_losses
from jalign.options.checks import problems
from jalign.options.data import DataConfig
from jalign.options.model import ModelConfig
from jalign.options.optim import OptimConfig
from jalign.options.rates import usual
from jalign.options.renamed import with_new_keys
from jalign.options.reward import RewardConfig
from jalign.options.rollout import RolloutConfig
from jalign.options.runtime import CheckpointConfig, LogConfig, MeshConfig, SampleConfig
from jalign.signatures import did_you_mean
from jalign.train.stopping import StopRules


@dataclass(frozen=True, kw_only=True)
class RunFields:
    """The fields of a run, from Python or from a config; `jalign.config.Config` documents them."""

    algorithm: Any
    out: str = "runs/run"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
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


@dataclass(frozen=True, kw_only=True)
class RunOptions(RunFields):
    """One run. The fields are those of `jalign.config.Config`, whose help they share, but the
    algorithm is the row itself.

    Attributes:
      algorithm: the row with its hyper-parameters (`Algorithm.with_hyper`).
      algorithm_name: as the row is found again: its name, `file.py:row` or `package.module:row`.
    """

    algorithm: Algorithm
    algorithm_name: str = ""

    def __post_init__(self):
        if not self.algorithm_name:
            # from Python a row comes without the name by which a config finds it
            object.__setattr__(self, "algorithm_name", algorithms.name_of(self.algorithm))
        # AdamW's rates: those usual for sgd, lion or muon differ by orders of magnitude
        if self.optim.learning_rate is None and self.optim.name in ("adamw", "adafactor"):
            adapters = bool(self.model.lora or self.model.adapter)
            rate, _ = usual(self.algorithm, adapters=adapters)
            object.__setattr__(self, "optim", replace(self.optim, learning_rate=rate))

    @property
    def trained_algorithm(self) -> Algorithm:
        """The row with what the options add to its loss: the losses of a router, and rollout
        corrections.
        """
        row = corrected(self.algorithm, self.rollout.corrections)
        return with_router_losses(row, self.model.router_balance, self.model.router_z)

    def any_optimizer(self) -> optax.GradientTransformation:
        """The optimizer where nothing is trained: its state has the run's shapes. Before data are
        read the number of updates is not known where epochs are set, but a schedule needs a length.
        """
        return self.optim.make(max(self.steps, self.optim.warmup_steps, 1))[0]

    def check(self) -> RunOptions:
        """These options, if nothing is wrong with them that shows without data or devices.

        Raises:
          ValueError: the first thing that is wrong, and its remedy.
        """
        if problem := next(problems(self), None):
            raise ValueError(problem)
        return self

    def to_json(self) -> dict[str, Any]:
        """The run's config.json, which a YAML config may be copied from."""
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _ROW}
        plain = {n: asdict(x) if is_dataclass(x) else x for n, x in rest.items()}  # type: ignore[arg-type]
        return {"algorithm": {"name": self.algorithm_name} | dict(self.algorithm.hyper)} | plain

    @classmethod
    def from_json(cls, saved: Mapping[str, object]) -> RunOptions:
        """The options that `to_json` wrote, of this version or an older one.

        Raises:
          ValueError: a key or an algorithm is unknown; it names the nearest.
        """
        # first: the checks below know today's keys only
        saved = with_new_keys(saved)
        row = dict(saved["algorithm"])
        name = row.pop("name")
        rest = {n: x for n, x in saved.items() if n != "algorithm"}
        sections = _from_json(cls, rest, "", skipped=_ROW)
        # dr_grpo divides by it, and runs of older versions may have saved no rollout section
        most = sections["rollout"].max_new_tokens if "rollout" in sections else 64
        algorithm = algorithms.get(name).with_hyper(**row).with_longest_response(most)
        return cls(algorithm=algorithm, algorithm_name=name, **sections)


_ROW = ("algorithm", "algorithm_name")


def _from_json(
    kind: type, saved: dict[str, Any], path: str, skipped: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The keyword arguments of a dataclass; sections become dataclasses themselves."""
    # resolved: under `from __future__ import annotations` a field's type is a string
    hints = {n: t for n, t in get_type_hints(kind).items() if n not in skipped}
    out = {}
    for name, value in saved.items():
        if name not in hints:
            near = did_you_mean(name, hints)
            raise ValueError(f"config.json has an unknown key {path}{name}{near}")
        section = _section(hints[name])
        # null stays None: model.lora is a section or nothing
        if section is not None and isinstance(value, dict):
            value = section(**_from_json(section, value, f"{path}{name}."))
        out[name] = value
    return out


def _section(hint: Any) -> type | None:
    """The dataclass of a field, if it is one or may be."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((x for x in options if isinstance(x, type) and is_dataclass(x)), None)
