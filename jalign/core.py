"""The nouns: what every algorithm, whatever its paper, is written in.

Shape letters: B prompts, K responses per prompt, R scored tokens per response, T tokens, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float, Int

from jalign.layout import Batch
from jalign.signatures import arrays_of, did_you_mean, numbers_of

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
only, never on parameters, so that the divisor of a whole optimizer step is known before the first
backward pass. Where the data have a `weight` the divisor is the sum of the weighted weights."""


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
    ref: Any = None  # a reference that moves; None when it stands still (`Frozen.ref`)


@struct.dataclass
class Frozen:
    """Everything that does not change: neither donated nor saved, but fingerprinted."""

    base: Any  # weights that are not trained (empty in full fine-tuning)
    # A copy of the initial trainable parameters, or another model
    # (`models.functional.StandaloneModel`); None when no loss asks for it.
    ref: Any


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
      axes: letters of the axes of an array that is not [B]: "BR" one value per scored token, "BK"
        one per response, "BA" one per attribute.
      metrics: (fields, what the loss returned) -> {TRL name: (unreduced values, weights)}.
      terms: losses that any policy loss of this format may be combined with, and their
        reductions; their weights are hyper-parameters, 0 unless a row says otherwise.
    """

    name: str
    k: int | None
    view: Callable[[Arrays, Batch], Arrays]
    reads: Mapping[str, tuple[str, ...]]
    mask_fields: frozenset[str]
    data_fields: frozenset[str]
    axes: Mapping[str, str]
    metrics: Callable[[Arrays, Arrays], dict[str, tuple[Array, Array]]]
    terms: Mapping[str, tuple[LossFn, Reduction]] = field(default_factory=dict)

    @property
    def token_fields(self) -> frozenset[str]:
        """Arrays with one value per scored token."""
        return frozenset(name for name, axes in self.axes.items() if axes == "BR")

    @property
    def fields(self) -> frozenset[str]:
        """The closed vocabulary: every name a loss of this format may use for an array."""
        return (
            frozenset(self.reads)
            | {f"ref_{x}" for x in self.reads}
            | self.mask_fields
            | self.data_fields
            | {NOISE}
        )


NOISE = "gumbel"
"""[B] standard Gumbel noise, another in every step and, by example number, the same however a step
is cut; zeros in evaluation."""

TWO_MODELS = ("kl_to_ref", "kl_from_ref", "jsd_to_ref")  # need policy and reference at once

SCORER_NUMBERS: Mapping[str, Mapping[str, Any]] = {
    "competitor_logps": {"top_k": 1},
    "jsd_to_ref": {"jsd_beta": 0.5, "temperature": 1.0},
}
"""Hyper-parameters that the scorer reads when it computes an output."""

REFERENCE_NUMBERS: Mapping[str, Any] = {"ref_sync_steps": 0, "ref_mixup_alpha": 1.0}
"""Hyper-parameters of the reference: every so many steps (0: never) it moves to alpha * policy +
(1 - alpha) * reference."""

ROLLOUT: Mapping[str, str] = {
    "scores": "BK",
    "valid": "BK",
    "finished": "BK",
    "mask": "BKR",
    "old_token_logps": "BKR",
    "ref_token_logps": "BKR",
    "values": "BKR",
    "greedy_scores": "B",
    "win_probs": "BKK",
    "step_scores": "BKR",
    "uniforms": "BKK",
}
"""What an experience may read about K responses to each of B prompts, and its axes. scores: the
reward of a response; valid: whether it has one; finished: ended by EOS; values: of a critic, before
each token; greedy_scores: the reward of the most probable response; win_probs[b, i, j]: probability
that response i is preferred to j; step_scores: the reward of a step at its last token, NaN at every
other; uniforms: random numbers in [0, 1), independent of the responses."""


@dataclass(frozen=True)
class Experience:
    """What becomes of responses sampled from the policy: the data of an online algorithm.

    Attributes:
      make: a pure function; its positional parameters name arrays of `ROLLOUT`, its keyword-only
        ones are hyper-parameters. It returns data fields of the format, [B, K, R], [B, K] or [B],
        and may return `take` [B, k], which responses become the example, in that order, and `keep`
        [B], which prompts do.
      responses: K, unless a run says otherwise.
      last: who writes the last response of each prompt: the "policy", the "reference", the
        geometric "mixture" of both, or the "data".
      iterative: the method learns from samples of its reference, the policy of the last iteration:
        a rollout has as many steps as an iteration (ref_sync_steps).
    """

    make: Callable[..., Arrays]
    responses: int = 4
    last: str = "policy"
    iterative: bool = False


@dataclass(frozen=True)
class Carry:
    """Running values that a loss keeps between steps. It reads them by name and returns the new
    ones as metrics of the same names; NaN is "nothing yet".
    """

    names: tuple[str, ...]

    def update(self, carry: Arrays, metrics: Arrays) -> Arrays:
        """The values after a step with these metrics."""
        return {name: metrics[name] for name in carry}


class Term(NamedTuple):
    """One weighted, reduced piece of an objective, with its numbers fixed."""

    name: str
    weight: float
    fn: LossFn
    numbers: dict[str, Any]
    reduce: Reduction


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
      experience: how sampled responses become the data; None where the data are fixed.
      tags: what cannot be derived: "nash" where the method seeks an equilibrium of a preference
        game, "length" where it controls length in a way its arrays do not show, "regression" where
        the loss of a sample is right whoever drew it.
      batch_coupled: an example's loss depends on the others. With several micro-batches the step
        then scores all of them first.
      about: what makes the method beside its loss, and its deviations from the paper and from TRL
        that are not the loss's; sentences.
      hyper: hyper-parameters that are set for a run (`with_hyper`); they go before the defaults.
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
    tags: frozenset[str] = frozenset()
    experience: Experience | None = None
    about: str = ""
    hyper: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name in arrays_of(self.experience.make) if self.experience else ():
            if name not in ROLLOUT:
                near = did_you_mean(name, ROLLOUT)
                raise TypeError(f"{self.name}: a rollout has no array {name!r}{near}")
        known = self.format.fields | set(self.carry.names if self.carry else ())
        for fn in (self.loss, *(fn for fn, _, _ in self.extra.values())):
            for name in arrays_of(fn):
                if name not in known:
                    near = did_you_mean(name, known)
                    raise TypeError(
                        f"{self.name}: {fn.__name__} asks for the array {name!r}, unknown to "
                        f"format {self.format.name!r}{near}"
                    )
        several = self.format.token_fields & set(arrays_of(self.loss))
        if self.batch_coupled and several:
            raise TypeError(
                f"{self.name}: a batch-coupled loss reads numbers per response, not the "
                f"token-level {', '.join(sorted(several))}"
            )
        numbers = self._numbers()
        for name in self.defaults:
            if name not in numbers:
                near = did_you_mean(name, numbers)
                raise TypeError(
                    f"{self.name}: default {name!r} is not a keyword argument of "
                    f"{self.loss.__name__}{near}"
                )

    def axes(self, name: str) -> str:
        """Letters of the axes of an array that this algorithm reads; none for running values."""
        if self.carry and name in self.carry.names:
            return ""
        return self.format.axes.get(name, "B")

    def example(self, name: str) -> jax.ShapeDtypeStruct:
        """An array of that name with one of everything, to trace a loss with."""
        truth = name.endswith("mask") or name in ("present", "kl_present", "valid")
        shape = (1,) * len(self.axes(name))
        return jax.ShapeDtypeStruct(shape, jnp.bool_ if truth else jnp.float32)

    @property
    def extra(self) -> dict[str, tuple[LossFn, float, Reduction]]:
        """`plus`, and what the format offers to every policy loss."""
        offered = {} if self.needs_value_head else self.format.terms
        return {n: (fn, 0.0, reduce) for n, (fn, reduce) in offered.items()} | dict(self.plus)

    def _numbers(self) -> dict[str, Any]:
        """Every number but the weights of terms, with the defaults of who reads it."""
        numbers = numbers_of(self.loss)
        if self.experience:
            numbers |= numbers_of(self.experience.make)
        terms = (fn for fn, weight, _ in self.extra.values() if weight)
        arrays = [name for fn in (self.loss, *terms) for name in arrays_of(fn)]
        for output in self.outputs(arrays):
            numbers |= SCORER_NUMBERS.get(output, {})
        return numbers | (dict(REFERENCE_NUMBERS) if self._reads_reference(arrays) else {})

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Every number that can be set for this algorithm, with its default."""
        weights = {name: weight for name, (_, weight, _) in self.extra.items()}
        return self._numbers() | dict(self.defaults) | weights | dict(self.hyper)

    def with_hyper(self, **hyper: Any) -> Algorithm:
        """This row with these hyper-parameters set; errors as in `numbers`."""
        self.numbers(**hyper)
        return replace(self, hyper={**self.hyper, **hyper})

    def numbers(self, **overrides: Any) -> dict[str, Any]:
        """All hyper-parameters with these overrides; a name this algorithm does not have, or a
        value of another type, is a TypeError.
        """
        hyper = self.hyperparameters
        for name, value in overrides.items():
            if name not in hyper:
                raise TypeError(
                    f"{self.name} has no hyper-parameter {name!r}{did_you_mean(name, hyper)}"
                )
            whole = isinstance(hyper[name], int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                kind = "a whole number" if whole else "a number"
                raise TypeError(f"{self.name}: {name} must be {kind}, got {value!r}")
        hyper |= overrides
        if hyper.get("ref_sync_steps", 0) < 0:
            raise ValueError(f"ref_sync_steps must be >= 0, got {hyper['ref_sync_steps']}")
        if not 0 < hyper.get("ref_mixup_alpha", 1.0) <= 1:
            raise ValueError(f"ref_mixup_alpha must be in (0, 1], got {hyper['ref_mixup_alpha']}")
        return hyper

    def terms(self, **overrides: Any) -> tuple[Term, ...]:
        """The weighted terms of the objective; errors as in `numbers`."""
        hyper = self.numbers(**overrides)
        own = {n: hyper[n] for n in numbers_of(self.loss)}
        main = Term(self.loss.__name__, 1.0, self.loss, own, self.reduce)
        extra = [
            Term(n, float(hyper[n]), fn, {}, reduce)
            for n, (fn, _, reduce) in self.extra.items()
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

    def _reads_reference(self, names: Iterable[str]) -> bool:
        names = (*names, *self.rollout_inputs())
        return (
            any(n.startswith("ref_") for n in names)
            or any(output in TWO_MODELS for output in self.outputs(names))
            or bool(self.experience and self.experience.last in ("reference", "mixture"))
        )

    def needs_reference(self, **overrides: Any) -> bool:
        """Whether any array comes from the reference."""
        return self._reads_reference(self.inputs(**overrides))

    def moves_reference(self, **overrides: Any) -> bool:
        """Whether the reference follows the policy."""
        return self.numbers(**overrides).get("ref_sync_steps", 0) > 0

    @property
    def needs_fresh_samples(self) -> bool:
        """Whether it is a policy gradient without a ratio: right in a rollout's first step only."""
        corrected = "old_token_logps" in arrays_of(self.loss) or "regression" in self.tags
        return self.format.name == "samples" and not corrected

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss is nothing but a distance from the reference, which must be another."""
        read = self.outputs(arrays_of(self.loss))
        return bool(read) and all(output in TWO_MODELS for output in read)

    @property
    def needs_value_head(self) -> bool:
        """Whether a scalar head on the model itself is trained (reward models)."""
        read = self.outputs(arrays_of(self.loss))
        return "scores" in read or "attributes" in read

    @property
    def needs_critic(self) -> bool:
        """Whether a second model with a scalar head is trained beside the first."""
        return "values" in self.outputs(arrays_of(self.loss))

    def rollout_inputs(self) -> tuple[str, ...]:
        """Arrays of a rollout that must be there before the experience is made of it."""
        if self.experience is None:
            return ()
        return arrays_of(self.experience.make)

    def experience_numbers(self, **overrides: Any) -> dict[str, Any]:
        """The hyper-parameters that the experience reads."""
        hyper = self.numbers(**overrides)
        return {n: hyper[n] for n in numbers_of(self.experience.make)} if self.experience else {}
