"""The nouns: what every algorithm, whatever its paper, is written in.

Shape letters, everywhere: B prompts, K responses per prompt, R scored tokens per response, T
  tokens, V vocabulary.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int

from jalign.layout import Layout

Arrays = dict[str, Array]
LossFn = Callable[..., tuple[Array, Arrays]]


class Mean(NamedTuple):
    """A mean that is not divided yet, so that parts (micro-batches, devices) are added first
    and divided once.
    """

    total: Float[Array, ""]
    count: Float[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]  # no tuple.count

    @classmethod
    def of(cls, x: Array, weights: Array) -> Mean:
        """Sum of `x` where `weights` > 0, times `weights`; whatever stands elsewhere (NaN too)
        does not matter.
        """
        w = jnp.broadcast_to(weights, x.shape).astype(jnp.float32)
        return cls(jnp.sum(jnp.where(w > 0, x, 0.0).astype(jnp.float32) * w), jnp.sum(w))

    @property
    def value(self) -> Float[Array, ""]:
        return self.total / jnp.maximum(self.count, 1e-20)

    @property
    def shown(self) -> Float[Array, ""]:
        """The value for people: NaN where nothing was averaged, so that nobody takes it for a 0."""
        return jnp.where(self.count > 0, self.value, jnp.nan)


Reduction = Callable[[Arrays], tuple[Array, Array]]
"""fields -> (weights that broadcast to the unreduced loss, divisor). Depends on masks and data
only, never on parameters,
so that the divisor of a whole optimizer step is known before the first backward pass."""


@struct.dataclass
class Batch:
    """K scored responses to each of B prompts. A place with nothing in it has an all-False mask.

    Attributes:
      layout: where the tokens are (`jalign.layout`).
      mask: [B, K, R] True on scored response tokens; the scored tokens of a response stand first.
      extras: fields that come with the data, [B, ...]: margin, label, rewards, cached `ref_*`, and
        `index`, the example number.
    """

    layout: Layout
    mask: Bool[Array, "B K R"]
    extras: Arrays = struct.field(default_factory=dict)

    @property
    def present(self) -> Bool[Array, "B"]:
        """Which of the B places hold an example."""
        return self.mask.any(axis=(-1, -2))


@struct.dataclass
class Parts:
    """Micro-batches of equal shape, stacked: every leaf of `batch` has a leading axis, of which
    the first `count` are filled.
    """

    batch: Batch
    count: Int[Array, ""]


@struct.dataclass
class TrainState:
    """Everything that changes: donated whole, saved whole."""

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    carry: Arrays
    key: Array
    skipped: Int[Array, ""]  # steps whose loss or gradient was not finite, in all
    skipped_in_a_row: Int[Array, ""]


@struct.dataclass
class Frozen:
    """Everything that does not change: neither donated nor saved, but fingerprinted."""

    base: Any  # weights that are not trained (empty in full fine-tuning)
    ref: Any  # a copy of the initial trainable parameters; None when no loss asks for it


@dataclass(frozen=True)
class Format:
    """How the scored tokens `[B, K, R]` of a batch become the named arrays a loss asks for.

    Attributes:
      name: supervised | pairs | binary | lists | samples.
      k: responses per prompt; None when it is free.
      view: (outputs of the scorer, batch) -> named arrays. Outputs may be empty: then only what
        follows from the mask is returned.
      reads: for every array of `view` that needs the model, the scorer outputs it is made from.
        Each also exists as `ref_<name>`.
      mask_fields: arrays of `view` that follow from the mask.
      data_fields: arrays read from `Batch.extras`.
      metrics: (fields, what the loss returned) -> {TRL name: (unreduced values, weights)}.
    """

    name: str
    k: int | None
    view: Callable[[Arrays, Batch], Arrays]
    reads: Mapping[str, tuple[str, ...]]
    mask_fields: frozenset[str]
    data_fields: frozenset[str]
    metrics: Callable[[Arrays, Arrays], dict[str, tuple[Array, Array]]]

    @property
    def fields(self) -> frozenset[str]:
        """The closed vocabulary: every name a loss of this format may use for an array."""
        return (
            frozenset(self.reads)
            | {f"ref_{x}" for x in self.reads}
            | self.mask_fields
            | self.data_fields
        )


@dataclass(frozen=True)
class Carry:
    """Running values a loss keeps between steps, such as a reward baseline."""

    init: Mapping[str, float]
    update: Callable[[Arrays, Arrays], Arrays]  # (carry, metrics of the step) -> carry


class Term(NamedTuple):
    """One weighted, reduced piece of an objective, with its numbers fixed."""

    name: str
    weight: float
    fn: LossFn
    numbers: dict[str, Any]
    reduce: Reduction


def arrays_of(fn: LossFn) -> tuple[str, ...]:
    """The arrays a loss takes: its positional parameters, by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    return tuple(p.name for p in inspect.signature(fn).parameters.values() if p.kind in kinds)


def numbers_of(fn: LossFn) -> dict[str, Any]:
    """The numbers a loss takes: its keyword-only parameters and their defaults."""
    parameters = inspect.signature(fn).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what is allowed when nothing is near."""
    allowed = sorted(map(str, allowed))
    near = difflib.get_close_matches(str(given), allowed, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is: {', '.join(allowed) or 'none'}"


def mean_over_examples(fields: Arrays) -> tuple[Array, Array]:
    """Every example counts the same."""
    return fields["present"], jnp.sum(fields["present"], dtype=jnp.float32)


def mean_over_tokens(fields: Arrays) -> tuple[Array, Array]:
    """Every scored token of the whole step counts the same."""
    return fields["mask"], jnp.sum(fields["mask"], dtype=jnp.float32)


@dataclass(frozen=True)
class Algorithm:
    """One row of the catalogue: a pure loss and the little that surrounds it.

    Attributes:
      name: as users know it.
      loss: the formula; its positional parameters name arrays of `format`, its keyword-only ones
        are the hyper-parameters.
      format: what the data looks like.
      paper: arXiv number, or where it stands.
      defaults: overrides of the loss's keyword defaults.
      plus: further pure losses added with a weight, `{"nll_coef": (losses.nll, 0.0,
        mean_over_examples)}`. The weight is a hyper-parameter; at 0 the term and the inputs that
        only it reads are gone.
      reduce: how the unreduced loss becomes a mean.
      carry: running values the loss keeps.
      batch_coupled: an example's loss depends on the others. With several micro-batches the step
        then scores all of them first.
    """

    name: str
    loss: LossFn
    format: Format
    paper: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    plus: Mapping[str, tuple[LossFn, float, Reduction]] = field(default_factory=dict)
    reduce: Reduction = mean_over_examples
    carry: Carry | None = None
    batch_coupled: bool = False

    def __post_init__(self):
        known = self.format.fields | set(self.carry.init if self.carry else ())
        for fn in (self.loss, *(fn for fn, _, _ in self.plus.values())):
            for name in arrays_of(fn):
                if name not in known:
                    near = did_you_mean(name, known)
                    raise TypeError(
                        f"{self.name}: {fn.__name__} asks for the array {name!r}, unknown to "
                        f"format {self.format.name!r}{near}"
                    )
        for name in self.defaults:
            if name not in numbers_of(self.loss):
                near = did_you_mean(name, numbers_of(self.loss))
                raise TypeError(
                    f"{self.name}: default {name!r} is not a keyword argument of "
                    f"{self.loss.__name__}{near}"
                )

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Every number that can be set for this algorithm, with its default."""
        return (
            numbers_of(self.loss)
            | dict(self.defaults)
            | {name: weight for name, (_, weight, _) in self.plus.items()}
        )

    def terms(self, **overrides: Any) -> tuple[Term, ...]:
        """The weighted terms of the objective; a name this algorithm does not have is a
        TypeError.
        """
        hyper = self.hyperparameters
        for name, value in overrides.items():
            if name not in hyper:
                raise TypeError(
                    f"{self.name} has no hyper-parameter {name!r}{did_you_mean(name, hyper)}"
                )
            if isinstance(hyper[name], float) and not (
                isinstance(value, int | float) and not isinstance(value, bool)
            ):
                raise TypeError(f"{self.name}: {name} must be a number, got {value!r}")
        hyper |= overrides
        main = Term(
            self.loss.__name__,
            1.0,
            self.loss,
            {n: hyper[n] for n in numbers_of(self.loss)},
            self.reduce,
        )
        extra = [
            Term(n, float(hyper[n]), fn, {}, reduce)
            for n, (fn, _, reduce) in self.plus.items()
            if hyper[n] != 0
        ]
        return (main, *extra)

    def inputs(self, **overrides: Any) -> tuple[str, ...]:
        """Names of the arrays that are read with these hyper-parameters."""
        return tuple(
            dict.fromkeys(name for term in self.terms(**overrides) for name in arrays_of(term.fn))
        )

    def outputs(self, names: Iterable[str]) -> tuple[str, ...]:
        """What the scorer must compute for these arrays (those of the policy, or those of the
        reference without `ref_`).
        """
        return tuple(
            dict.fromkeys(out for name in names for out in self.format.reads.get(name, ()))
        )

    def needs_reference(self, **overrides: Any) -> bool:
        """Whether any array comes from the frozen reference."""
        return any(name.startswith("ref_") for name in self.inputs(**overrides))

    @property
    def needs_value_head(self) -> bool:
        """Whether a scalar head is trained (reward models, critics)."""
        return any(
            "scores" in self.format.reads.get(n, ()) or "values" in self.format.reads.get(n, ())
            for n in self.inputs()
        )
