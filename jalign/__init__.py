"""Alignment of language models in JAX: losses as pure functions, and runs that train by them.

`jalign.load`, `online`, `offline`, `reward_model`, `score` and `open` are imported when they are
first used, so that `import jalign.losses` needs nothing but jax.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jalign.run.api import load, offline, online, open, reward_model
    from jalign.run.policy import Policy
    from jalign.run.run import Run
    from jalign.run.scoring import score

__version__ = "0.1.0"

# jalign uses transformers' tokenizers only: its warning that torch is missing would mislead.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

_HOMES = {
    "Policy": "jalign.run.policy",
    "Run": "jalign.run.run",
    "load": "jalign.run.load",
    "offline": "jalign.run.api",
    "online": "jalign.run.api",
    "open": "jalign.run.api",
    "reward_model": "jalign.run.api",
    "score": "jalign.run.scoring",
}

__all__ = [
    "Policy",
    "Run",
    "__version__",
    "load",
    "offline",
    "online",
    "open",
    "reward_model",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jalign' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
