"""Build the hooks of a run and order them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.manifest import Meta
from jalign.core import TrainState
from jalign.kernels.compiler_options import compiler_options
from jalign.log import RunLog
from jalign.options import RunOptions
from jalign.parallel import hosts
from jalign.rewards.rules import sentiment
from jalign.run import folder
from jalign.run.samples import generator_of
from jalign.train.divergence import Trend
from jalign.train.hooks import Answers, Evaluate, Evaluations, Generations, Metrics, Save, is_due
from jalign.train.loop import Hook
from jalign.train.online import Online
from jalign.train.step import make_eval_step

if TYPE_CHECKING:
    from jalign.run.session import Session
    from jalign.train.hooks.periodic import PeriodicHook


@dataclass
class Hooks:
    """The hooks of a run, in groups.

    Attributes:
      evaluators: evaluate on held-out data.
      samplers: write continuations.
      ordered: all hooks, in the order of the loop.
    """

    options: RunOptions
    log: RunLog
    evaluations: Evaluations
    evaluators: list[Any]
    samplers: list[Any]
    metrics: Metrics
    ordered: list[Hook]

    def missing(self, meta: Meta, start: int, steps: int) -> list[PeriodicHook]:
        """Hooks to run before the next step: all of them before the first step; after a resume,
        those that the preempted run skipped.
        """
        # before the first step they are the baseline of everything later
        if not start:
            return [*self.evaluators, *self.samplers]
        last, missing, o = start == steps, [], self.options
        evaluated = "evaluations" not in meta or self.evaluations.has(start)
        if is_due(o.eval_every, start, last) and not evaluated:
            missing += self.evaluators
        rows = self.log.rows("generations")
        if is_due(o.sample.every, start, last):
            # only process 0 keeps the record
            skipped = bool(rows) and rows[-1]["step"] != start
            missing += self.samplers if hosts.any_process(skipped) else []
        return missing

    def pin_best(self, checkpoints: Checkpointer) -> None:
        """Pin the best checkpoint again: after a crash, or because stop rules changed."""
        best = self.evaluations.best
        # the record decides: a pin is set after its checkpoint, and a kill may come between them
        step = best and int(best["step"])
        kept = step in checkpoints.steps()
        if step and not kept:
            text = f"step {step} has been the best so far, and its checkpoint was not kept"
            self.log.say(text)
        checkpoints.pin(step if kept else None)


def hooks_of(session: Session, by_chance: float) -> Hooks:
    """The hooks of a session."""
    s, o, meta = session, session.options, session.meta
    earlier = meta.get("evaluations", ())
    evaluations = Evaluations(s.log, o.stop, earlier, by_chance=by_chance)
    evaluators = _evaluators(s, evaluations)
    metrics = Metrics(
        s.log,
        s.source,
        s.schedule,
        every=o.log_every,
        steps=s.steps,
        max_bad_steps=o.max_bad_steps,
        pending=meta.get("pending", ()),
        # checkpoints of older versions have none
        trend=Trend(**meta.get("trend", {})),
    )
    samplers: list[Any] = []
    if o.sample.prompts:
        generate = generator_of(o, s.setup.roles, s.setup.held)
        scores = {"sentiment": sentiment} if o.sample.score else {}
        every, stop = o.sample.every, s.preemption.heard
        samplers.append(Generations(s.log, generate, scores, every=every, stop=stop))
    saving = Save(
        partial(_save, s, evaluations, metrics),
        s.checkpoints,
        s.preemption,
        every=o.checkpoint.every,
        is_best=evaluations.is_best,
        interrupted=lambda: any(hook.interrupted for hook in (*evaluators, *samplers)),
    )
    # an evaluation may end the run, so what depends on the last step comes after it
    ends = [s.source.over] if isinstance(s.source, Online) else []
    ordered = [*evaluators, evaluations, *ends, metrics, *samplers, saving]
    return Hooks(o, s.log, evaluations, evaluators, samplers, metrics, ordered)


def _evaluators(s: Session, evaluations: Evaluations) -> list[PeriodicHook]:
    o, roles = s.options, s.setup.roles
    evaluators: list[Any] = []
    every, stop = o.eval_every, s.preemption.heard
    if s.held_source:
        step = make_eval_step(o.algorithm, roles.apply)
        # policy and reference must be equal at step 0, as in the training step
        evaluate = jax.jit(step, compiler_options=compiler_options(roles.decoder.dtype))
        batches = s.held_source.eval_batches
        evaluators.append(Evaluate(evaluations, evaluate, batches, every=every, stop=stop))
    if s.evaluator:
        evaluators.append(Answers(evaluations, s.evaluator, every=every, stop=stop))
    return evaluators


def _save(
    s: Session,
    evaluations: Evaluations,
    metrics: Metrics,
    step: int,
    state: TrainState,
    best: bool,
) -> None:
    s.log.put()  # a checkpoint is never ahead of the record
    # saving waits for the last steps, and their time belongs to training
    jax.block_until_ready(state.params)
    with s.log.timed("saving"):
        s.checkpoints.save(
            step,
            state,
            {
                "identity": s.identity,
                "position": s.source.position(),
                "pending": metrics.pending(),
                "evaluations": evaluations.so_far,
                "trend": metrics.trend.facts(),
            },
            pin=best,
            # a resumed online run trains on the rest of a rollout, not on a new one
            beside=partial(s.source.save, folder.rollout_file(s.out, step)),
        )
        if hosts.is_main():  # the save before this one has ended
            folder.drop_rollouts(s.out, keep=[*s.checkpoints.steps(), step])
