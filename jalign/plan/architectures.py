"""Find the config.json of a model without its weights: in a folder, on the hub, or for public
models in the package, since planning must work offline.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from jalign import store
from jalign.core import did_you_mean
from jalign.models import hub


def known() -> dict[str, dict[str, object]]:
    """Public models: hub name -> config.json, reduced to the keys that determine shapes.

    In models.json, a model with the shapes of another one refers to it by name.
    """
    content = json.loads(resources.files("jalign.plan").joinpath("models.json").read_text())
    return {name: content[x] if isinstance(x, str) else x for name, x in content.items()}


def config_of(name: str) -> tuple[dict[str, object], str]:
    """The config.json of a model, and its source in words.

    Raises:
      ValueError: not a folder, a model in the package, or a model on the hub.
    """
    if Path(name).is_dir() or store.is_remote(name):
        return hub.read_config(hub.find(name)), name
    if name in known():
        return known()[name], f"the published architecture of {name}"
    try:
        file = huggingface_hub.hf_hub_download(name, "config.json")
    except (OSError, HFValidationError, HfHubHTTPError) as e:
        raise ValueError(
            f"{name!r} is neither a folder, nor one of the architectures in the package"
            f"{did_you_mean(name, known())}, nor on the hub: {e}"
        ) from e
    return hub.read_config(Path(file).parent), f"the hub's {name}"
