"""`Config` to `RunOptions`: the only place where config files become the values of a run."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from jalign import algorithms
from jalign.options import RunOptions

if TYPE_CHECKING:
    from jalign.config import Config


def options_of(config: Config) -> RunOptions:
    """The values of a config; its algorithm is the row, with the hyper-parameters that are set."""
    name = config.algorithm["name"]
    row = algorithms.get(name).with_hyper(**config.hyper)
    rest = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "algorithm"}
    algorithm = row.with_longest_response(config.rollout.max_new_tokens)
    return RunOptions(algorithm=algorithm, algorithm_name=name, **rest)
