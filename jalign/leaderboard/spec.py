"""What a leaderboard compares: methods, their start, data, rewards and budgets, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from jalign import algorithms
from jalign.options.least import check_least
from jalign.signatures import did_you_mean

Noise = Literal["none", "uniform", "annotator", "clearest"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the leaderboard.

    Args:
      name: of the row.
      algorithm: row of the catalogue; the name by default.
      hyper: hyper-parameters of the algorithm.
      options: fields of `RolloutConfig` for online methods (responses), further options of
        `jalign.offline` for the others.
      rates: its grid of learning rates; empty: that of the leaderboard.
      like: a method whose selected learning rate it uses, instead of a grid of its own.
      after: a method whose result (of the same seed) it starts from; its KL and win rate are still
        measured against the start of the leaderboard.
      lora: rank of adapters; 0: all parameters.
      noise, noise_share: which preference labels are inverted, and the share of them
        (`jalign.leaderboard.noise`).
      desirable_share: for methods on binary feedback: desirable examples among all; 0: as they are.
      group: rows of the main table are "main"; others answer one claim, such as "noise".
    """

    name: str
    algorithm: str = ""
    hyper: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    like: str = ""
    after: str = ""
    lora: int = 0
    noise: Noise = "none"
    noise_share: float = 0.0
    desirable_share: float = 0.0
    group: str = "main"

    def __post_init__(self):
        object.__setattr__(self, "algorithm", self.algorithm or self.name)
        object.__setattr__(self, "rates", tuple(float(x) for x in self.rates))
        if self.noise not in ("none", "uniform", "annotator", "clearest"):
            raise ValueError(
                f"methods.{self.name}.noise must be none, uniform, annotator or clearest, "
                f"got {self.noise!r}"
            )
        for name in ("noise_share", "desirable_share"):
            if not 0 <= getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"methods.{self.name}.{name} must be in [0, 1), got {value}")
        if (self.noise == "none") != (self.noise_share == 0):
            raise ValueError(f"methods.{self.name}: noise and noise_share go together")
        if self.rates and self.like:
            raise ValueError(f"methods.{self.name}: give rates or like, not both")

    @property
    def row(self) -> algorithms.Algorithm:
        """The row of the catalogue with its hyper-parameters."""
        return algorithms.get(self.algorithm).with_hyper(**self.hyper)

    @property
    def online(self) -> bool:
        """Whether it samples its own data."""
        return algorithms.get(self.algorithm).experience is not None


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """The learned reward that online methods are given; it is trained on the pairs.

    Args:
      algorithm: a row that trains a reward model.
      pairs: the first so many pairs; 0: all. Fewer make it easier to over-optimize.
      steps, batch_size, learning_rate: of its training.
    """

    algorithm: str = "bradley_terry"
    pairs: int = 0
    steps: int = 60
    batch_size: int = 32
    learning_rate: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A leaderboard: every method from one start, on the same prompts and pairs, for equal tokens.

    Args:
      start: model that every method starts from: a folder, a hub name, or "embedded".
      pairs: file of preference pairs that offline methods and the proxy learn from, or "embedded";
        online methods get its prompts.
      test: file of held-out pairs; "embedded" has its own.
      validation: number of prompts, taken from the end of `pairs`, on which learning rates are
        selected and curves are drawn.
      test_limit: held-out pairs that are used; 0: all.
      true_reward: what ranks the methods and is hidden from them: a rule, `file.py:function`,
        `package.module:function`, or a reward model (the folder of its run, or any
        sequence-classification model with one label).
      proxy: the reward that online methods see.
      texts: file of texts for the held-out NLL (forgetting); without it, the responses of `test`.
      text_limit: texts that are used.
      max_prompt_len, max_new_tokens: limits in tokens.
      responses_per_step: responses that an optimizer step of every method reads or samples.
      tokens: budgets, in response tokens that a method reads or samples; methods are ranked by the
        largest.
      marks: evaluations during a run, the last at its end.
      rates: grid of learning rates.
      kl_limit: rates whose policy is further than this from the start (nats per response) are
        selected only if all are; 0: no limit.
      seeds: at least 3 for intervals between seeds.
      temperature: of all sampling.
      methods: name -> `Method`.
    """

    start: str
    methods: dict[str, Method]
    pairs: str = "embedded"
    test: str = ""
    validation: int = 64
    test_limit: int = 0
    true_reward: str = "sentiment_reward"
    proxy: Proxy = field(default_factory=Proxy)
    texts: str = ""
    text_limit: int = 64
    max_prompt_len: int = 48
    max_new_tokens: int = 48
    responses_per_step: int = 32
    tokens: tuple[int, ...] = (32_000,)
    marks: int = 4
    rates: tuple[float, ...] = (2e-5, 5e-5, 1e-4)
    kl_limit: float = 0.0
    seeds: int = 3
    temperature: float = 1.0

    def __post_init__(self):
        check_least(self, validation=2, marks=1, seeds=1, responses_per_step=1)
        if not self.tokens or not self.rates or not self.methods:
            raise ValueError("a leaderboard needs tokens, rates and methods")
        for method in self.methods.values():
            for key in ("like", "after"):
                other = getattr(method, key)
                if other and (other not in self.methods or other == method.name):
                    near = did_you_mean(other, self.methods)
                    raise ValueError(f"methods.{method.name}.{key}: no method {other!r}{near}")
            if method.like and self.methods[method.like].like:
                raise ValueError(
                    f"methods.{method.name}.like: {method.like} has no grid of its own"
                )
            _ = method.row  # an unknown algorithm or hyper-parameter must not cost the rows before

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spec:
        """A spec from the content of a YAML file; `methods` maps names to options or nothing.

        Raises:
          ValueError: an unknown key; the message names the nearest.
        """
        values = dict(values)
        _check(values, cls, "")
        if missing := [name for name in ("start", "methods") if name not in values]:
            raise ValueError(f"a leaderboard needs {' and '.join(missing)}")
        proxy = dict(values.pop("proxy", None) or {})
        _check(proxy, Proxy, "proxy.")
        methods = {}
        for name, options in dict(values.pop("methods")).items():
            _check(options or {}, Method, f"methods.{name}.")
            methods[name] = Method(name=name, **(options or {}))
        for name in ("tokens", "rates"):
            if name in values:
                given = values[name] if isinstance(values[name], list | tuple) else [values[name]]
                values[name] = tuple(given)
        return cls(methods=methods, proxy=Proxy(**proxy), **values)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def shared(self) -> dict[str, Any]:
        """What every cell depends on: all but methods, grids, seeds and budgets."""
        varying = ("methods", "rates", "seeds", "tokens", "kl_limit")
        return {name: x for name, x in self.to_json().items() if name not in varying}

    def only(self, methods: list[str]) -> Spec:
        """The spec with these methods, and those that they refer to.

        Raises:
          ValueError: an unknown name.
        """
        for name in methods:
            if name not in self.methods:
                raise ValueError(f"no method {name!r}{did_you_mean(name, self.methods)}")
        needed = list(methods)
        for name in needed:  # grows while it is read: references of references
            method = self.methods[name]
            needed += [x for x in (method.like, method.after) if x and x not in needed]
        return replace(self, methods={n: m for n, m in self.methods.items() if n in needed})


def _check(given: Mapping[str, Any], kind: type, path: str) -> None:
    known = [f.name for f in fields(kind)]
    for name in given:
        if name not in known:
            raise ValueError(f"a leaderboard has no key {path}{name}{did_you_mean(name, known)}")
