"""Downloads from the Hugging Face hub into its local cache."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    XetDownloadError,
)

# Neither pickles nor Python files are read, so they are not downloaded either.
WANTED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "*.txt",
)
# The same weights again in other formats: GPT-OSS has them in folders, Mistral beside its own.
UNWANTED = ("*/*.safetensors", "*/*.json", "*/*.txt", "consolidated*.safetensors")


def download(name: str) -> Path:
    """The local folder of a model on the hub; of files that are in the cache nothing is downloaded.

    The library shows a bar per file in a terminal. A connection that breaks is resumed where it
    broke; after a kill, complete files are kept and the others start over.

    Raises:
      ValueError: there is no such model, or its terms have not been accepted.
      OSError: the download has stopped before it was complete.
    """
    patterns = {"allow_patterns": list(WANTED), "ignore_patterns": list(UNWANTED)}
    try:
        return Path(huggingface_hub.snapshot_download(name, **patterns))
    except GatedRepoError as e:
        raise ValueError(
            f"{name} is gated: accept its terms at https://huggingface.co/{name}, and set HF_TOKEN "
            "to a token of that account"
        ) from e
    except (OSError, HTTPError, HFValidationError, XetDownloadError) as e:
        unknown = (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError)
        if isinstance(e, unknown) and not isinstance(e, IncompleteSnapshotError):
            raise ValueError(
                f"{name!r} is neither a folder here nor a model on the hub: {e}"
            ) from e
        raise OSError(
            f"the download of {name} is not complete ({type(e).__name__}: {e}). The same command "
            "continues it: files that are complete are kept"
        ) from e
