"""The models of an arena, by name, loaded one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jalign import store
from jalign.checkpoint.fingerprint import combine, fingerprint
from jalign.eval.load import is_adapter, load_model, load_run
from jalign.models import hub
from jalign.models.adapters import peft
from jalign.run import folder as runs
from jalign.run import run_model
from jalign.run.policy import Policy, model_path
from jalign.user_code import digest


class Entrant(NamedTuple):
    """A model that answers.

    Attributes:
      name: short and unique; files are named by it.
      origin: what the user called it.
      weights: digest of its weights, by which kept answers are recognized.
      load: returns the model.
    """

    name: str
    origin: str
    weights: str
    load: Callable[[], Policy]


def entrants_of(models: Sequence[str] | Mapping[str, str | Policy]) -> list[Entrant]:
    """The models by short names: the last part of their path, or more where two have the same.

    Raises:
      ValueError: fewer than two models, or one twice.
    """
    named = dict(models) if isinstance(models, Mapping) else short_names(models)
    if len(named) < 2:
        raise ValueError(f"name two or more models to compare, got {list(named.values())}")
    return [_entrant(name, model) for name, model in named.items()]


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Short name -> model.

    >>> short_names(["runs/a/dpo", "runs/b/dpo", "runs/b/ppo@best"])
    {'a-dpo': 'runs/a/dpo', 'b-dpo': 'runs/b/dpo', 'ppo@best': 'runs/b/ppo@best'}
    """
    if twice := [name for name in dict.fromkeys(models) if models.count(name) > 1]:
        raise ValueError(f"{twice[0]} is named twice: a model is compared with others")
    parts = [PurePosixPath(name.replace("://", "/")).parts for name in models]
    names = []
    for own in parts:
        others = [x for x in parts if x is not own]
        n = next((n for n in range(1, len(own)) if all(x[-n:] != own[-n:] for x in others)), 0)
        names.append("-".join(part.strip("/") or "root" for part in own[-n:]))
    return dict(zip(names, models, strict=True))


def _entrant(name: str, model: str | Policy) -> Entrant:
    if "/" in name or "__" in name:
        raise ValueError(f"the name of a model is part of file names: no / and no __ in {name!r}")
    if isinstance(model, Policy):
        weights = combine(fingerprint(model.weights[1]))
        return Entrant(name, model.path, weights, lambda: model)
    if run := run_model.named(model):
        return Entrant(name, model, _digest_of_run(*run), partial(load_run, *run))
    return Entrant(name, model, _digest_of_folder(model), partial(load_model, model))


def _digest_of_run(folder: str, step: runs.Which) -> str:
    """Of the checkpoint's manifest, which has a checksum of every array."""
    number = runs.step_of(folder, step)
    meta = store.as_path(folder) / runs.CHECKPOINTS / str(number) / "meta"
    files = sorted(path for path in meta.iterdir() if path.name.endswith(".json"))
    return digest(*(path.read_bytes() for path in files))


def _digest_of_folder(name: str) -> str:
    folder, parts = Path(name).expanduser(), []
    if is_adapter(folder):
        parts, name = _files(folder), peft.base_of(folder)
    parts += _files(Path(hub.find(model_path(name))))
    return digest(*parts)


def _files(folder: Path) -> list[bytes]:
    """SHA-256 of each file of weights and of each config of a folder."""
    digests = []
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json")):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return digests
