"""Full-rank deltas from a base: of runs, adapters and model folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from jalign.models import hub
from jalign.models import merge as merging
from jalign.models.adapters import peft
from jalign.models.decoder import Decoder
from jalign.parallel.paths import path_name
from jalign.run import folder as runs
from jalign.run.merge.tokenizer import TextFormat
from jalign.run.policy import model_path

Params = dict[str, np.ndarray]
"""Parameter name -> float32 array on the host."""


class Base(NamedTuple):
    """The common base model."""

    folder: Path
    model: Decoder
    params: Params
    format: TextFormat

    @classmethod
    def of(cls, name: str) -> Base:
        """Load a folder, a hub name, or the embedded model."""
        folder = hub.find(model_path(name))
        model = hub.load(folder)
        return cls(folder, model, params_of(model), TextFormat.of(folder))


class Delta(NamedTuple):
    """The difference of a model from the base, per parameter.

    Attributes:
      kind: kind of the model: "run, step 200", "adapter" or "model".
      format: None if the model has no tokenizer.
    """

    kind: str
    delta: Params
    format: TextFormat | None


class _Source(NamedTuple):
    """A loaded model, and the folder of its frozen weights; None if it is a full model."""

    kind: str
    model: Decoder
    start: Path | None
    format: TextFormat | None


def params_of(model: Decoder) -> Params:
    """Every parameter except adapters, in float32 on the host, by name."""
    state = nnx.state(model, nnx.Not(nnx.LoRAParam))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    # float32: a delta is often smaller than bfloat16's spacing at its weight
    return {path_name(path): np.asarray(x, np.float32) for path, x in leaves}


def deltas_of(names: Sequence[str], base: Base) -> list[Delta]:
    """The deltas of several models.

    Raises:
      ValueError: a model's architecture differs from the base, or it has a scalar head.
    """
    return [delta_of(name, base) for name in names]


def delta_of(name: str, base: Base) -> Delta:
    """The delta of one model; raises ValueError like `deltas_of`."""
    kind, model, start, text_format = _load(name, base)
    _check_architecture(name, model, base.model)
    learned = merging.full_rank(model)
    if not learned:
        params = params_of(model)
    elif start is not None and start.resolve() == base.folder.resolve():
        params = base.params
    else:  # a run may hold its frozen weights in bfloat16: read the folder again
        params = params_of(hub.load(start or name))
    if model.replaced:  # an adapter with its own embedding or head
        tables = params_of(model)
        params |= {k: x for k, x in tables.items() if not k.startswith("layers.") and k in params}
    delta = {k: x - base.params[k] for k, x in params.items()}
    delta |= {k: delta[k] + np.asarray(d) for k, d in learned.items()}
    return Delta(kind, delta, text_format)


def _load(name: str, base: Base) -> _Source:
    if runs.is_run(name):
        _, model, params, step = runs.weights(name)
        decoder, start = nnx.merge(*model.sampling_weights(params)), hub.find(model.path)
        return _Source(f"run, step {step}", decoder, start, TextFormat.of(start, model.tokenizer))
    if (Path(name).expanduser() / peft.CONFIG).is_file():
        source = _Source("adapter", peft.load_adapter(base.model, name), base.folder, None)
    else:
        source = _Source("model", hub.load(model_path(name)), None, None)
    folder = Path(name) if Path(name).is_dir() else hub.find(name)
    if (folder / "tokenizer.json").is_file():
        return source._replace(format=TextFormat.of(folder))
    return source


def _check_architecture(name: str, model: Decoder, base: Decoder) -> None:
    """Compare the specs; names and shapes of parameters then match, as `hub.load` checks them."""
    if model.value is not None:
        raise ValueError(f"{name} has a scalar head: only language models can be merged")
    ours, theirs = dataclasses.asdict(base.spec), dataclasses.asdict(model.spec)
    del ours["context"]  # no parameter depends on it
    problems = [f"{k} is {theirs[k]!r} instead of {v!r}" for k, v in ours.items() if v != theirs[k]]
    if problems:
        raise ValueError(f"{name} is another architecture than the base: {', '.join(problems)}")
