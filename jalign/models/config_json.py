"""config.json of a folder or hub model, read before anything else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from jalign import bucket
from jalign.models.families.support import Support, support
from jalign.models.families.wrapped import text_config


def read_config(folder: Path) -> dict:
    """config.json as a dict; for a multimodal model that of its text model.

    Raises:
      ValueError: the file is missing, or not a JSON object.
    """
    # The code it names is not in an export.
    return {k: v for k, v in text_config(raw_config(folder)).items() if k != "auto_map"}


def raw_config(folder: Path) -> dict:
    """config.json as it is in the file; raises as `read_config`."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{bucket.named(folder)} has no config.json") from None
    except ValueError as e:
        raise ValueError(f"{bucket.named(folder)}/config.json is not JSON: {e}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds {type(config).__name__}, not an object")
    return config


def support_of(name: str | os.PathLike) -> Support:
    """What jalign reads of a folder, on disk or in a bucket, or of a hub model, by its config.json
    alone.

    Raises:
      ValueError: it is neither a folder nor a model on the hub, or its config.json is no object.
    """
    folder = bucket.local_folder(name)
    if folder is None:
        try:
            folder = Path(huggingface_hub.hf_hub_download(str(name), "config.json")).parent
        except (OSError, HFValidationError, HfHubHTTPError) as e:
            raise ValueError(
                f"{str(name)!r} is neither a folder here nor a model on the hub: {e}"
            ) from e
    return support(raw_config(folder))
