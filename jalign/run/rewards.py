"""Compose the reward of an online run from functions, a reward model, and a judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from jax.sharding import Mesh

from jalign.checkpoint.fingerprint import combine, fingerprint
from jalign.core import Algorithm
from jalign.options import RewardConfig
from jalign.rewards.functions import RewardFunctions
from jalign.rewards.identity import function_digest, template_digests
from jalign.rewards.judge import Judge, ModelJudge
from jalign.rewards.model import RewardModel
from jalign.rewards.rating import additive_ratings, direct_score, self_reward
from jalign.rewards.rlaif import Comparison, labeler
from jalign.rewards.rubric import Rubric
from jalign.rewards.server import ServerJudge
from jalign.rewards.types import Judged
from jalign.rollout.types import Rollout
from jalign.run import folder as runs
from jalign.run.decoders import FrozenBase
from jalign.run.judge import judge_of
from jalign.run.prompts import PromptTable
from jalign.run.response_rewards import ResponseReward, as_function
from jalign.run.step_rewards import StepReward
from jalign.signatures import check_options

Function = Callable[..., Any]
"""A reward function; `jalign.rewards.functions.RewardFunctions` documents the call."""

JUDGE_OPTIONS = {
    "score": direct_score,
    "points": additive_ratings,
    "rubric": Rubric,
    "preference": Comparison,
}
"""reward.judge.ask -> the function that takes reward.judge.options."""


class RewardFn(Protocol):
    """Judges the responses of an online run. `compose` builds one from options; any callable with
    this signature and an `identity` plugs into `jalign.train.online.Online` (with its table bound:
    `partial(reward, table)`).

    Attributes:
      identity: what must not change on resume besides the options: the code of functions, the
        weights of models, the templates of a judge. JSON-serializable.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def __call__(self, table: PromptTable, indices: Sequence[int], rollout: Rollout, /) -> Judged:
        """Rewards of the responses to the prompts `table[i]` of these indices."""
        ...


def compose(
    reward: RewardConfig,
    algorithm: Algorithm,
    mesh: Mesh,
    *,
    shared_base: FrozenBase | None = None,
    functions: Mapping[str, Function | tuple[Function, float]] | None = None,
) -> RewardFn:
    """Combine everything in `reward` and `functions` into one reward; it may be empty.

    Args:
      reward: functions by name, a reward model, a judge, weights, penalty and clip.
      algorithm: decides whether steps or responses are judged, and whether it reads win
        probabilities.
      mesh: the mesh on which models are loaded.
      shared_base: the policy's frozen weights, which a reward model with adapters may share.
      functions: name -> a Python function, or (function, weight); the default weight is that of
        `reward.functions` for the name, else 1. One of them may be a `RewardModel` in memory.

    Raises:
      ValueError: an unknown option of a function or the judge, or two reward models.
    """
    callables, weights = {}, dict(reward.functions)
    model, models = None, [name for name in (reward.model,) if name]
    for name, entry in (functions or {}).items():
        fn, weight = entry if isinstance(entry, tuple) else (entry, weights.get(name, 1.0))
        if isinstance(fn, RewardModel):
            # a weight without a function of its name would be looked up in the catalogue
            weights.pop(name, None)
            model, models = (fn, weight), [*models, name]
        else:
            callables[name], weights[name] = fn, weight
    if len(models) > 1:
        raise ValueError(f"a run has one reward model, got {', '.join(models)}")
    if algorithm_reads(algorithm, "step_scores"):
        return _of_steps(reward, weights, callables, model)
    return _of_responses(reward, algorithm, mesh, shared_base, weights, callables, model)


def _of_steps(
    reward: RewardConfig,
    weights: dict[str, float],
    callables: dict[str, Function],
    model: tuple[RewardModel, float] | None,
) -> StepReward:
    scorer, reward = _model(reward, model, lambda: runs.process_model(str(reward.model)))
    return StepReward(
        options=reward,
        functions=_functions(reward, weights, callables),
        model=scorer,
        identity=identity_of(reward, model=scorer, callables=callables),
    )


def _of_responses(
    reward: RewardConfig,
    algorithm: Algorithm,
    mesh: Mesh,
    shared_base: FrozenBase | None,
    weights: dict[str, float],
    callables: dict[str, Function],
    model: tuple[RewardModel, float] | None,
) -> ResponseReward:
    # copied before a judge joins: a judge is identified by its weights, not by code
    c, identified = reward.judge, dict(callables)
    if c.ask in JUDGE_OPTIONS:
        check_options(c.options, JUDGE_OPTIONS[c.ask])
    judge = judge_of(c, mesh) if c.ask != "nothing" else None
    in_process, prefer = {}, None
    if judge and c.ask == "preference":
        prefer = labeler(judge, **c.options)
    elif judge:
        # checks its questions when it is made, before anything is sampled
        if c.ask == "rubric":
            asked = Rubric(judge, **c.options)
        else:
            ask = {"score": direct_score, "points": self_reward}[c.ask]
            asked = partial(ask, judge, **c.options)
        callables["judge"] = as_function(asked, judge)
        weights["judge"] = c.weight
        # a server is asked by process 0 like any function; a model runs on all devices
        if not isinstance(judge, ServerJudge):
            in_process["judge"] = callables["judge"]
    # read only if none is in memory
    load = lambda: runs.reward_model(str(reward.model), mesh, shared_base)  # noqa: E731
    scorer, reward = _model(reward, model, load)
    return ResponseReward(
        options=reward,
        functions=_functions(reward, weights, callables),
        model=scorer,
        judge=judge,
        in_process=in_process,
        prefer=prefer,
        wins=algorithm_reads(algorithm, "win_probs"),
        identity=identity_of(reward, model=scorer, judge=judge, callables=identified),
    )


def algorithm_reads(algorithm: Algorithm, name: str) -> bool:
    """Whether the algorithm reads this array of a rollout."""
    return name in algorithm.rollout_inputs()


def _functions(
    reward: RewardConfig, weights: dict[str, float], callables: dict[str, Function]
) -> RewardFunctions | None:
    if not weights:
        return None
    return RewardFunctions(weights, options=reward.options, callables=callables)


def _model(
    reward: RewardConfig,
    model: tuple[RewardModel, float] | None,
    load: Callable[[], RewardModel],
) -> tuple[RewardModel | None, RewardConfig]:
    """The reward model, and the options with its weight."""
    if model is not None:
        return model[0], replace(reward, model_weight=model[1])
    return (load() if reward.model else None), reward


def identity_of(
    reward: RewardConfig,
    *,
    model: RewardModel | None = None,
    judge: Judge | None = None,
    callables: Mapping[str, Function] | None = None,
) -> dict[str, object]:
    """`RewardFn.identity` of these rewards; fingerprints read all weights once."""
    functions = dict.fromkeys(reward.functions) | dict(callables or {})
    digests = {name: function_digest(name, fn) for name, fn in functions.items()}
    identity: dict[str, Any] = {"functions": digests}
    if model:
        identity["model"] = {"step": model.step, "weights": combine(fingerprint(model.state))}
    # a server has no weights to fingerprint: its name is in the options
    if isinstance(judge, ModelJudge):
        identity["judge"] = {"weights": combine(fingerprint(judge.state))}
    if digests := template_digests(reward.judge.options):
        identity["templates"] = digests
    return identity
