"""Load what is evaluated: a checkpoint of a run, or a model with its reference."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from jax.sharding import Mesh

from jalign.core import Frozen, TrainState
from jalign.data.examples import Examples
from jalign.layout import MicroBatches
from jalign.models import hub
from jalign.options import RunOptions
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run import limits as check_tokens
from jalign.run.batches import held_source_of
from jalign.run.decoders import Source
from jalign.run.devices import mesh_of
from jalign.run.export import card
from jalign.run.policy import model_path, tokenizer_of
from jalign.run.roles import Roles, initial_state, load_roles
from jalign.train.step import with_reference

log = logging.getLogger(__name__)

Say = Callable[[str], object]


@dataclass
class Subject:
    """A state, the initial parameters (`model.params`), and the held-out data.

    Attributes:
      name: name of the run or model.
      step: step of the checkpoint; None for the initial model of a config.
      before: metrics that the run logged at step 0.
    """

    name: str
    step: int | None
    options: RunOptions
    mesh: Mesh
    model: Roles
    state: TrainState
    frozen: Frozen
    held: Examples
    before: Mapping[str, float] = field(default_factory=dict)

    def batches(self) -> Iterator[tuple[MicroBatches, ...]]:
        """Batches with every held-out example once."""
        spec = self.model.decoder.spec
        return held_source_of(self.options, self.held, self.mesh, spec).eval_batches()


def of_run(run: str, step: str | None = None, options: RunOptions | None = None) -> Subject:
    """Load a checkpoint of a run.

    Args:
      step: step of the checkpoint, or "best"; None is the newest.
      options: replace the run's own, e.g. for other held-out data.

    Raises:
      ValueError: no such run or checkpoint, or no held-out data.
    """
    changed = options is not None
    options, model, state, number = runs.newest(run, runs.which(step), options=options)
    # what was recorded at step 0 is of the run's own held-out data
    rows = [] if changed else card.evaluations(run, number)
    first = rows[0] if rows and rows[0]["step"] == 0 else {}
    before = {
        name: value
        for name, value in first.items()
        if isinstance(value, int | float) and name not in ("step", "time")
    }
    return _subject(run, number, options, model, state, before)


def of_options(options: RunOptions, say: Say = lambda text: None) -> Subject:
    """Load the initial model of a run.

    Args:
      say: called with a line about the reference that rewards are relative to.

    Raises:
      ValueError: no held-out data.
    """
    options = _with_reference(options, say)
    mesh = mesh_of(options.mesh)
    model = load_roles(options, Source(mesh), tokenizer_of(options))
    return _subject(model.path, None, options, model, None, {})


def _subject(
    name: str,
    step: int | None,
    options: RunOptions,
    model: Roles,
    state: TrainState | None,
    before: Mapping[str, float],
) -> Subject:
    mesh = mesh_of(options.mesh)
    optimizer = options.any_optimizer()
    initial, frozen = initial_state(options, model, mesh, optimizer)
    state = state or initial
    held = build_data.held_of(options, model.tokenizer, build_data.held_rows(options))
    if held is None:
        raise ValueError("there are no held-out data: set data.eval or data.holdout")
    # data given to eval may be longer than what the run was checked with
    for warning in check_tokens.check(options, model.tokenizer, None, held):
        log.warning("%s", warning)
    frozen = with_reference(frozen, state)
    return Subject(name, step, options, mesh, model, state, frozen, held, before)


def _with_reference(options: RunOptions, say: Say) -> RunOptions:
    """Set the base of a trained model as reference: relative to itself every reward is 0."""
    row, c = options.algorithm, options.model
    if c.reference or not row.needs_reference() or row.moves_reference():
        return options
    facts = card.read(c.path)
    base = c.path if c.adapter else facts.get("reference") or facts.get("base_model")
    trained = c.adapter or c.path
    if base and _exists(base):
        say(f"reference: {base}, which {trained} comes from (--model.reference names another)")
        return replace(options, model=replace(c, reference=base))
    origin = f" It comes from {base}, which is not here." if base else ""
    say(
        f"warning: {trained} is its own reference, so that every reward is 0 and the accuracy "
        f"0.5.{origin} If it was trained, name what it was trained from: --model.reference BASE"
    )
    return options


def _exists(name: str) -> bool:
    try:
        hub.find(model_path(name))
    except ValueError:
        return False
    return True
