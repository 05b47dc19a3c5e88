"""The judge that options name: a function, a reward model, or a language model here or served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from jalign.checkpoint.fingerprint import combine, fingerprint
from jalign.eval.arena.judges import ArenaJudge, PairJudge, ScoreJudge
from jalign.eval.arena.questions import Question
from jalign.models import hub
from jalign.models.keys import SCORE
from jalign.models.safetensors_io import Checkpoint
from jalign.options import ArenaJudgeConfig
from jalign.options.judge import TRANSPORT_KEYS
from jalign.parallel.mesh import make_mesh
from jalign.rewards import constitutional
from jalign.rewards.functions import RewardFunctions
from jalign.rewards.identity import function_digest, template_digests
from jalign.rewards.judge import Judge, ModelJudge
from jalign.rewards.model import RewardModel
from jalign.rewards.preference import PreferenceFn
from jalign.rewards.resolve import display_name
from jalign.rewards.rlaif import Comparison
from jalign.rewards.rules import RULES
from jalign.rewards.server import ServerJudge
from jalign.run import folder as runs
from jalign.run import run_model
from jalign.run.judge import judge_of
from jalign.run.policy import model_path
from jalign.signatures import check_options


@contextmanager
def loaded(options: ArenaJudgeConfig) -> Iterator[ArenaJudge]:
    """Load the judge; a server's connections are closed in the end.

    Raises:
      ValueError: there is no such judge, or it has no such option.
    """
    name = options.model or ""
    if not options.server and is_function(name):
        yield by_function(name, options=options.options)
    elif not options.server and is_reward_model(name):
        if options.options:
            raise ValueError(f"{name} is a reward model: it takes no judge.options")
        yield by_reward_model(_reward_model(name), _short(name))
    else:
        yield from _language_model(name, options)


def is_function(name: str) -> bool:
    """Whether this names a reward function rather than a model."""
    return name in RULES or (":" in name and "://" not in name)


def is_reward_model(name: str) -> bool:
    """Whether this is a run, or a folder, of a model that scores responses."""
    if run := run_model.named(name):
        return runs.options_of(run[0]).algorithm.scores_responses
    with Checkpoint(hub.find(model_path(name))) as checkpoint:
        return SCORE in checkpoint.shapes


def by_function(
    name: str,
    fn: Callable[..., Any] | None = None,
    options: dict[str, Any] | None = None,
) -> ScoreJudge:
    """A judge of a reward function: by its name, or as an object."""
    given = {name: fn} if fn else {}
    functions = RewardFunctions({name: 1.0}, options={name: options or {}}, callables=given)

    def score(questions: Sequence[Question], answers: Sequence[str]) -> list[float]:
        names = dict.fromkeys(n for question in questions for n in question.columns)
        columns = {n: [question.columns.get(n) for question in questions] for n in names}
        # the function takes prompts and responses by position
        columns = {n: x for n, x in columns.items() if n not in ("prompts", "responses")}
        scored = functions([q.text for q in questions], answers, columns)
        for error in scored.errors.values():
            raise ValueError(f"the judge {display_name(name)} failed: {error}")
        return scored.total.tolist()

    identity = {"code": function_digest(name, fn), "options": options or {}}
    return ScoreJudge(score, display_name(name), identity)


def by_reward_model(model: RewardModel, name: str) -> ScoreJudge:
    """A judge of a reward model; an empty answer gets the reward -inf."""

    def score(questions: Sequence[Question], answers: Sequence[str]) -> list[float]:
        return model([question.prompt for question in questions], answers).tolist()

    identity = {"weights": combine(fingerprint(model.state)), "bias": model.bias}
    return ScoreJudge(score, name, identity, soft=True)


def _reward_model(name: str) -> RewardModel:
    run = run_model.named(name)
    if run is None:
        return runs.reward_model(model_path(name))
    trained = runs.weights(*run)
    return runs.reward_of(trained.options, trained.model, trained.params)


def _language_model(name: str, options: ArenaJudgeConfig) -> Iterator[ArenaJudge]:
    principles = options.ask == "principles"
    question = constitutional.comparison if principles else Comparison
    check_options(options.options, question, ("by",))
    by = {"by": constitutional.principles(options.principles)} if principles else {}
    # weights are split over all devices, so a judge may be larger than one of them
    mesh = make_mesh(fsdp=-1)
    with jax.set_mesh(mesh):
        judge = judge_of(options, mesh)
        prefer: PreferenceFn = question(judge, **by, **options.options)
        try:
            yield PairJudge(prefer, _short(name), _identity(options, judge))
        finally:
            if isinstance(judge, ServerJudge):
                judge.close()


def _identity(options: ArenaJudgeConfig, judge: Judge) -> dict[str, Any]:
    """Everything that decides the answers of a language model, without how it is reached."""
    identity = {n: x for n, x in asdict(options).items() if n not in TRANSPORT_KEYS}
    if isinstance(judge, ModelJudge):
        identity["weights"] = combine(fingerprint(judge.state))
    return identity | {"templates": template_digests(options.options)}


def _short(name: str) -> str:
    """The last part of a name, for a folder."""
    return Path(name).name or name
