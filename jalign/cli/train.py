"""`jalign train CONFIG`: build, resume, fit, and say what came of it."""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from jalign import naming, store
from jalign.cli import build, build_data, build_online, check_tokens, summary
from jalign.cli.build_reward import reward_of
from jalign.cli.feedback import ASKING
from jalign.cli.reward_parts import Texts
from jalign.cli.runs import CONFIG_FILE
from jalign.config import Config
from jalign.core import Frozen, TrainState
from jalign.data.templates import template_source
from jalign.log import Display, RunLog
from jalign.parallel import hosts
from jalign.parallel.deterministic import make_deterministic
from jalign.parallel.preflight import preflight
from jalign.rewards.rules import sentiment
from jalign.train.checkpoint import Checkpointer
from jalign.train.fingerprint import combine, fingerprint
from jalign.train.hooks import Answers, Evaluate, Evaluations, Generations, Metrics, Save, due
from jalign.train.loop import StopTraining, fit
from jalign.train.manifest import Meta
from jalign.train.online import Online
from jalign.train.preemption import ExitCode, Preemption
from jalign.train.reference import reference_columns
from jalign.train.resume import ResumeError, resume
from jalign.train.source import Offline, Source
from jalign.train.step import Step, make_eval_step, make_train_step


def train(config: Config, console: Console | None) -> int:
    """Run a config to its end; returns the exit code (`train.preemption.ExitCode`)."""
    if config.deterministic:
        make_deterministic()
    hosts.all_hosts_agree("the config", config)
    preflight(config.out)
    mesh = build.mesh_of(config)
    with jax.set_mesh(mesh), ExitStack() as closing:
        return _train(config, console, mesh, closing)


def _train(config: Config, console: Console | None, mesh: Mesh, closing: ExitStack) -> int:
    started = time.perf_counter()
    display = Display(console if hosts.is_main() else None)
    closing.callback(display.close)
    out = store.at(config.out)
    store.check_writable(out)
    algorithm = build.algorithm_of(config)
    with display.phase("reading the data"):
        tokenizer = build.tokenizer_of(config)
        rows = build_data.all_rows(config)
        examples, held = build_data.examples_of(config, tokenizer, rows)
        examples.report.warnings += check_tokens.check(config, tokenizer, examples, held)
    if config.eval_every and not held:
        raise ValueError("eval_every needs held-out data: set data.eval or data.holdout")
    with display.phase("loading the model"):
        model = build.model_of(config, mesh, tokenizer)

    spec = model.decoder.spec
    held_source, answer = None, None
    if algorithm.experience:
        reward = reward_of(config, mesh, model.bare)
        texts = Texts.of(config, examples, rows[0], tokenizer)
        source = build_online.source_of(config, model, texts, mesh, reward)
        if held:
            texts = Texts.of(config, held, rows[1], tokenizer)
            answer = build_online.answers_of(config, model, texts, mesh, reward)
        steps = config.steps
    else:
        source = build.source_of(config, examples, mesh, spec)
        held_source = build.held_source_of(config, held, mesh, spec) if held else None
        steps = build.steps_of(config, source.batches)
    optimizer, schedule = config.optim.make(steps)
    state, frozen = build.state_of(config, model, mesh, optimizer)
    identity = _identity(config, model, examples, held, state, frozen, steps, source)
    here = ("data", "held_out", "tokenizer")  # files of each host, which may be old on one
    hosts.all_hosts_agree("the data or the tokenizer", [steps, *(identity[n] for n in here)])

    hosts.said_by_main(lambda: closing.enter_context(store.alone(out)))
    checkpoints = Checkpointer(out / "checkpoints", keep=config.checkpoint.keep)
    abstract = jax.tree.map(_abstract, state)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    found = resume(
        checkpoints,
        config.checkpoint.resume,
        abstract,
        identity,
        allow=tuple(config.checkpoint.allow_mismatch),
        read=partial(_restore_source, source, out),
    )
    start, meta = 0, {}
    if found:
        start, restored, meta = found
        if start > steps:
            raise ResumeError(
                f"{out} has taken {start} steps already, and steps is {steps}: ask for more, "
                "or choose another directory"
            )
        if config.stop.given and not meta.get("evaluations"):
            raise ResumeError(
                "stop compares with the evaluation before the first step, and the checkpoint of "
                f"step {start} in {out} has none: go on without stop, or choose another directory"
            )
        # Orbax gives a key the sharding of its bits; device_put takes no key over several processes
        state = jax.jit(lambda x: x, out_shardings=shardings, donate_argnums=0)(restored)

    main = hosts.is_main()
    log = RunLog(out, steps=steps, start=start, display=display, writes=main)
    closing.callback(log.close)
    log.settings(asdict(config))
    summary.introduce(log, config, model, examples, held, source, steps, start)
    _write_config(out, config, tokenizer)
    if config.reference == "cached":
        assert isinstance(source, Offline)
        source, held_source, frozen = _with_cached_reference(
            config, model, source, held_source, frozen, identity, mesh, out, log
        )
        source.seek(start, source.tokens)

    apply = partial(model.apply, temperature=build_online.trained_temperature(config))
    step = jax.jit(
        make_train_step(algorithm, apply, optimizer, **config.hyper),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )
    step = _announced(step, log, "compiling the training step")
    with Preemption() as preemption, checkpoints:
        evaluations = Evaluations(log, config.stop, meta.get("evaluations", ()))
        evaluators: list[Any] = []
        if held_source:
            evaluate = jax.jit(make_eval_step(algorithm, model.apply, **config.hyper))
            batches, every = held_source.eval_batches, config.eval_every
            evaluators.append(
                Evaluate(evaluations, evaluate, batches, every=every, stop=preemption.heard)
            )
        if answer:
            evaluators.append(Answers(evaluations, answer, every=config.eval_every))
        metrics = Metrics(
            log,
            source,
            schedule,
            every=config.log_every,
            steps=steps,
            max_bad_steps=config.max_bad_steps,
            pending=meta.get("pending", ()),
        )
        looks: list[Any] = []
        if config.sample.prompts:
            generate = build.generator_of(config, model, held)
            score = sentiment if config.sample.sentiment else None
            looks.append(Generations(log, generate, score, every=config.sample.every))

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
                },
                pin=best,
                beside=partial(source.save, _rollout_file(out, number)),
            )
            if hosts.is_main():  # the save before this one has ended
                _drop_rollouts(out, keep=[*checkpoints.steps(), number])

        every, is_best = config.checkpoint.every, evaluations.is_best
        saving = Save(save, checkpoints, preemption, every=every, is_best=is_best)
        # whether a step is the last is known after its evaluation
        ends = [source.over] if isinstance(source, Online) else []
        hooks = [*evaluators, evaluations, *ends, metrics, *looks, saving]
        preemption.check()
        code = ExitCode.OK
        try:
            # a run that was told to stop saved without evaluating: that is made up for
            cut = "evaluations" in meta and due(config.eval_every, start, start == steps)
            missing = evaluators if cut and not evaluations.has(start) else ()
            for look in missing if start else (*evaluators, *looks):
                look.now(start, state, frozen)
            if start and config.stop.metric:
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
    nothing = source.idle.verdict if isinstance(source, Online) else None
    if code is ExitCode.OK and nothing:
        log.say(f"ended after step {int(state.step)} of {steps}: {nothing}")
        return ExitCode.NOTHING_LEARNED
    if code is ExitCode.OK:
        taken = int(state.step)
        if taken < steps:
            why = evaluations.reason
            log.say(f"ended after step {taken} of {steps}: {why}. It goes on if that is relaxed.")
        best = checkpoints.pinned if config.stop.metric else None
        display.close()
        summary.conclude(log, out, taken, time.perf_counter() - started, best)
    return code


def _announced(step: Step, log: RunLog, phase: str) -> Step:
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


def _shown(source: Offline | Online, display: Display) -> Source:
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


def _restore_source(source: Online | Offline, out: store.Place, meta: Meta) -> None:
    step = meta["step"]
    source.restore(meta["position"], step, _rollout_file(out, step))


def _rollout_file(out: store.Place, step: int) -> store.Place:
    """Where a checkpoint in the middle of a rollout keeps its examples."""
    return out / "rollouts" / f"under-way-{step}.npz"


def _drop_rollouts(out: store.Place, keep: Sequence[int]) -> None:
    """Delete the examples of rollouts under way that no checkpoint needs any more."""
    needed = {_rollout_file(out, step) for step in keep}
    for file in (out / "rollouts").glob("under-way-*.npz"):
        if file not in needed:
            file.unlink()


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _identity(
    config: Config,
    model: build.Model,
    examples: Any,
    held: Any,
    state: TrainState,
    frozen: Frozen,
    steps: int,
    source: Any = None,
) -> dict[str, Any]:
    """The facts that a run may not change half-way."""
    lora = config.model.lora
    constant = config.optim.schedule == "constant"
    # equal weights are another model when, say, the base of its rotary angles differs
    base = fingerprint((state.params, frozen.base)) | {"spec": repr(model.decoder.spec)}
    row = build.algorithm_of(config)
    algorithm = row.hyperparameters | config.algorithm | {"name": row.name}
    if code := naming.code_digest(config.algorithm["name"], row):
        algorithm |= {"code": code}
    return {
        "schema": 1,
        "algorithm": dict(sorted(algorithm.items())),
        "data": examples.fingerprint,
        "held_out": held.fingerprint if held else None,
        "tokenizer": _tokenizer_hash(model.tokenizer),
        "base_model": combine(base),
        "reference": combine(fingerprint(frozen.ref)) if frozen.ref is not None else None,
        "adapters": None if lora is None else vars(lora),
        "optimizer": _optimizer_identity(config),
        "schedule_steps": None if constant else steps,  # a decay to another end is another run
        "batch_size": config.batch_size,
        "group_by_length": config.data.group_by_length,
        "seed": config.seed,
    } | (_online_identity(config, source) if isinstance(source, Online) else {})


def _optimizer_identity(config: Config) -> dict[str, Any]:
    """How updates are computed; where the state waits meanwhile is not part of it."""
    facts = asdict(config.optim)
    del facts["offload"]
    if facts["moments"] == "float32":  # as checkpoints say that know of nothing else
        del facts["moments"]
    return facts


def _online_identity(config: Config, source: Online) -> dict[str, Any]:
    """What an online run may not change half-way: how it samples and what it is rewarded for."""
    how = {"record", "sample_batch", "max_idle"}
    rollout = {name: x for name, x in asdict(config.rollout).items() if name not in how}
    reward = asdict(config.reward)
    judge = {name: x for name, x in reward["judge"].items() if name not in ASKING}
    texts = source.pretraining.texts.fingerprint if source.pretraining else None
    return {"rollout": rollout, "reward": reward | {"judge": judge}, "pretraining": texts}


def _tokenizer_hash(tokenizer: Any) -> str:
    text = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(text.encode()).hexdigest()


def _with_cached_reference(config, model, source, held_source, frozen, identity, mesh, out, log):
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
            build.algorithm_of(config),
            model.apply,
            frozen,
            folder=out / "reference",
            key=key,
            say=log.say,
            **config.hyper,
        )
        one.columns = columns
        made.append(one)
    return (*made, Frozen(frozen.base, None))


def _write_config(out: store.Place, config: Config, tokenizer: Any) -> None:
    if hosts.is_main():
        facts = asdict(config)
        if config.data.template:  # the run goes on, is sampled and exported without the file
            facts["data"]["template"] = template_source(tokenizer, config.data.template)
        text = json.dumps(facts, indent=2) + "\n"
        store.write(out / CONFIG_FILE, lambda file: file.write(text.encode()))
