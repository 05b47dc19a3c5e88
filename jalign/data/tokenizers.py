"""Tokenizers from folders and from the hub."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from jalign import bucket


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, on disk or in a bucket, or of a name on the hub. Code that comes
    with it is never run.

    Raises:
      ValueError: no such folder, a folder without tokenizer.json, one that asks for its own code,
        or a tokenizer without a fast implementation.
    """
    folder = bucket.local_folder(path)
    for name in ("tokenizer_config.json", "config.json") if folder else ():
        file = folder / name
        if file.exists() and "auto_map" in (config := json.loads(file.read_text("utf-8"))):
            raise ValueError(
                f"{file} asks to run its own code ({config['auto_map']}); jalign never does"
            )
    if folder and not (folder / "tokenizer.json").exists():
        raise ValueError(
            f"{folder} has no tokenizer.json; save the tokenizer in the fast format first"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder or path), trust_remote_code=False)
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} is neither a folder with a tokenizer here nor a model that the hub "
            f"could give now: {error}"
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {path} has no fast implementation")
    return tokenizer
