"""The config.json of a model, without its weights: of a folder, of the hub, or a public model's
from the package where the hub cannot be reached.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from jalign.core import did_you_mean
from jalign.models import hub


def known() -> dict[str, dict[str, Any]]:
    """Public models: hub name -> config.json, of which what says nothing of shapes is left out. One
    that has the shapes of another is kept as its name.
    """
    read = json.loads(resources.files("jalign.plan").joinpath("models.json").read_text())
    return {name: read[x] if isinstance(x, str) else x for name, x in read.items()}


def config_of(name: str) -> tuple[dict[str, Any], str]:
    """The config.json of a model, and where it is from in words.

    Raises:
      ValueError: it is neither a folder nor a model that is known or can be reached.
    """
    if Path(name).is_dir():
        return hub.read_config(Path(name)), name
    if name in known():
        return known()[name], f"the published architecture of {name}"
    try:
        file = huggingface_hub.hf_hub_download(name, "config.json")
    except (OSError, HFValidationError, HfHubHTTPError) as e:
        raise ValueError(
            f"{name!r} is neither a folder here, nor a model that is known without the hub"
            f"{did_you_mean(name, known())}, nor one that the hub can be asked about: {e}"
        ) from e
    return hub.read_config(Path(file).parent), f"the hub's {name}"
