"""A model folder, data and configs small enough to train in a test."""

import gzip
import json
from pathlib import Path

import jax
import numpy as np

from jalign.bench.workloads import TINY_LLAMA
from jalign.models import hub
from tests.data.tiny_tokenizers import byte_level

WORDS = ["hello", "world", "how", "are", "you", "the", "quick", "brown", "fox"]


def write_model(folder: Path) -> Path:
    """A random Llama of two layers with its tokenizer, as a Hugging Face folder."""
    tokenizer = byte_level(bos=True, bos_token="<s>", eos_token="</s>")
    config = TINY_LLAMA | {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "tie_word_embeddings": True,
    }
    hub.save(hub.init(config, key=jax.random.key(0)), folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_pairs(path: Path, n: int = 48) -> Path:
    """Preference pairs of ragged lengths whose chosen responses are greetings."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(n):
        prompt = " ".join(rng.choice(WORDS, rng.integers(1, 5)))
        tail = " ".join(rng.choice(WORDS, rng.integers(1, 4)))
        rows.append({"prompt": prompt, "chosen": f" hello {tail}", "rejected": f" fox fox {tail}"})
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def arguments(
    folder: Path, out: str = "run", algorithm: str = "dpo", **options: object
) -> list[str]:
    """Command line of a run on the folder's model and pairs."""
    given = {
        "algorithm.name": algorithm,
        "out": str(folder / out),
        "model.path": str(folder / "model"),
        "data.train": str(folder / "pairs.jsonl.gz"),
        "data.holdout": 8,
        "optim.learning_rate": 1e-2,
        "optim.schedule": "constant",
        "batch_size": 8,
        "steps": 4,
        "log_every": 1,
        "checkpoint.every": 1,
        "mesh.data": 2,
        "mesh.fsdp": 2,
        "mesh.tensor": 2,
    } | options
    return [text for key, value in given.items() for text in (f"--{key}", str(value))]
