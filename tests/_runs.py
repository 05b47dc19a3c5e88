"""Tiny runs and what they left in their folders."""

import json

from jalign.config.read import read_config
from tests._train import train
from tests.tiny_run import arguments


def run(folder, *args, **options):
    return train(read_config(arguments(folder, *args, **options)), None)


def rows(folder, out, kind="train"):
    text = (folder / out / "metrics.jsonl").read_text()
    return [r for r in map(json.loads, text.splitlines()) if r["kind"] == kind]


def leaves(folder, out, step):
    """dtype, shape and checksum of every leaf of a checkpoint."""
    (file,) = (folder / out / "checkpoints" / str(step) / "meta").glob("*.json")
    return json.loads(file.read_text())["leaves"]


ONLINE = {
    "rollout.max_new_tokens": 6,
    "rollout.responses": 2,
    "rollout.prompts": 16,
    "rollout.epochs": 2,
    "reward.functions": '{"response_length_words": 1.0}',
    "optim.learning_rate": 1e-3,
    "data.holdout": 8,
}

ONE = {"mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 1, "data.holdout": 0, "batch_size": 4}
HI = {"role": "user", "content": "hello"}
