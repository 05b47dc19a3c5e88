"""Load any model that a user may name: a run, an adapter, a folder, a hub name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jalign.data.chat import load_tokenizer
from jalign.models.adapters import peft
from jalign.run import folder as runs
from jalign.run import run_model
from jalign.run.load import load
from jalign.run.policy import Policy


def load_model(name: str) -> Policy:
    """A run (RUN, RUN@STEP, RUN@best), a folder with a model or with adapters alone, a hub name, or
    embedded.
    """
    if run := run_model.named(name):
        return load_run(*run)
    folder = Path(name).expanduser()
    if not is_adapter(folder):
        return load(name)
    policy = load(peft.base_of(folder), adapter=str(folder))
    own = (folder / "tokenizer.json").is_file()
    return replace(policy, tokenizer=load_tokenizer(folder)) if own else policy


def load_run(folder: str, step: runs.Which = None) -> Policy:
    """The policy of a checkpoint; None is the newest."""
    return runs.weights(folder, step).policy(folder)


def is_adapter(folder: Path) -> bool:
    """Whether a folder has adapters and no model of its own."""
    return (folder / peft.CONFIG).is_file() and not (folder / "config.json").is_file()
