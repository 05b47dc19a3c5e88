"""What `jalign eval` looks at: checkpoints of runs, or a model as it is with the reference that its
rewards are read against.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from jax.sharding import Mesh

from jalign.config.read import read_config
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

CHANGES = ("data.", "mesh.", "rollout.", "reward.", "batch_size", "model.reference")
"""What may differ from the run's own config."""

Say = Callable[[str], object]


@dataclass
class Subject:
    """What is evaluated: a state, where it started (`model.params`), and what it is asked about."""

    what: str
    step: int | None  # of a run
    options: RunOptions
    mesh: Mesh
    model: Roles
    state: TrainState
    frozen: Frozen
    held: Examples
    before: dict[str, float] = field(default_factory=dict)  # as the run recorded it at its start

    def batches(self) -> Iterator[tuple[MicroBatches, ...]]:
        """Every held-out example once."""
        spec = self.model.decoder.spec
        return held_source_of(self.options, self.held, self.mesh, spec).eval_batches()


def of_run(run: str, step: str | None, more: Sequence[str]) -> Subject:
    """A run's newest (or a given) checkpoint; `more` are options that count more than its config,
    such as other held-out data.
    """
    for name in options_of(more):
        if not any(
            name == known or (known[-1] == "." and name.startswith(known)) for known in CHANGES
        ):
            raise ValueError(
                f"a run is evaluated with its own options: leave out --{name}. What may differ: "
                + ", ".join(f"--{known}" + ("*" if known[-1] == "." else "") for known in CHANGES)
            )
    options, model, state, number = runs.newest(run, runs.which(step), options=_options(run, more))
    rows = [] if more else card.evaluations(run, number)
    before = {
        name: value
        for name, value in (rows[0] if rows and rows[0]["step"] == 0 else {}).items()
        if isinstance(value, int | float) and name not in ("step", "time")
    }
    return _subject(run, number, options, model, state, before)


def of_config(args: Sequence[str], say: Say) -> Subject:
    """A model as a config names it."""
    options = _with_reference(read_config(args, "eval"), say)
    mesh = mesh_of(options.mesh)
    model = load_roles(options, Source(mesh), tokenizer_of(options))
    return _subject(model.path, None, options, model, None, {})


def options_of(args: Sequence[str]) -> list[str]:
    """Names of the options in a command line."""
    return [arg[2:].partition("=")[0] for arg in args if arg.startswith("--")]


def _options(run: str, more: Sequence[str]) -> RunOptions | None:
    if not more or not runs.is_run(run):
        return None
    with runs.config_file(run) as file:
        return read_config(["--config", str(file), "--out", run, *_fitting(more)])


def _fitting(more: Sequence[str]) -> list[str]:
    """Other held-out data take the place of a part of the training data."""
    given = options_of(more)
    apart = "data.eval" in given and "data.holdout" not in given
    return [*more, "--data.holdout=null"] if apart else list(more)


def _subject(
    what: str,
    step: int | None,
    options: RunOptions,
    model: Roles,
    state: TrainState | None,
    before: dict[str, float],
) -> Subject:
    mesh = mesh_of(options.mesh)
    optimizer, _ = options.optim.make(max(options.steps, options.optim.warmup_steps, 1))
    initial, frozen = initial_state(options, model, mesh, optimizer)
    state = state or initial
    held = build_data.held_of(options, model.tokenizer, build_data.held_rows(options))
    if held is None:
        raise ValueError("there are no held-out data: set data.eval or data.holdout")
    for warning in check_tokens.check(options, model.tokenizer, None, held):
        log.warning("%s", warning)
    frozen = with_reference(frozen, state)
    return Subject(what, step, options, mesh, model, state, frozen, held, before)


def _with_reference(options: RunOptions, say: Say) -> RunOptions:
    """A model that was trained is compared with what it was trained from, not with itself."""
    row, c = options.algorithm, options.model
    if c.reference or not row.needs_reference() or row.moves_reference():
        return options
    facts = card.read(c.path)
    base = c.path if c.adapter else facts.get("reference") or facts.get("base_model")
    trained = c.adapter or c.path
    if base and _is_there(base):
        say(f"reference: {base}, which {trained} comes from (--model.reference names another)")
        return replace(options, model=replace(c, reference=base))
    comes = f" It comes from {base}, which is not here." if base else ""
    say(
        f"warning: {trained} is its own reference, so that every reward is 0 and the accuracy "
        f"0.5.{comes} If it was trained, name what it was trained from: --model.reference BASE"
    )
    return options


def _is_there(name: str) -> bool:
    try:
        hub.find(model_path(name))
    except ValueError:
        return False
    return True
