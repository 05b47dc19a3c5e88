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
      OSError: the connection has ended before the download was complete, the hub refuses it, or
        the files cannot be written.
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
        broken = (IncompleteSnapshotError, XetDownloadError, ConnectionError, TimeoutError)
        # what the hub answers is an OSError too; the errors of a connection under it are none
        if isinstance(e, broken) or not isinstance(e, (OSError, HFValidationError)):
            raise OSError(
                f"the download of {name} is not complete ({type(e).__name__}: {e}). The same "
                "command continues it: files that are complete are kept"
            ) from e
        if isinstance(e, (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError)):
            raise ValueError(
                f"{name!r} is neither a folder here nor a model on the hub: {e}"
            ) from e
        raise OSError(f"{name} cannot be downloaded ({type(e).__name__}: {e})") from e
