"""A stand-in model and random batches, for steps that need neither."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jalign.core import Frozen
from jalign.layout import Batch, Layout, MicroBatches
from jalign.train.step import create_state, make_train_step

B, K, R, V = 8, 2, 5, 11


def apply(params, base, layout, outputs, key=None, reference=None, **numbers):
    """A stand-in model: each scored token's numbers follow from its id alone."""
    del base, key
    tokens = layout.tokens[..., 0].reshape(-1, layout.slots.shape[-2], layout.slots.shape[-1])

    def alone(params):
        logp = jax.nn.log_softmax(params["w"])
        score = params["v"][tokens]
        return {
            "token_logps": logp[tokens],
            "log_sum_p_squared": 0.3 * logp[tokens] - 1.0,
            "competitor_logps": logp[(tokens + numbers.get("top_k", 1)) % V],
            "scores": score,
            "values": 0.5 * score,
            "attributes": jnp.stack([score, jnp.square(score), logp[tokens]], -1),
        }

    found = alone(params)
    if reference is not None:
        found |= {f"ref_{n}": x for n, x in alone(reference).items()}
        p, q = jax.nn.log_softmax(params["w"]), jax.nn.log_softmax(reference["w"])
        found["kl_to_ref"] = (1 + 0.1 * tokens) * (jnp.exp(p) * (p - q)).sum()
        found["kl_from_ref"] = (1 + 0.1 * tokens) * (jnp.exp(q) * (q - p)).sum()
        found["jsd_to_ref"] = numbers.get("jsd_beta", 0) * found["kl_from_ref"]
    return {n: found[n] for n in outputs}


def params(seed=0):
    w, v = jax.random.normal(jax.random.key(seed), (2, V))
    return {"w": w, "v": v}


def responses(row):
    """Responses per prompt in this row's data."""
    return row.format.k or {"lists": 4, "binary": 2, "samples": 3}[row.format.name]


def batch(n=B, k=K, seed=0):
    """Ragged lengths and every column of data there is; tokens ride in a [S = n, N = k * R, 1]
    stream that only `apply` above can read.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, R + 1, (n, k, 1))
    mask = np.arange(R) < lengths
    slots = np.zeros((n, 1, k, R), np.int32)
    tokens = rng.integers(0, V, (n, k * R, 1)).astype(np.int32)
    none = np.zeros((n, 1), np.int32)
    extras = {"label": rng.random(n) < 0.5, "index": np.arange(n, dtype=np.int32)}
    extras["annotator"] = rng.integers(3, size=n).astype(np.int32)
    probabilities = ("chosen_prob", "chosen_win_rate", "rejected_win_rate", "rating", "margin")
    extras |= {name: rng.random(n).astype(np.float32) for name in probabilities}
    extras["density_ratio"] = rng.uniform(0.1, 20, n).astype(np.float32)
    extras["ratings"] = rng.permuted(np.tile(np.arange(k, dtype=np.float32), (n, 1)), axis=1)
    extras["attribute_ratings"] = rng.random((n, 3)).astype(np.float32)
    extras["step_labels"] = rng.random((n, 1, R)).astype(np.float32)
    for name in ("advantages", "returns", "old_values", "old_token_logps"):
        extras[name] = rng.normal(size=(n, k, R)).astype(np.float32) - (name == "old_token_logps")
    extras["win_prob"] = rng.random((n, k)).astype(np.float32)
    extras["ref_response"] = (rng.random(n) < 0.5).astype(np.float32)
    extras["correct"] = (rng.random((n, k)) < 0.5).astype(np.float32)
    return Batch(Layout(tokens, none, none, none, slots), mask, extras)


def cut(whole, pieces, room=0):
    """The same examples as `pieces` micro-batches, then `room` empty ones full of NaN-making
    garbage.
    """
    stacked = jax.tree.map(lambda x: x.reshape(pieces, -1, *x.shape[1:]), whole)
    if room:
        stacked = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[:1], room, 0)]), stacked)
        stacked.mask[pieces:] = False
    return MicroBatches(stacked, np.int32(pieces))


def run(row, data, *, optimizer=None, p=None, ref=None, **hyper):
    optimizer = optimizer or optax.sgd(1.0)
    p = p or params()
    state = create_state(p, optimizer, row, jax.random.key(7))
    step = jax.jit(make_train_step(row, apply, optimizer, **hyper))
    return step(state, Frozen(None, ref or params(1)), data)
