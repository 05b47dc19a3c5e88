"""Sort keyword arguments of the Python API into sections of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from jalign.core import Algorithm
from jalign.data.rows import Row
from jalign.options import DataConfig, RewardConfig, RolloutConfig, Sources
from jalign.rewards.model import RewardModel
from jalign.run.run import Run
from jalign.signatures import did_you_mean

if TYPE_CHECKING:
    from jalign.run.data import MemoryRow
    from jalign.run.rewards import Function

    RewardEntry = Function | RewardModel | Run | str | float

Data = Sources | Sequence[Row]
"""A file, a folder, a hub name, a list of these, {source: weight}; or rows."""

FEW_ROWS = 40
"""Without `eval`, one row of fewer than these in memory is held out, since the usual fraction of so
few may be none."""


def sort_options(
    row: Algorithm,
    sections: dict[str, Any],
    options: Mapping[str, Any],
    hyper: dict[str, float],
) -> tuple[dict[str, Any], dict[str, float]]:
    """Split keyword arguments into (sections of options, hyper-parameters)."""
    kinds = {"rollout": RolloutConfig, "data": DataConfig, "reward": RewardConfig}
    filled = {name: section or kinds[name]() for name, section in sections.items()}
    names = {n: {f.name for f in fields(kinds[n])} for n in filled}
    for name, value in options.items():
        section = next((n for n in filled if name in names[n]), None)
        if name in row.hyperparameters and section:
            # to pick one silently would leave the other at its default
            raise TypeError(
                f"{name} is a hyper-parameter of {row.name} and an option: give it as "
                f"hyper={{'{name}': ..}} or in {section}={kinds[section].__name__}(..)"
            )
        if section:
            filled[section] = replace(filled[section], **{name: value})
        elif name in row.hyperparameters:
            hyper[name] = value
        else:
            known = set(row.hyperparameters).union(*names.values())
            raise TypeError(
                f"{row.name} has no option or hyper-parameter {name!r}{did_you_mean(name, known)}"
            )
    return filled, hyper


def with_rewards(
    options: RewardConfig, rewards: Mapping[str, RewardEntry | tuple[RewardEntry, float]]
) -> tuple[RewardConfig, dict[str, Function | tuple[Function, float]]]:
    """Options with the name and weight of every reward, and the rewards that are Python objects."""
    weights, live = dict(options.functions), {}
    for name, entry in rewards.items():
        reward, weight = entry if isinstance(entry, tuple) else (entry, 1.0)
        # a number is a weight: the function is in the catalogue of rewards
        if isinstance(reward, int | float):
            weights[name] = float(reward)
        elif isinstance(reward, Run | str):
            folder = reward.options.out if isinstance(reward, Run) else reward
            options = replace(options, model=folder, model_weight=float(weight))
        # before callable(): a reward model is called, too, but with messages
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


def rows_or_sources(
    data: Data | Sequence[str] | None, *, texts: bool = False
) -> tuple[Sequence[MemoryRow] | None, Sources | None]:
    """(rows, None) for rows in memory, (None, names) for sources to read.

    Args:
      texts: whether a list of strings holds prompts; otherwise it holds names of sources.
    """
    if data is None or isinstance(data, str):
        return None, data
    # {source: weight}: a mapping is never a row here, rows come in sequences
    if isinstance(data, Mapping):
        return None, dict(data)  # type: ignore[arg-type]
    items = list(data)
    if not texts and items and all(isinstance(x, str) for x in items):
        return None, items  # type: ignore[return-value]
    return items, None


def check_names(function: str, options: Mapping[str, object], known: set[str]) -> None:
    """Raise TypeError for an unknown keyword argument; the message names the nearest."""
    for name in options:
        if name not in known:
            raise TypeError(f"{function} has no option {name!r}{did_you_mean(name, known)}")
