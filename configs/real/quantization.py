"""What each kind of quantization changes in a model's log-probabilities.

usage: python configs/real/quantization.py MODEL TEXTS.jsonl.gz [KIND ...]
"""

import gzip
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jalign
from jalign.models.quant import KINDS, quantize

TOKENS, COUNT = 128, 8


def texts(tokenizer, path: str) -> np.ndarray:
    """The first COUNT texts of at least TOKENS tokens, cut there, [COUNT, TOKENS]."""
    with gzip.open(path, "rt") as file:
        rows = (tokenizer(json.loads(line)["text"])["input_ids"][:TOKENS] for line in file)
        return np.array([ids for ids, _ in zip(filter(is_long, rows), range(COUNT), strict=False)])


def is_long(ids: list[int]) -> bool:
    return len(ids) == TOKENS


def log_probs(model: nnx.Module, ids: np.ndarray) -> jax.Array:
    """[COUNT, TOKENS, V]"""
    graphdef, state = nnx.split(model)
    positions = jnp.arange(TOKENS)[None]

    @jax.jit
    def one(state, row):
        model = nnx.merge(graphdef, state)
        return jax.nn.log_softmax(model.logits(model(row[None], positions)[0])[0])

    return jnp.stack([one(state, row) for row in ids])


def main(name: str, path: str, *kinds: str) -> None:
    policy = jalign.load(name)
    model, ids = policy.decoder, texts(policy.tokenizer, path)
    exact, following = log_probs(model, ids), ids[:, 1:, None]
    taken = jnp.take_along_axis(exact[:, :-1], following, -1)
    print(f"{ids.size} tokens, NLL {-taken.mean():.3f}\n")
    print("| kind | mean change of log-probs | largest | bias | KL per token |")
    print("|---|---|---|---|---|")
    for kind in kinds or KINDS:
        coarse = log_probs(quantize(model, kind), ids)
        change = jnp.take_along_axis(coarse[:, :-1], following, -1) - taken
        kl = (jnp.exp(exact) * (exact - coarse)).sum(-1).mean()
        size = jnp.abs(change)
        print(
            f"| {kind} | {size.mean():.3f} | {size.max():.2f} | {change.mean():+.3f} | {kl:.4f} |"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
