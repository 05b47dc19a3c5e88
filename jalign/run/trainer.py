"""`jalign train CONFIG`: build, resume, fit, and say what came of it."""

import json
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from jalign import store
from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.manifest import Meta
from jalign.checkpoint.resume import ResumeError, resume
from jalign.core import Frozen, TrainState
from jalign.data.clock import CLOCK
from jalign.data.templates import template_source
from jalign.log import Display, RunLog
from jalign.options import RunOptions
from jalign.options.renamed import identity_with_new_keys
from jalign.parallel import hosts
from jalign.parallel.deterministic import make_deterministic
from jalign.parallel.preflight import preflight
from jalign.rewards.rules import sentiment
from jalign.run import data as build_data
from jalign.run import decoders, summary
from jalign.run import limits as check_tokens
from jalign.run import rollouts as build_online
from jalign.run.batches import held_source_of, source_of, steps_of
from jalign.run.dated import dated
from jalign.run.devices import mesh_of
from jalign.run.folder import CONFIG_FILE
from jalign.run.identity import NOTES, identity_of, unsaid
from jalign.run.policy import tokenizer_of
from jalign.run.prompts import PromptTable
from jalign.run.rewards import compose
from jalign.run.roles import initial_state, load_roles
from jalign.run.samples import generator_of
from jalign.train.divergence import Trend, chance, worse
from jalign.train.hooks import Answers, Evaluate, Evaluations, Generations, Metrics, Save, is_due
from jalign.train.loop import StopTraining, fit
from jalign.train.online import Online
from jalign.train.preemption import ExitCode, Preemption
from jalign.train.reference import reference_columns
from jalign.train.rounding import same_rounding
from jalign.train.source import BatchFn, Offline
from jalign.train.step import TrainStepFn, make_eval_step, make_train_step


def train(options: RunOptions, console: Console | None) -> int:
    """Run a config to its end; returns the exit code (`train.preemption.ExitCode`)."""
    if options.deterministic:
        make_deterministic()
    hosts.check_processes_agree("the config", options)
    preflight(options.out)
    mesh = mesh_of(options.mesh)
    with jax.set_mesh(mesh), ExitStack() as closing:
        return _train(options, console, mesh, closing)


def _train(options: RunOptions, console: Console | None, mesh: Mesh, closing: ExitStack) -> int:
    started = time.perf_counter()
    display = Display(console if hosts.is_main() else None)
    closing.callback(display.close)
    out = store.as_path(options.out)
    store.check_writable(out)
    algorithm = options.algorithm
    asked, options = options, dated(options, out)
    with display.phase("reading the data"):
        tokenizer = tokenizer_of(options)
        rows = build_data.all_rows(options)
        examples, held = build_data.examples_of(options, tokenizer, rows)
        if CLOCK.asked:
            display.say(f"data: the chat template writes the date: {options.data.date} (data.date)")
        else:
            options = asked
        examples.report.warnings += check_tokens.check(options, tokenizer, examples, held)
    if options.eval_every and not held:
        raise ValueError("eval_every needs held-out data: set data.eval or data.holdout")
    with display.phase("loading the model"):
        model = load_roles(options, decoders.Source(mesh), tokenizer)

    spec = model.decoder.spec
    held_source, answer, reward = None, None, None
    preemption = Preemption(display.say)  # hears nothing yet
    if algorithm.experience:
        reward = compose(options.reward, algorithm, mesh, shared_base=model.shared_base)
        kind = algorithm.data_kind
        table = PromptTable(examples, rows[0], tokenizer, kind)
        source = build_online.source_of(options, model, table, mesh, reward)
        if held:
            table = PromptTable(held, rows[1], tokenizer, kind)
            answer = build_online.evaluator_of(
                options, model, table, mesh, reward, stop=preemption.heard
            )
        steps = options.steps
    else:
        source = source_of(options, examples, mesh, spec)
        held_source = held_source_of(options, held, mesh, spec) if held else None
        steps = steps_of(options, source.batches)
    optimizer, schedule = options.optim.make(steps)
    state, frozen = initial_state(options, model, mesh, optimizer)
    identity = identity_of(options, model, examples, held, state, frozen, steps, source, reward)
    here = ("data", "held_out", "tokenizer")  # files of each host, which may be old on one
    hosts.check_processes_agree("the data or the tokenizer", [steps, *(identity[n] for n in here)])

    hosts.call_on_main(lambda: closing.enter_context(store.lock_folder(out)))
    checkpoints = Checkpointer(out / "checkpoints", keep=options.checkpoint.keep)
    abstract = jax.tree.map(_abstract, state)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    found = resume(
        checkpoints,
        options.checkpoint.resume,
        abstract,
        identity,
        allow=tuple(options.checkpoint.allow_mismatch),
        unsaid=unsaid(options),
        notes=NOTES,
        read=partial(_restore_source, source, out),
        upgrade=identity_with_new_keys,
    )
    start, meta = 0, {}
    if found:
        start, restored, meta = found
        if start > steps:
            raise ResumeError(
                f"{out} has taken {start} steps already, and steps is {steps}: ask for more, "
                "or choose another directory"
            )
        if options.stop.given and not meta.get("evaluations"):
            raise ResumeError(
                "stop compares with the evaluation before the first step, and the checkpoint of "
                f"step {start} in {out} has none: go on without stop, or choose another directory"
            )
        # Orbax gives a key the sharding of its bits; device_put takes no key over several processes
        state = jax.jit(lambda x: x, out_shardings=shardings, donate_argnums=0)(restored)

    main = hosts.is_main()
    log = RunLog(out, steps=steps, start=start, display=display, writes=main)
    closing.callback(log.close)
    log.settings(options.to_json())
    summary.introduce(log, options, model, examples, held, source, steps, start)
    _write_config(out, options, tokenizer)
    if options.reference == "cached":
        assert isinstance(source, Offline)
        source, held_source, frozen = _with_cached_reference(
            options, model, source, held_source, frozen, identity, mesh, out, log
        )
        source.seek(start, source.tokens)

    apply = partial(model.apply, temperature=build_online.trained_temperature(options))
    rounding = same_rounding(model.decoder.dtype)
    step = jax.jit(
        make_train_step(algorithm, apply, optimizer),
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=rounding,
    )
    step = _announced(step, log, "compiling the training step")
    with preemption, checkpoints:
        fixed = not algorithm.experience
        by_chance = chance(held or examples, spec.vocab_size) if fixed else -math.inf
        earlier = meta.get("evaluations", ())
        evaluations = Evaluations(log, options.stop, earlier, by_chance=by_chance)
        evaluators: list[Any] = []
        if held_source:
            evaluate = jax.jit(make_eval_step(algorithm, model.apply), compiler_options=rounding)
            batches, every = held_source.eval_batches, options.eval_every
            evaluators.append(
                Evaluate(evaluations, evaluate, batches, every=every, stop=preemption.heard)
            )
        if answer:
            every = options.eval_every
            evaluators.append(Answers(evaluations, answer, every=every, stop=preemption.heard))
        metrics = Metrics(
            log,
            source,
            schedule,
            every=options.log_every,
            steps=steps,
            max_bad_steps=options.max_bad_steps,
            pending=meta.get("pending", ()),
            trend=Trend(**meta.get("trend", {})),
        )
        looks: list[Any] = []
        if options.sample.prompts:
            generate = generator_of(options, model, held)
            scores = {"sentiment": sentiment} if options.sample.score else {}
            every = options.sample.every
            looks.append(Generations(log, generate, scores, every=every, stop=preemption.heard))

        def save(number: int, state: TrainState, best: bool) -> None:
            log.put()  # a checkpoint is never ahead of the record
            checkpoints.save(
                number,
                state,
                {
                    "identity": identity,
                    "position": source.position(),
                    "pending": metrics.pending(),
                    "evaluations": evaluations.so_far,
                    "trend": metrics.trend.facts(),
                },
                pin=best,
                beside=partial(source.save, _rollout_file(out, number)),
            )
            if hosts.is_main():  # the save before this one has ended
                _drop_rollouts(out, keep=[*checkpoints.steps(), number])

        every, is_best = options.checkpoint.every, evaluations.is_best
        cut = lambda: any(hook.interrupted for hook in (*evaluators, *looks))  # noqa: E731
        saving = Save(save, checkpoints, preemption, every=every, is_best=is_best, interrupted=cut)
        # whether a step is the last is known after its evaluation
        ends = [source.over] if isinstance(source, Online) else []
        hooks = [*evaluators, evaluations, *ends, metrics, *looks, saving]
        preemption.check()
        code = ExitCode.OK
        try:
            for look in _missing(options, evaluations, evaluators, looks, log, meta, start, steps):
                look.run(start, state, frozen)
            if start and options.stop.metric:
                _pin_best(checkpoints, evaluations, log)
            if preemption.heard():  # else a run could go on that knows not where it began
                raise StopTraining(f"preempted after step {start}", ExitCode.PREEMPTED)
            if evaluations.over():
                log.say(f"{out} has ended already, no step is taken: {evaluations.reason}")
            else:
                data = _shown(source, display)
                state = fit(step, state, frozen, data, steps=steps, hooks=hooks)
        except StopTraining as stop:
            log.say(stop.reason)
            code = ExitCode(stop.exit_code)
    why = code is ExitCode.OK and _divergence(options, evaluations, metrics.trend, source, state)
    if why:
        log.say(
            f"ended after step {int(state.step)} of {steps}: {why}. A lower optim.learning_rate "
            "helps, from an earlier checkpoint or in another folder"
        )
        return ExitCode.DIVERGED
    nothing = source.idle.verdict if isinstance(source, Online) else None
    if code is ExitCode.OK and nothing:
        log.say(f"ended after step {int(state.step)} of {steps}: {nothing}")
        return ExitCode.NOTHING_LEARNED
    if code is ExitCode.OK:
        taken = int(state.step)
        if taken < steps:
            why = evaluations.reason
            log.say(f"ended after step {taken} of {steps}: {why}. It goes on if that is relaxed.")
        for line in worse(evaluations.so_far):
            log.say(f"warning: {line}")
        best = checkpoints.pinned if options.stop.metric else None
        display.close()
        summary.conclude(log, out, start, taken, time.perf_counter() - started, best)
    return code


def _missing(
    options: RunOptions,
    evaluations: Evaluations,
    evaluators: Sequence[Any],
    looks: Sequence[Any],
    log: RunLog,
    meta: Meta,
    start: int,
    steps: int,
) -> list[Any]:
    """What looks at the model before the next step: before the first, all; later, what a run that
    was told to stop left out to be saved in time.
    """
    if not start:
        return [*evaluators, *looks]
    last, missing = start == steps, []
    evaluated = evaluations.has(start)
    if "evaluations" in meta and is_due(options.eval_every, start, last) and not evaluated:
        missing += evaluators
    seen = log.rows("generations")
    if is_due(options.sample.every, start, last):
        # of several processes one keeps the record
        missing += looks if hosts.any_process(bool(seen) and seen[-1]["step"] != start) else []
    return missing


def _divergence(
    options: RunOptions,
    evaluations: Evaluations,
    trend: Trend,
    source: Offline | Online,
    state: TrainState,
) -> str | None:
    """Why a run that has come to its end is one that diverged."""
    bad, taken = int(state.skipped_in_a_row), int(state.step)
    if bad and bad >= min(2, taken):
        return (
            f"the last {bad} steps had a loss or gradient that was not finite; nothing was "
            "learned from them"
        )
    if evaluations.so_far:
        return evaluations.divergence
    limit = options.stop.divergence
    why = trend.diverged(limit, evaluations.by_chance) if isinstance(source, Offline) else None
    return (
        f"training diverged: {why} (in training; stop.divergence is {limit:.4g})" if why else None
    )


def _announced(step: TrainStepFn, log: RunLog, phase: str) -> TrainStepFn:
    """The step, whose first call, which compiles it, is a phase."""
    fresh = True

    def call(state: TrainState, frozen: Frozen, data: Any) -> Any:
        nonlocal fresh
        if not fresh:
            return step(state, frozen, data)
        fresh = False
        with log.phase(phase):
            return step(state, frozen, data)

    return call


def _shown(source: Offline | Online, display: Display) -> BatchFn:
    """The source, whose rollouts are phases."""

    def data(state: TrainState, frozen: Frozen) -> Any:
        if not (isinstance(source, Online) and source.begins):
            return source(state, frozen)
        with display.phase("sampling and scoring responses"):
            return source(state, frozen)

    return data


def _pin_best(checkpoints: Checkpointer, evaluations: Evaluations, log: RunLog) -> None:
    """What a kill may have come between, and what other rules or an older checkpoint may change."""
    best = evaluations.best
    step = best and int(best["step"])
    kept = step in checkpoints.steps()
    if step and not kept:
        log.say(f"step {step} has been the best so far, and its checkpoint was not kept")
    checkpoints.pin(step if kept else None)


def _restore_source(source: Online | Offline, out: store.StorePath, meta: Meta) -> None:
    step = meta["step"]
    source.restore(meta["position"], step, _rollout_file(out, step))


def _rollout_file(out: store.StorePath, step: int) -> store.StorePath:
    """Where a checkpoint in the middle of a rollout keeps its examples."""
    return out / "rollouts" / f"under-way-{step}.npz"


def _drop_rollouts(out: store.StorePath, keep: Sequence[int]) -> None:
    """Delete the examples of rollouts under way that no checkpoint needs any more."""
    needed = {_rollout_file(out, step) for step in keep}
    for file in (out / "rollouts").glob("under-way-*.npz"):
        if file not in needed:
            file.unlink()


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _with_cached_reference(options, model, source, held_source, frozen, identity, mesh, out, log):
    """Sources whose batches carry the reference's log-probs; the reference itself is let go."""
    made = []
    for one in (source, held_source):
        if one is None:
            made.append(None)
            continue
        key = {
            "data": one.batches.examples.fingerprint,
            "tokenizer": identity["tokenizer"],
            "reference": identity["reference"],
            "base_model": identity["base_model"],
            "dtype": str(model.decoder.dtype),
        }
        columns = reference_columns(
            one,
            options.algorithm,
            model.apply,
            frozen,
            folder=out / "reference",
            key=key,
            say=log.say,
            compiler_options=same_rounding(model.decoder.dtype),
        )
        one.columns = columns
        made.append(one)
    return (*made, Frozen(frozen.base, None))


def _write_config(out: store.StorePath, options: RunOptions, tokenizer: Any) -> None:
    if hosts.is_main():
        facts = options.to_json()
        if options.data.template:  # the run goes on, is sampled and exported without the file
            facts["data"]["template"] = template_source(tokenizer, options.data.template)
        text = json.dumps(facts, indent=2) + "\n"
        store.write(out / CONFIG_FILE, lambda file: file.write(text.encode()))
