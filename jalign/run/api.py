"""The front door: `jalign.load`, `online`, `offline`, `reward_model`, `score`, `open`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import jax

from jalign import algorithms
from jalign.core import Algorithm
from jalign.data.rows import Row
from jalign.options import (
    DataConfig,
    JudgeConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunOptions,
    Sources,
)
from jalign.rewards.model import RewardModel
from jalign.run.decoders import Source, trained_decoder
from jalign.run.devices import mesh_of
from jalign.run.policy import Policy, model_path, tokenizer_of
from jalign.run.run import Run, open_run
from jalign.run.setup import Inputs, model_options
from jalign.signatures import did_you_mean
from jalign.train.protocols import Sampler
from jalign.train.source import Source as BatchSource

Data = Sources | Sequence[Row]
"""A file, a folder, a hub name, several of them, {source: weight}; or rows."""

IN_MEMORY = "rows given from Python"
"""data.train of such a run's config.json."""

HOLDOUT = 0.05
FEW_ROWS = 40
"""Of rows in memory without `eval` this fraction is held out; of fewer rows than this, one."""


def load(
    name: str,
    *,
    lora: int | LoraConfig | None = None,
    adapter: str | None = None,
    quant: str = "none",
    dtype: str = "auto",
    tokenizer: str | None = None,
    template: str | None = None,
    mesh: MeshConfig | None = None,
    seed: int = 0,
    **model: Any,
) -> Policy:
    """A language model to train, sample from or score with.

    Args:
      name: a folder or hub name of Hugging Face, "embedded", or a run (RUN, RUN@STEP, RUN@best).
      lora: rank of new adapters (alpha is twice that), or all their options; the base is frozen.
      adapter: a PEFT folder whose adapters are trained on.
      quant: nf4 or int8 keeps the matrices under adapters in 4 or 8 bits.
      dtype: of the computation; auto is bfloat16 on accelerators, float32 on CPU.
      tokenizer: folder or hub name; the model's own when not given.
      template: a chat template instead of the tokenizer's: a built-in one, a .jinja file, a text.
      mesh: axes that the devices form; all devices are one fsdp axis when not given.
      seed: of new adapters.
      model: further fields of `jalign.options.ModelConfig`, such as remat or attention.

    Raises:
      ValueError: there is no such model, or an option has no such value.
    """
    known = {f.name for f in fields(ModelConfig)} - {"reference", "critic", "heads"}
    _check_names("load", model, known)
    if isinstance(lora, int):
        lora = LoraConfig(rank=lora, alpha=2.0 * lora) if lora else None
    c = ModelConfig(
        path=name,
        lora=lora,
        adapter=adapter,
        quant=quant,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        tokenizer=tokenizer,
        **model,
    )
    options = RunOptions(
        algorithm=algorithms.get("sft"),
        model=c,
        mesh=mesh or MeshConfig(),
        data=DataConfig(template=template),
        seed=seed,
    )
    devices = mesh_of(options.mesh)
    text = tokenizer_of(options)
    path = model_path(name)
    with jax.set_mesh(devices):
        source = Source(devices)
        decoder, base = trained_decoder(options, source, path, heads=0, seed=0, lm_head=True)
    return Policy(
        decoder, text, path, devices, replace(c, path=path), options.mesh, base,
        facts={"base_model": path},
    )  # fmt: skip


def online(
    algorithm: str | Algorithm | Callable[..., Any],
    policy: Policy,
    prompts: Data | Sequence[str],
    rewards: Mapping[str, Any] | None = None,
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
    hyper: Mapping[str, Any] | None = None,
    **options: Any,
) -> Run:
    """A run that samples from the policy and learns from rewards or preferences.

    Args:
      algorithm: name of a row (`jalign algorithms`), `file.py:row`, or the row itself.
      policy: of `load`.
      prompts: texts, message lists, rows with columns for the rewards, or where they are.
      rewards: name -> function of prompts and responses (columns by name), (function, weight), a
        run of a reward model or its folder, or the weight of a reward that jalign knows.
      eval: held-out prompts; a part of `prompts` when not given.
      reward_model: a run, its folder, or a sequence-classification model.
      judge: a language model that scores or compares responses.
      reference: another model than a copy of the policy.
      critic: where the critic of PPO starts; "shared" is a head on the policy.
      sampler: samples responses instead of jalign's own.
      batch_size: prompts per optimizer step.
      steps: of the run; `fit` may set them.
      rollout, reward, data: sections of options as a whole.
      hyper: hyper-parameters, where a name is also an option.
      options: fields of `RolloutConfig`, `DataConfig` and `RewardConfig` (max_new_tokens,
        temperature, max_prompt_len, clip ..) and hyper-parameters of the algorithm (kl_k3_coef).

    Raises:
      TypeError: an option or hyper-parameter is unknown; it names the nearest.
      ValueError: options do not fit each other or the algorithm.
    """
    row = _row(algorithm)
    if row.experience is None:
        raise ValueError(f"{row.name} learns from fixed data: use jalign.offline")
    sections = {"rollout": rollout, "reward": reward, "data": data}
    sections, numbers = _sorted_options(row, sections, options, dict(hyper or {}))
    sections["reward"], functions = _rewards(sections["reward"], rewards or {})
    if judge is not None:
        sections["reward"] = replace(sections["reward"], judge=judge)
    if isinstance(reward_model, Run):
        reward_model = reward_model.options.out
    if reward_model is not None:
        sections["reward"] = replace(sections["reward"], model=reward_model)
    model = ModelConfig(critic=critic, reference=reference if isinstance(reference, str) else None)
    return _run(
        row.with_hyper(**numbers),
        policy,
        sections,
        _rows_or_sources(prompts, texts=True),
        _rows_or_sources(eval, texts=True),
        model=model,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        inputs=Inputs(rewards=functions, sampler=sampler, reference=_live(reference)),
    )


def offline(
    algorithm: str | Algorithm | Callable[..., Any],
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
    hyper: Mapping[str, Any] | None = None,
    **options: Any,
) -> Run:
    """A run on fixed data: demonstrations, preferences, ratings.

    Args:
      algorithm: name of a row (`jalign algorithms`), `file.py:row`, the row itself, or a loss.
      policy: of `load`.
      data: rows, or where they are; layouts are recognized by their columns.
      eval: held-out rows; a part of `data` when not given.
      reference: another model than a copy of the policy, such as a teacher.
      source: gives the batches instead of `data` (`jalign.train.source.Source`).
      heads: attributes that a multi-attribute reward model rates.
      data_options: the section of options as a whole.
      hyper: hyper-parameters, where a name is also an option.
      options: fields of `DataConfig` (max_prompt_len, holdout, filters ..) and hyper-parameters of
        the algorithm (beta).

    Raises:
      TypeError: an option or hyper-parameter is unknown; it names the nearest.
      ValueError: options do not fit each other, the algorithm or the data.
    """
    row = _row(algorithm)
    if row.experience is not None:
        raise ValueError(f"{row.name} samples its own data: use jalign.online")
    if (data is None) == (source is None):
        raise ValueError("give data or source")
    sections, numbers = _sorted_options(row, {"data": data_options}, options, dict(hyper or {}))
    model = ModelConfig(heads=heads, reference=reference if isinstance(reference, str) else None)
    return _run(
        row.with_hyper(**numbers),
        policy,
        sections,
        ([], None) if source is not None else _rows_or_sources(data),
        _rows_or_sources(eval),
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
    """A run that trains a reward model, from the weights of a policy; as `offline` otherwise.

    `run.reward(prompts, responses)` gives its rewards, and the run itself is a reward of
    `jalign.online`.

    Raises:
      ValueError: the algorithm trains no reward.
    """
    row = _row(algorithm)
    if not row.needs_value_head:
        rows = ", ".join(r.name for r in algorithms.ROWS if r.needs_value_head)
        raise ValueError(f"{row.name} trains no reward model; choose from: {rows}")
    if policy is None:
        raise ValueError("give the policy that the reward model starts from")
    return offline(row, policy, data, **options)


def open(name: str, step: Any = None) -> Run:
    """A run from its folder: `.policy`, `.record`, `.evaluations`.

    Args:
      name: folder or bucket that `fit` or `jalign train` wrote.
      step: of a checkpoint, or "best"; None is the newest.
    """
    return open_run(name, step)


def _row(algorithm: str | Algorithm | Callable[..., Any]) -> Algorithm:
    return algorithms.get(algorithm)  # type: ignore[arg-type]


def _live(reference: str | Policy | None) -> Policy | None:
    return reference if isinstance(reference, Policy) else None


def _rewards(
    options: RewardConfig, rewards: Mapping[str, Any]
) -> tuple[RewardConfig, dict[str, Any]]:
    """Options with the name and weight of every reward, and those that are Python objects."""
    weights, live = dict(options.functions), {}
    for name, entry in rewards.items():
        reward, weight = entry if isinstance(entry, tuple) else (entry, 1.0)
        if isinstance(reward, int | float):
            weights[name] = float(reward)
        elif isinstance(reward, Run | str):
            folder = reward.options.out if isinstance(reward, Run) else reward
            options = replace(options, model=folder, model_weight=float(weight))
        elif isinstance(reward, RewardModel):
            live[name] = reward, float(weight)
        elif callable(reward):
            weights[name], live[name] = float(weight), reward
        else:
            raise TypeError(
                f"rewards[{name!r}] must be a function, (function, weight), a run of a reward "
                f"model, its folder, or the weight of a reward that jalign knows; got {reward!r}"
            )
    return replace(options, functions=weights), live


def _rows_or_sources(
    data: Data | Sequence[str] | None, *, texts: bool = False
) -> tuple[Sequence[Any] | None, Sources | None]:
    """(rows, None) of what is in memory, (None, names) of what must be read.

    Args:
      texts: a list of strings holds prompts, not names of files.
    """
    if data is None or isinstance(data, str):
        return None, data
    if isinstance(data, Mapping):
        return None, dict(data)  # type: ignore[arg-type]
    items = list(data)
    if not texts and items and all(isinstance(x, str) for x in items):
        return None, items  # type: ignore[return-value]
    return items, None


def _sorted_options(
    row: Algorithm,
    sections: dict[str, Any],
    options: Mapping[str, Any],
    hyper: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(sections of options, hyper-parameters) from keyword arguments."""
    kinds = {"rollout": RolloutConfig, "data": DataConfig, "reward": RewardConfig}
    made = {name: section or kinds[name]() for name, section in sections.items()}
    names = {n: {f.name for f in fields(kinds[n])} for n in made}
    for name, value in options.items():
        section = next((n for n in made if name in names[n]), None)
        if name in row.hyperparameters and section:
            raise TypeError(
                f"{name} is a hyper-parameter of {row.name} and an option: give it as "
                f"hyper={{'{name}': ..}} or in {section}={kinds[section].__name__}(..)"
            )
        if section:
            made[section] = replace(made[section], **{name: value})
        elif name in row.hyperparameters:
            hyper[name] = value
        else:
            known = set(row.hyperparameters).union(*names.values())
            raise TypeError(
                f"{row.name} has no option or hyper-parameter {name!r}{did_you_mean(name, known)}"
            )
    return made, hyper


def _run(
    row: Algorithm,
    policy: Policy,
    sections: dict[str, Any],
    train: tuple[Sequence[Row] | None, Sources | None],
    held: tuple[Sequence[Row] | None, Sources | None],
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
        few = len(train[0]) < FEW_ROWS
        data = replace(data, holdout=min(1, len(train[0]) - 1) if few else HOLDOUT)
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


def _check_names(function: str, options: Mapping[str, Any], known: set[str]) -> None:
    for name in options:
        if name not in known:
            raise TypeError(f"{function} has no option {name!r}{did_you_mean(name, known)}")
