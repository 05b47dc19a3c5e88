"""The `Run` object of the Python API: fit, evaluate, open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import cached_property
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Literal
from weakref import finalize

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from jalign import store
from jalign.log import Display, Tracker, lines
from jalign.log.trackers import tracker
from jalign.options import OptimConfig, RunOptions, SampleConfig, StopRules
from jalign.parallel import hosts
from jalign.parallel.deterministic import make_deterministic
from jalign.parallel.preflight import preflight
from jalign.rewards.model import RewardModel
from jalign.run import folder
from jalign.run.devices import mesh_of
from jalign.run.export import card
from jalign.run.policy import Policy
from jalign.run.session import Session
from jalign.run.setup import Inputs, Setup, set_up
from jalign.train.exit_code import ExitCode
from jalign.train.hooks.profile import parse_steps

if TYPE_CHECKING:
    from jalign.data.rows import Row
    from jalign.rewards.model import Prompt


class Run:
    """A training run: model, data, rewards and options.

    `jalign.online`, `jalign.offline` and `jalign.reward_model` return a run that is ready to train;
    `jalign.open` returns a trained one.

    Args:
      options: all options of the run.
      inputs: Python objects in place of what the options name.

    Attributes:
      session: session of the newest `fit`, with its state and evaluations.
    """

    def __init__(self, options: RunOptions, inputs: Inputs = Inputs()):
        self.options, self.inputs = options, inputs
        if options.deterministic:
            make_deterministic()  # before anything asks for a device
        self.session: Session | None = None
        self._setup: Setup | None = None
        self._trained: folder.Weights | None = None

    @cached_property
    def mesh(self) -> Mesh:
        """The device mesh of the run."""
        return self.inputs.policy.mesh if self.inputs.policy else mesh_of(self.options.mesh)

    @property
    def setup(self) -> Setup:
        """Data, models and rewards, loaded on first access."""
        if self._setup is None:
            with jax.set_mesh(self.mesh):
                self._setup = set_up(self.options, self.inputs, self.mesh, Display(None))
        return self._setup

    def fit(
        self,
        steps: int | None = None,
        optimizer: optax.GradientTransformation | OptimConfig | None = None,
        out: str | None = None,
        *,
        epochs: float | None = None,
        eval_every: int | None = None,
        log_every: int | None = None,
        checkpoint_every: int | None = None,
        resume: Literal["auto", "never", "must"] | int | None = None,
        stop: StopRules | None = None,
        sample: SampleConfig | None = None,
        reference: Literal["step", "cached"] | None = None,
        trackers: Sequence[str | Tracker] | None = None,
        profile: str | None = None,
        console: Console | Literal["auto"] | None = "auto",
    ) -> ExitCode:
        """Train, log, evaluate and checkpoint; the same call again resumes the run.

        Arguments that are None keep the run's options.

        Args:
          steps: total optimizer steps, including those of earlier calls.
          optimizer: an optax transformation, or options of an optimizer with a schedule.
          out: folder for metrics, TensorBoard events and checkpoints; a temporary folder if none is
            given.
          epochs: passes over the data, when steps is 0.
          eval_every: steps between evaluations on held-out data; 0: only before and after.
          log_every, checkpoint_every: steps between log lines, and between checkpoints.
          resume: whether to resume from a checkpoint in `out`.
          stop: rules that end the run early.
          sample: which continuations of held-out prompts are logged.
          reference: compute reference log-probs in the step, or once before training.
          trackers: tensorboard, wandb, trackio, mlflow, or objects of one's own
            (`jalign.log.Tracker`) that receive metrics and texts.
          profile: steps to trace for xprof, such as "12" or "12-14"; RUN/profile gets the trace.
          console: where to show progress; "auto": the terminal or notebook; None: nowhere.

        Returns:
          How the run ended; `ExitCode.OK` is 0.

        Raises:
          ValueError: an option contradicts the algorithm or the data.
          ResumeError: the checkpoint in `out` belongs to another run.
        """
        checkpoint = {"every": checkpoint_every, "resume": resume}
        checkpoint = {name: x for name, x in checkpoint.items() if x is not None}
        changes: dict[str, Any] = {
            "steps": steps if steps is not None or epochs is None else 0,
            "epochs": epochs,
            "out": out,
            "eval_every": eval_every,
            "log_every": log_every,
            "stop": stop,
            "sample": sample,
            "reference": reference,
            "optim": optimizer if isinstance(optimizer, OptimConfig) else None,
            "checkpoint": replace(self.options.checkpoint, **checkpoint) if checkpoint else None,
        }
        options = replace(self.options, **{n: x for n, x in changes.items() if x is not None})
        if optimizer is not None and not isinstance(optimizer, OptimConfig):
            self.inputs = replace(self.inputs, optimizer=optimizer)
        if trackers is not None:
            names: list[Any] = [x for x in trackers if isinstance(x, str)]
            options = replace(options, log=replace(options.log, trackers=names))
            own = [x for x in trackers if not isinstance(x, str)]
            self.inputs = replace(self.inputs, trackers=own)
        shown = Console() if console == "auto" else console
        return self._fit(
            self._with_folder(options), shown, None if profile is None else parse_steps(profile)
        )

    def check(self, options: RunOptions) -> None:
        """Validate these options without data or devices; raise ValueError for a problem."""
        live = {name: 1.0 for name in self.inputs.rewards}
        reward = replace(options.reward, functions=live | options.reward.functions)
        replace(options, reward=reward).check()

    def _with_folder(self, options: RunOptions) -> RunOptions:
        if options.out:
            return options
        out = mkdtemp(prefix="jalign-")
        # with the object, not after fit: `policy` and `record` read the folder
        finalize(self, rmtree, out, ignore_errors=True)
        self.options = replace(self.options, out=out)
        return replace(options, out=out)

    def _fit(self, options: RunOptions, console: Console | None, profile: range | None) -> ExitCode:
        since = time.perf_counter()
        self.check(options)
        # before anything is loaded: a library may be missing
        trackers = [*map(tracker, options.log.trackers), *self.inputs.trackers]
        # hosts that differ would wait for each other in the first collective that only some reach
        hosts.check_processes_agree("the config", options.to_json())
        preflight(options.out)
        display = Display(console if hosts.is_main() else None)
        with jax.set_mesh(self.mesh), ExitStack() as closing:
            closing.callback(display.close)
            store.check_writable(store.as_path(options.out))
            self._setup = self._ready(options, display)
            self.options = self._setup.options
            self.session = Session(self._setup, display, closing, trackers, since, profile)
            return self.session.train()

    def _ready(self, options: RunOptions, display: Display) -> Setup:
        """Reuse the current setup if these options do not affect it; else build a new one."""
        if self._setup is None:
            return set_up(options, self.inputs, self.mesh, display)
        # options that data and models do not depend on: what is loaded serves again
        of_training = {"steps", "epochs", "out", "eval_every", "log_every", "stop", "sample"}
        of_training |= {"reference", "optim", "checkpoint", "max_bad_steps", "deterministic", "log"}
        same = {f.name for f in fields(options)} - of_training
        old = self._setup.options
        # a folder of an earlier start has its date in every prompt
        dated = old.data.date and folder.date_of(options.out) not in (None, old.data.date)
        if dated or any(getattr(options, n) != getattr(old, n) for n in same - {"data"}):
            return set_up(options, self.inputs, self.mesh, display)
        if options.eval_every and not self._setup.held:
            raise ValueError("eval_every needs held-out data: give eval")
        options = replace(options, data=old.data)  # with the date that was rendered
        return replace(self._setup, options=options, inputs=self.inputs)

    # ---- results

    @property
    def policy(self) -> Policy:
        """The current model: trained if `fit` was called, else as loaded."""
        if self._trained is not None:
            return self._trained.policy(self.options.out)
        setup = self.setup
        roles, options = setup.roles, setup.options
        facts: dict[str, Any] = {"base_model": roles.path}
        params = roles.params
        if self.session is not None:
            params = self.session.state.params
            facts = card.facts_of(options.out, options, int(self.session.state.step))
        return Policy(
            nnx.merge(*roles.sampling_weights(params)),
            setup.tokenizer,
            roles.path,
            self.mesh,
            options.model,
            options.mesh,
            roles.shared_base,
            options.algorithm,
            facts,
        )

    def evaluate(self) -> dict[str, float]:
        """Held-out metrics as `eval_every` records them; nothing is written.

        Raises:
          ValueError: the run has no held-out data.
        """
        from jalign.run.evaluate import held_out_metrics

        with jax.set_mesh(self.mesh):
            return held_out_metrics(self)

    def reward(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """[n] rewards of responses from the reward model that this run trains.

        Raises:
          ValueError: the algorithm does not train a response-level reward.
        """
        with jax.set_mesh(self.mesh):
            return np.asarray(self.reward_model(prompts, responses))

    @property
    def reward_model(self) -> RewardModel:
        """The reward model that this run trains; pass it to `jalign.online(rewards=..)`."""
        if self._trained is not None:
            return folder.reward_of(self.options, self._trained.model, self._trained.params)
        params = (self.session.state if self.session else self.setup.roles).params
        return folder.reward_of(self.options, self.setup.roles, params)

    @property
    def record(self) -> Sequence[Row]:
        """Every row of metrics.jsonl, oldest first; `kind` tells them apart."""
        return lines.read(store.as_path(self.options.out))

    @property
    def evaluations(self) -> list[Row]:
        """The held-out metrics of the run, oldest first."""
        return [row for row in self.record if row["kind"] == "eval"]


def open_run(name: str, step: folder.Which = None) -> Run:
    """Open a run by its folder: its policy, record and evaluations.

    Args:
      name: run directory or bucket written by `fit` or `jalign train`.
      step: step of a checkpoint, or "best"; None opens the newest.

    Raises:
      ValueError: no run in this folder, or no such checkpoint.
    """
    trained = folder.weights(name, step)
    run = Run(trained.options)
    # set up without loading data: its policy and its record need none
    run._trained = trained
    return run
