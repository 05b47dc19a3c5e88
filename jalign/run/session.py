"""One training session of a run, from resuming to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import optax

from jalign import store
from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.manifest import Meta
from jalign.checkpoint.resume import ResumeError, resume
from jalign.core import Frozen, TrainState
from jalign.kernels.compiler_options import compiler_options
from jalign.log import Display, RunLog, Tracker
from jalign.options.renamed import identity_with_new_keys
from jalign.parallel import hosts
from jalign.run import facts, folder, summary
from jalign.run.batches import held_source_of, source_of, steps_of
from jalign.run.cached_reference import with_cached_reference
from jalign.run.hooks import Hooks, hooks_of
from jalign.run.identity import NOTES, identity_of, unsaid
from jalign.run.merging_base import with_base
from jalign.run.outcome import log_outcome
from jalign.run.roles import initial_state
from jalign.run.rollouts import evaluator_of, trained_temperature
from jalign.run.rollouts import source_of as online_source_of
from jalign.run.setup import Setup
from jalign.train.divergence import chance
from jalign.train.hooks import Profile, memory_profile_on_failure
from jalign.train.loop import StopTraining, fit
from jalign.train.online import Online
from jalign.train.preemption import ExitCode, Preemption
from jalign.train.source import Offline, Source
from jalign.train.step import TrainStepFn, make_train_step


class Session:
    """Trains a run that is set up, in the process that called it.

    Args:
      setup: data, models and rewards.
      display: shows progress.
      closing: exit stack of the caller that closes the log and unlocks the folder.
      trackers: receive metrics and texts.
      since: `time.perf_counter()` before data and models were loaded.
      profile: the steps to trace.

    Attributes:
      state, frozen: training state and frozen arrays of the newest step.
      evaluations: held-out metrics so far, oldest first.
    """

    def __init__(
        self,
        setup: Setup,
        display: Display,
        closing: ExitStack,
        trackers: Sequence[Tracker],
        since: float,
        profile: range | None = None,
    ):
        self.started = time.perf_counter()
        self.setup, self.options, self.display = setup, setup.options, display
        self.out = store.as_path(self.options.out)
        self.preemption = Preemption(display.say)  # catches signals once it is entered
        self.source, self.held_source, self.evaluator = self._sources()
        self.steps = self._steps()
        optimizer, self.schedule = self._optimizer()
        roles, mesh = setup.roles, setup.mesh
        self.state, self.frozen = initial_state(self.options, roles, mesh, optimizer)
        self.identity = identity_of(setup, self.source, self.state, self.frozen, self.steps)
        # each host reads its own files, and one may have old ones
        local = [self.identity[name] for name in ("data", "held_out", "tokenizer")]
        hosts.check_processes_agree("the data or the tokenizer", [self.steps, *local])
        # only now that all input is known to be right: bad input leaves no folder behind
        hosts.call_on_main(lambda: closing.enter_context(store.lock_folder(self.out)))
        checkpoint = self.options.checkpoint
        self.checkpoints = Checkpointer(self.out / folder.CHECKPOINTS, keep=checkpoint.keep)
        self.start, self.meta = self._resume()
        if self.options.optim.merging and setup.inputs.optimizer is None and not self.start:
            self.state = with_base(self.state, self.options, mesh)
        # after resuming: rows behind the checkpoint are dropped from the record
        self.log = self._open_log(closing, trackers, since)
        self.profile = self._profile(profile)
        self._use_cached_reference()
        self.step = self._compiled_step(optimizer)

    # ---- construction

    def _sources(self) -> tuple[Source, Offline | None, Callable[..., Any] | None]:
        """(batches, held-out batches, evaluator of responses to held-out prompts)."""
        s, o = self.setup, self.options
        spec = s.roles.decoder.spec
        if o.algorithm.experience:
            assert s.table is not None and s.reward is not None
            source = online_source_of(
                o, s.roles, s.table, s.mesh, s.reward, sampler=s.inputs.sampler
            )
            if s.held_table is None:
                return source, None, None
            heard = self.preemption.heard
            return source, None, evaluator_of(o, s.roles, s.held_table, s.mesh, s.reward, heard)
        held = held_source_of(o, s.held, s.mesh, spec) if s.held else None
        if s.inputs.source is not None:
            return s.inputs.source, held, None
        assert s.examples is not None
        return source_of(o, s.examples, s.mesh, spec), held, None

    def _steps(self) -> int:
        if self.options.steps:
            return self.options.steps
        if not isinstance(self.source, Offline):
            raise ValueError("steps must be set: this source has no epochs")
        return steps_of(self.options, self.source.batches)

    def _optimizer(self) -> tuple[optax.GradientTransformation, optax.Schedule | None]:
        # an optax object brings its schedule, which cannot be read back for the log
        if self.setup.inputs.optimizer is not None:
            return self.setup.inputs.optimizer, None
        # the schedule counts updates, of which an extragradient makes one in two steps
        calls = self.options.algorithm.calls_per_update
        optimizer, schedule = self.options.optim.make(-(-self.steps // calls))
        return optimizer, lambda step: schedule(step // calls)

    def _compiled_step(self, optimizer: optax.GradientTransformation) -> TrainStepFn:
        roles = self.setup.roles
        apply = partial(roles.apply, temperature=trained_temperature(self.options))
        step = jax.jit(
            make_train_step(self.options.trained_algorithm, apply, optimizer),
            donate_argnums=0,
            # as they came in: another choice of the compiler's would compile the second step again
            out_shardings=(jax.tree.map(lambda x: x.sharding, self.state), None),
            compiler_options=compiler_options(roles.decoder.dtype),
        )
        return _announced(step, self.log, "compiling the training step")

    # ---- resuming

    def _resume(self) -> tuple[int, Meta]:
        """Restore state and source; return (steps taken, facts of the checkpoint)."""
        o = self.options
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.state
        )
        checkpoint = resume(
            self.checkpoints,
            o.checkpoint.resume,
            abstract,
            self.identity,
            allow=tuple(o.checkpoint.allow_mismatch),
            unsaid=unsaid(o),
            notes=NOTES,
            read=self._restore_source,
            upgrade=identity_with_new_keys,
        )
        if not checkpoint:
            return 0, {}
        start, restored, meta = checkpoint
        if start > self.steps:
            raise ResumeError(
                f"{self.out} has taken {start} steps already, and steps is {self.steps}: ask for "
                "more, or choose another directory"
            )
        # gains and the KL budget are measured from that evaluation
        if o.stop.given and not meta.get("evaluations"):
            raise ResumeError(
                "stop compares with the evaluation before the first step, and the checkpoint of "
                f"step {start} in {self.out} has none: resume without stop, or choose another "
                "directory"
            )
        # Orbax gives a key the sharding of its bits; device_put takes no key over several processes
        shardings = jax.tree.map(lambda x: x.sharding, abstract)
        self.state = jax.jit(lambda x: x, out_shardings=shardings, donate_argnums=0)(restored)
        return start, meta

    def _restore_source(self, meta: Meta) -> None:
        step = meta["step"]
        self.source.restore(meta["position"], step, folder.rollout_file(self.out, step))
        self._free_moments()

    def _free_moments(self) -> None:
        """Free the optimizer state of step 0 before that of a checkpoint is read."""
        # Both together would not fit where one fills the device. No path leads back to step 0 here:
        # a checkpoint is restored, or the run ends with an error.
        weights = {id(x) for x in jax.tree.leaves((self.state.params, self.setup.roles.params))}
        for x in jax.tree.leaves(self.state.opt_state):
            if id(x) not in weights:  # jit returns an unchanged argument itself
                x.delete()

    def _open_log(self, closing: ExitStack, trackers: Sequence[Tracker], since: float) -> RunLog:
        o, s, main = self.options, self.setup, hosts.is_main()
        log = RunLog(
            self.out,
            steps=self.steps,
            start=self.start,
            display=self.display,
            writes=main,
            config=o.to_json(),
            trackers=trackers,
            project=o.log.project,
        )
        closing.callback(log.close)
        facts.log_session(self, log, since)
        summary.introduce(log, s, self.source, self.steps, self.start)
        folder.write_options(self.out, o, s.tokenizer)
        return log

    def _profile(self, steps: range | None) -> Profile | None:
        if steps is None:
            return None
        if steps.stop <= self.start + 1 or steps.start > self.steps:
            raise ValueError(
                f"profile names steps {steps.start} to {steps.stop - 1}; this session takes steps "
                f"{self.start + 1} to {self.steps}"
            )
        # the other processes do the same: a trace of theirs would say little more
        return Profile(self.log.folder / "profile", steps) if self.log.folder else None

    def _use_cached_reference(self) -> None:
        if self.options.reference != "cached":
            return
        if not isinstance(self.source, Offline):
            raise ValueError("reference: cached needs the data that jalign batches itself")
        sources = (self.source, self.held_source)
        self.frozen = with_cached_reference(
            self.setup, sources, self.frozen, self.identity, self.out, self.log
        )
        # the source had begun to prefetch batches without the new columns
        self.source.seek(self.start, self.source.tokens)

    # ---- training

    def train(self) -> ExitCode:
        """Take the remaining steps; return the exit code."""
        with memory_profile_on_failure(self.log.folder), facts.logged_end(self) as ended:
            ended.code = self._run()
        return ended.code

    def _run(self) -> ExitCode:
        with self.preemption, self.checkpoints:
            hooks = self._hooks()
            self.evaluations = hooks.evaluations.so_far
            self.preemption.check()
            code = ExitCode.OK
            try:
                self._train(hooks)
            except StopTraining as stop:
                self.log.say(stop.reason)
                code = ExitCode(stop.exit_code)
        if code is not ExitCode.OK:
            return code
        return log_outcome(self, hooks)

    def _train(self, hooks: Hooks) -> None:
        for hook in hooks.missing(self.meta, self.start, self.steps):
            hook.run(self.start, self.state, self.frozen)
        if self.start and self.options.stop.metric:
            hooks.pin_best(self.checkpoints)
        if self.preemption.heard():  # without the step-0 evaluation there would be no baseline
            raise StopTraining(f"preempted after step {self.start}", ExitCode.PREEMPTED)
        if hooks.evaluations.over():
            reason = hooks.evaluations.reason
            self.log.say(f"{self.out} has ended already, no step is taken: {reason}")
            return
        source = _shown(self.source, self.log)
        ordered = [self._keep_state, *hooks.ordered]
        with ExitStack() as closing:
            if self.profile:
                closing.callback(self.profile.end)
                self.profile.begin(self.start, self.state)
                # before the others: an evaluation after the last of its steps is not traced
                ordered.insert(1, self.profile)
            self.state = fit(
                self.step, self.state, self.frozen, source, steps=self.steps, hooks=ordered
            )

    def _keep_state(self, info: Any) -> None:
        """Keep the state of the last step, also after `StopTraining`."""
        self.state = info.state

    def _hooks(self) -> Hooks:
        s, fixed = self.setup, not self.options.algorithm.experience
        examples = s.held or s.examples
        vocab_size = s.roles.decoder.spec.vocab_size
        # rewards have no value by chance, log-probs have: the uniform distribution
        by_chance = chance(examples, vocab_size) if fixed and examples else -math.inf
        return hooks_of(self, by_chance)


def _announced(step: TrainStepFn, log: RunLog, phase: str) -> TrainStepFn:
    """Wrap the step so that its first call, which compiles, is shown as a phase."""
    fresh = True

    def call(state: TrainState, frozen: Frozen, data: Any) -> Any:
        nonlocal fresh
        if not fresh:
            return step(state, frozen, data)
        fresh = False
        with log.phase(phase):
            facts.log_memory(log, step, state, frozen, data)
            return step(state, frozen, data)

    return call


def _shown(source: Source, log: RunLog) -> Callable[..., Any]:
    """Wrap the source so that its rollouts are shown as phases, and waiting for it is timed."""

    def data(state: TrainState, frozen: Frozen) -> Any:
        if not (isinstance(source, Online) and source.begins):
            since = time.perf_counter()
            batches = source(state, frozen)
            log.data_wait_s += time.perf_counter() - since
            return batches
        phase = "sampling and scoring responses"
        # its time counts as training, as in the speeds that others report of online methods
        with log.timed(phase), log.display.phase(phase):
            return source(state, frozen)

    return data
