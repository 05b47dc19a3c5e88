"""The algorithm row: a pure loss, and the settings that make it an algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp

from jalign.core.check_row import check_moving, check_row
from jalign.core.experience import Experience
from jalign.core.format import (
    LAST_HYPER,
    REFERENCE_HYPER,
    SCORER_HYPER,
    TWO_MODELS,
    AuxLoss,
    Format,
    Last,
    LossFn,
    Term,
)
from jalign.core.reductions import Reduction, SumOverLongest, mean_over_examples, sum_over_longest
from jalign.core.state import Carry
from jalign.signatures import arrays_of, did_you_mean, hyper_of, unchecked


@dataclass(frozen=True)
class Algorithm:
    """One row of the catalogue: a pure loss and the settings around it.

    Attributes:
      name: as users know it.
      loss: the formula; its positional parameters name arrays of `format`, its keyword-only ones
        are the hyper-parameters.
      format: the layout of the data.
      paper: arXiv number, or another source.
      defaults: overrides of the loss's keyword defaults.
      aux_losses: further pure losses added with a weight, `{"nll_coef": AuxLoss(losses.nll, 0.0,
        mean_over_examples)}`; plain tuples are accepted. The key is the hyper-parameter.
      reduce: how the unreduced loss becomes a mean.
      carry: running values the loss keeps.
      batch_coupled: an example's loss depends on the others. With several micro-batches the step
        then scores all of them first.
      tags: what cannot be derived: "nash" where the method seeks an equilibrium of a preference
        game, "teacher" where the reference must be another model, "length" where it controls length
        in a way its arrays do not show, "sft" and "negative" likewise.
      regression: the loss of a sample is right whichever policy drew it, so it needs no importance
        ratio and reads log-probs at temperature 1.
      linear_in_advantages: a factor on the advantages is one on the loss of a response, as a weight
        that corrects for the policy that sampled must be.
      experience: how sampled responses become the data; None if the data are fixed.
      last: the second moving reference, of arrays `last_*` and of the opponent "last": the "policy"
        as it was at its last synchronization; the "reference" before it last moved, one iteration
        behind it; or the policy after a "half_step": of two steps the first moves it alone, and the
        second moves the policy (extragradient).
      about: what defines the method besides its loss, and its deviations from the paper and from
        TRL; sentences.
      hyper: hyper-parameters set for a run (`with_hyper`); they override the defaults.
    """

    name: str
    loss: LossFn
    format: Format
    paper: str = ""
    defaults: Mapping[str, float] = field(default_factory=dict)
    aux_losses: Mapping[str, AuxLoss] = field(default_factory=dict)
    reduce: Reduction = mean_over_examples
    carry: Carry | None = None
    batch_coupled: bool = False
    tags: frozenset[str] = frozenset()
    regression: bool = False
    linear_in_advantages: bool = True
    experience: Experience | None = None
    last: Last = "policy"
    about: str = ""
    hyper: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        # rows may be written with plain tuples; __setattr__, since the class is frozen
        aux = {name: AuxLoss(*x) for name, x in self.aux_losses.items()}
        object.__setattr__(self, "aux_losses", aux)
        check_row(self)

    # ---- arrays

    def axes(self, name: str) -> str:
        """Letters of the axes of an array that this algorithm reads; none for running values,
        except those with one number per id.
        """
        if self.carry and name in self.carry.names:
            return "B" if name in self.carry.by else ""
        return self.format.axes.get(name.removeprefix("last_"), "B")

    def example(self, name: str) -> jax.ShapeDtypeStruct:
        """An array of that name with every axis of size 1, to trace a loss with."""
        is_bool = name.endswith("mask") or name in ("present", "kl_present", "valid")
        shape = (1,) * len(self.axes(name))
        return jax.ShapeDtypeStruct(shape, jnp.bool_ if is_bool else jnp.float32)

    def inputs(self, **overrides: float) -> tuple[str, ...]:
        """Names of the arrays that are read with these hyper-parameters."""
        terms = self.objective_terms(**overrides)
        ids = self.carry.by.values() if self.carry else ()
        read = (name for term in terms for name in arrays_of(term.loss))
        return tuple(dict.fromkeys((*read, *ids)))

    def outputs(self, names: Iterable[str]) -> tuple[str, ...]:
        """What the scorer must compute for these arrays (those of the policy, or those of the
        reference without `ref_`).
        """
        return tuple(
            dict.fromkeys(out for name in names for out in self.format.reads.get(name, ()))
        )

    # ---- hyper-parameters and terms

    @property
    def available_aux_losses(self) -> dict[str, AuxLoss]:
        """The row's own auxiliary losses, and those the format offers to every policy loss."""
        # likelihood and KL terms need a language model; with a value head there is none
        offered = {} if self.needs_value_head else self.format.aux_losses
        return {**offered, **self.aux_losses}

    def unweighted_hyper(self) -> dict[str, float]:
        """Every hyper-parameter except the weights of auxiliary losses, with its default."""
        hyper = hyper_of(self.loss)
        if self.experience:
            hyper |= hyper_of(self.experience.fn)
        # only terms that have a weight: one at 0 must not ask for a reference or a scorer's numbers
        aux = (x.loss for x in self.available_aux_losses.values() if x.weight)
        arrays = [name for fn in (self.loss, *aux) for name in arrays_of(fn)]
        for output in self.outputs(arrays):
            hyper |= SCORER_HYPER.get(output, {})
        hyper |= REFERENCE_HYPER if self._reads_reference(arrays) else {}
        return hyper | (LAST_HYPER[self.last] if self._reads_last(arrays) else {})

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Every hyper-parameter of this algorithm, with its default or the value set for a run."""
        # the later wins: the loss's defaults, the row's, the weights, the run's
        weights = {name: x.weight for name, x in self.available_aux_losses.items()}
        return self.unweighted_hyper() | dict(self.defaults) | weights | dict(self.hyper)

    def with_hyper(self, **hyper: float) -> Algorithm:
        """This row with these hyper-parameters set; errors as in `resolve_hyper`."""
        self.resolve_hyper(**hyper)
        return replace(self, hyper={**self.hyper, **hyper})

    def resolve_hyper(self, **overrides: float) -> dict[str, float]:
        """All hyper-parameters with these overrides.

        Raises:
          TypeError: a name this algorithm does not have, or a value of another type.
          ValueError: a hyper-parameter of the reference is out of range.
        """
        hyper = self.hyperparameters
        for name, value in overrides.items():
            if name not in hyper:
                raise TypeError(
                    f"{self.name} has no hyper-parameter {name!r}{did_you_mean(name, hyper)}"
                )
            # bool is an int in Python, and `true` in YAML is not a number
            integer = isinstance(hyper[name], int)
            if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
                kind = "a whole number" if integer else "a number"
                raise TypeError(f"{self.name}: {name} must be {kind}, got {value!r}")
        hyper |= overrides
        check_moving(hyper)
        return hyper

    def objective_terms(self, **overrides: float) -> tuple[Term, ...]:
        """The weighted terms of the objective; errors as in `resolve_hyper`."""
        hyper = self.resolve_hyper(**overrides)
        of_loss = {n: hyper[n] for n in hyper_of(self.loss)}
        main = Term(self.loss.__name__, 1.0, self.loss, of_loss, self.reduce)
        aux = [
            Term(name, float(hyper[name]), x.loss, {}, x.reduce)
            for name, x in self.available_aux_losses.items()
            # left out at 0, so that arrays only this term reads are never computed
            if hyper[name] != 0
        ]
        return (main, *aux)

    def trace(self, **overrides: float) -> list[jax.ShapeDtypeStruct]:
        """Shapes of the unreduced terms for one example. Nothing is computed, but a loss refuses a
        hyper-parameter that is out of range.
        """
        shapes = []
        for term in self.objective_terms(**overrides):
            loss = unchecked(term.loss)
            arrays = map(self.example, arrays_of(loss))
            shapes.append(jax.eval_shape(partial(loss, **term.hyper), *arrays)[0])
        return shapes

    def rollout_inputs(self) -> tuple[str, ...]:
        """Arrays of a rollout that the experience reads."""
        return arrays_of(self.experience.fn) if self.experience else ()

    def experience_hyper(self, **overrides: float) -> dict[str, float]:
        """The hyper-parameters that the experience reads."""
        hyper = self.resolve_hyper(**overrides)
        return {n: hyper[n] for n in hyper_of(self.experience.fn)} if self.experience else {}

    def with_longest_response(self, max_tokens: int) -> Algorithm:
        """The row for responses of at most `max_tokens` tokens: `sum_over_longest` then divides by
        that number, however wide the arrays that hold the responses are.
        """
        if self.reduce != sum_over_longest:
            return self
        return replace(self, reduce=SumOverLongest(max_tokens))

    # ---- models

    def _reads_reference(self, names: Iterable[str]) -> bool:
        # with a KL in the reward the experience reads the reference, and the loss does not
        names = (*names, *self.rollout_inputs())
        return (
            any(n.startswith("ref_") for n in names)
            or "teacher_token_logps" in names
            or any(output in TWO_MODELS for output in self.outputs(names))
            or bool(self.experience and self.experience.samples_reference)
        )

    def needs_reference(self, **overrides: float) -> bool:
        """Whether any array comes from the reference."""
        return self._reads_reference(self.inputs(**overrides))

    def _reads_last(self, names: Iterable[str]) -> bool:
        opponent = self.experience.opponent if self.experience else ""
        return opponent == "last" or any(n.startswith("last_") for n in names)

    def has_last(self, **overrides: float) -> bool:
        """Whether there is a second moving reference (`last`)."""
        return self._reads_last(self.inputs(**overrides))

    @property
    def calls_per_update(self) -> int:
        """Steps that an update of the policy takes: two for an extragradient."""
        return 2 if self.last == "half_step" and self.has_last() else 1

    @property
    def iteration(self) -> tuple[str, int, float]:
        """The hyper-parameter that says how many steps an iteration has, its value, and the share
        of the policy in the model that starts the next one.
        """
        hyper = self.hyperparameters
        of = "last" if "last_sync_steps" in hyper else "ref"
        steps = f"{of}_sync_steps"
        return steps, int(hyper.get(steps, 0)), hyper.get(f"{of}_mixup_alpha", 1.0)

    def moves_reference(self, **overrides: float) -> bool:
        """Whether the reference follows the policy."""
        return self.resolve_hyper(**overrides).get("ref_sync_steps", 0) > 0

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss is nothing but a distance from the reference, which must be another."""
        read = self.outputs(arrays_of(self.loss))
        return "teacher" in self.tags or (
            bool(read) and all(output in TWO_MODELS for output in read)
        )

    @property
    def needs_value_head(self) -> bool:
        """Whether a scalar head on the model itself is trained (reward models)."""
        read = self.outputs(arrays_of(self.loss))
        return "scores" in read or "attributes" in read

    @property
    def needs_critic(self) -> bool:
        """Whether a second model with a scalar head is trained beside the first."""
        return "values" in self.outputs(arrays_of(self.loss))

    @property
    def scores_responses(self) -> bool:
        """Whether it trains a reward model with one reward per response, read at its last token:
        not one per token, step or attribute, nor one that compares two responses in one prompt.
        """
        inputs = set(self.inputs())
        return not self.format.joint_prompt and bool({"scores", "chosen_scores"} & inputs)

    @property
    def scores_steps(self) -> bool:
        """Whether it trains a process reward model."""
        return self.needs_value_head and self.format.feedback == "steps"

    # ---- how it learns

    @property
    def data_kind(self) -> str:
        """The kind of record that it reads; for an online algorithm prompts, with a response if the
        opponent is the data.
        """
        if self.experience is None:
            return self.format.name
        return "supervised" if self.experience.opponent == "data" else "prompts"

    @property
    def policy_gradient(self) -> bool:
        """Whether the loss is the gradient of an expectation over the policy's samples. Then its
        log-probs are those of the distribution that was sampled, at the sampling temperature;
        every other loss reads them at temperature 1.
        """
        return self.format.policy_samples and not self.regression

    @property
    def needs_fresh_samples(self) -> bool:
        """Whether it is a policy gradient without a ratio: right in a rollout's first step only."""
        return self.policy_gradient and "old_token_logps" not in arrays_of(self.loss)

    @property
    def loss_per_token(self) -> bool:
        """Whether the loss has one value per token; False: one per response or example."""
        return self.trace()[0].ndim > 1

    @property
    def class_weights(self) -> tuple[float, float] | None:
        """Weights of desirable and undesirable examples; None if the loss has none."""
        hyper = self.hyperparameters
        names = self.format.class_weights
        if not names or not set(names) <= set(hyper):
            return None
        desirable, undesirable = (float(hyper[name]) for name in names)
        return desirable, undesirable
