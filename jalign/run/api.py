"""`jalign.online`, `offline`, `reward_model` and `open`: runs from Python objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jalign import algorithms
from jalign.core import Algorithm
from jalign.options import (
    DataConfig,
    JudgeConfig,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunOptions,
    Sources,
)
from jalign.run.arguments import (
    FEW_ROWS,
    Data,
    rows_or_sources,
    sort_options,
    with_rewards,
)
from jalign.run.policy import Policy
from jalign.run.run import Run, open_run
from jalign.run.setup import Inputs, model_options
from jalign.train.protocols import Sampler
from jalign.train.source import Source as BatchSource

if TYPE_CHECKING:
    from jalign.core import LossFn
    from jalign.run.arguments import RewardEntry
    from jalign.run.data import MemoryRow
    from jalign.run.folder import Which

IN_MEMORY = "rows given from Python"
"""data.train of such a run's config.json."""


def online(
    algorithm: str | Algorithm | LossFn,
    policy: Policy,
    prompts: Data | Sequence[str],
    rewards: Mapping[str, RewardEntry | tuple[RewardEntry, float]] | None = None,
    *,
    eval: Data | Sequence[str] | None = None,
    reward_model: str | Run | None = None,
    judge: JudgeConfig | None = None,
    reference: str | Policy | None = None,
    critic: str | None = None,
    sampler: Sampler | None = None,
    batch_size: int = 32,
    steps: int = 0,
    seed: int = 0,
    rollout: RolloutConfig | None = None,
    reward: RewardConfig | None = None,
    data: DataConfig | None = None,
    hyper: Mapping[str, float] | None = None,
    **options: object,
) -> Run:
    """A run that samples from the policy and learns from rewards or preferences.

    Args:
      algorithm: name of a row (`jalign algorithms`), `file.py:row`, or the row itself.
      policy: a policy that `jalign.load` returned.
      prompts: texts, message lists, rows with columns for the rewards, or a source of them.
      rewards: name -> function of prompts and responses (columns by name), (function, weight), a
        run of a reward model or its folder, or the weight of a reward that jalign knows.
      eval: held-out prompts; by default a part of `prompts` is held out.
      reward_model: a run, its folder, or a sequence-classification model.
      judge: a language model that scores or compares responses.
      reference: a reference model that is not a copy of the policy.
      critic: the model that PPO's critic is initialized from; "shared" adds a value head to the
        policy.
      sampler: replaces jalign's own sampler.
      batch_size: prompts per optimizer step.
      steps: optimizer steps; `fit` may set them.
      rollout, reward, data: complete sections of options.
      hyper: hyper-parameters whose name is also an option.
      options: fields of `RolloutConfig`, `DataConfig` and `RewardConfig` (max_new_tokens,
        temperature, max_prompt_len, clip ..) and hyper-parameters of the algorithm (kl_k3_coef).

    Raises:
      TypeError: an unknown option or hyper-parameter; the message names the nearest.
      ValueError: options contradict each other or the algorithm.
    """
    row = _row(algorithm)
    if row.experience is None:
        raise ValueError(f"{row.name} learns from fixed data: use jalign.offline")
    sections = {"rollout": rollout, "reward": reward, "data": data}
    sections, hyper_values = sort_options(row, sections, options, dict(hyper or {}))
    sections["reward"], functions = with_rewards(sections["reward"], rewards or {})
    if judge is not None:
        sections["reward"] = replace(sections["reward"], judge=judge)
    # by its folder: config.json holds no Python objects, and a resumed run reads the model there
    if isinstance(reward_model, Run):
        reward_model = reward_model.options.out
    if reward_model is not None:
        sections["reward"] = replace(sections["reward"], model=reward_model)
    # a Policy goes by `Inputs`: options hold only what config.json can
    model = ModelConfig(critic=critic, reference=reference if isinstance(reference, str) else None)
    return _run(
        # set on the row here: a bad value is an error of this call, not of the first step
        row.with_hyper(**hyper_values),
        policy,
        sections,
        rows_or_sources(prompts, texts=True),
        rows_or_sources(eval, texts=True),
        model=model,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        inputs=Inputs(rewards=functions, sampler=sampler, reference=_live(reference)),
    )


def offline(
    algorithm: str | Algorithm | LossFn,
    policy: Policy,
    data: Data | None = None,
    *,
    eval: Data | None = None,
    reference: str | Policy | None = None,
    source: BatchSource | None = None,
    batch_size: int = 32,
    steps: int = 0,
    epochs: float = 1.0,
    seed: int = 0,
    heads: int = 1,
    data_options: DataConfig | None = None,
    hyper: Mapping[str, float] | None = None,
    **options: object,
) -> Run:
    """A run on fixed data: demonstrations, preferences, ratings.

    Args:
      algorithm: name of a row (`jalign algorithms`), `file.py:row`, the row itself, or a loss.
      policy: a policy that `jalign.load` returned.
      data: rows, or a source of them; layouts are recognized by their columns.
      eval: held-out rows; by default a part of `data` is held out.
      reference: a reference model that is not a copy of the policy, such as a teacher.
      source: yields batches instead of `data` (`jalign.train.source.Source`).
      heads: number of attributes of a multi-attribute reward model.
      data_options: a complete section of options.
      hyper: hyper-parameters whose name is also an option.
      options: fields of `DataConfig` (max_prompt_len, holdout, filters ..) and hyper-parameters of
        the algorithm (beta).

    Raises:
      TypeError: an unknown option or hyper-parameter; the message names the nearest.
      ValueError: options contradict each other, the algorithm or the data.
    """
    row = _row(algorithm)
    if row.experience is not None:
        raise ValueError(f"{row.name} samples its own data: use jalign.online")
    if (data is None) == (source is None):
        raise ValueError("give data or source")
    # a source makes its batches itself, but held-out rows are tokenized as `data` says
    sections, hyper_values = sort_options(row, {"data": data_options}, options, dict(hyper or {}))
    model = ModelConfig(heads=heads, reference=reference if isinstance(reference, str) else None)
    return _run(
        row.with_hyper(**hyper_values),
        policy,
        sections,
        ([], None) if source is not None else rows_or_sources(data),
        rows_or_sources(eval),
        model=model,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        inputs=Inputs(source=source, reference=_live(reference)),
    )


def reward_model(
    algorithm: str | Algorithm = "bradley_terry",
    policy: Policy | None = None,
    data: Data | None = None,
    **options: Any,
) -> Run:
    """A run that trains a reward model initialized from a policy; options as in `offline`.

    `run.reward(prompts, responses)` returns its rewards; `jalign.online(rewards={name: run})`
    trains a policy on them.

    Raises:
      ValueError: the algorithm does not train a reward model.
    """
    row = _row(algorithm)
    if not row.needs_value_head:
        rows = ", ".join(r.name for r in algorithms.ROWS if r.needs_value_head)
        raise ValueError(f"{row.name} trains no reward model; choose from: {rows}")
    if policy is None:
        raise ValueError("give the policy that the reward model starts from")
    return offline(row, policy, data, **options)


def open(name: str, step: Which = None) -> Run:
    """Open a run by its folder: `.policy`, `.record`, `.evaluations`.

    Args:
      name: run directory or bucket written by `fit` or `jalign train`.
      step: step of a checkpoint, or "best"; None opens the newest.
    """
    return open_run(name, step)


def _row(algorithm: str | Algorithm | LossFn) -> Algorithm:
    return algorithms.get(algorithm)


def _live(reference: str | Policy | None) -> Policy | None:
    return reference if isinstance(reference, Policy) else None


def _run(
    row: Algorithm,
    policy: Policy,
    sections: dict[str, Any],
    train: tuple[Sequence[MemoryRow] | None, Sources | None],
    held: tuple[Sequence[MemoryRow] | None, Sources | None],
    *,
    model: ModelConfig,
    inputs: Inputs,
    **options: Any,
) -> Run:
    data = sections.pop("data")
    data = replace(data, train=train[1] if train[1] is not None else IN_MEMORY)
    if held[1] is not None:
        data = replace(data, eval=held[1])
    elif train[0] is not None and held[0] is None and data.holdout is None:
        # a fraction is a limit for the hash of a prompt: of a few rows none may be below it
        few = len(train[0]) < FEW_ROWS
        one = min(1, max(len(train[0]) - 1, 0))
        data = replace(data, holdout=one if few else None)
    name = algorithms.name_of(row)
    described = RunOptions(
        algorithm=row, algorithm_name=name, out="", model=model, data=data, **sections, **options
    )
    described = model_options(policy, described)
    steps = described.steps or int(row.experience is not None)  # `fit` may set them
    run = Run(described, replace(inputs, policy=policy, train=train[0], eval=held[0]))
    run.check(replace(described, steps=steps))
    _ = run.setup  # bad rows and missing rewards are reported here, not in fit
    return run
