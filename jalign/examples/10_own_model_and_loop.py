"""A model and a training loop of your own; jalign contributes the loss.

KTO compares every response with a mean over the whole batch. On several devices that mean is a
collective: `axis_name` inside `jax.shard_map`.
"""

# %% A small causal language model in flax nnx.
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jalign import losses


class Model(nnx.Module):
    def __init__(self, vocab=32, width=16, *, rngs):
        self.embed = nnx.Embed(vocab, width, rngs=rngs)
        self.mix = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
        self.head = nnx.Linear(width, vocab, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.head(x + self.mix(x, mask=nnx.make_causal_mask(tokens)))


graph, params = nnx.split(Model(rngs=nnx.Rngs(0)))


def logps(params, tokens):  # [B], summed over the tokens after the first
    log_probs = jax.nn.log_softmax(nnx.merge(graph, params)(tokens[:, :-1]))
    return jnp.take_along_axis(log_probs, tokens[:, 1:, None], -1).sum((-2, -1))


# %% Each device computes its rows of the batch; the KL term is a mean over the rows of all.
mesh = jax.make_mesh((jax.device_count(),), ("data",))


@partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("data"), P("data")), out_specs=P("data"))
def kto(params, reference, tokens, label):
    mismatched = jnp.concatenate([tokens[:, :4], jnp.roll(tokens[:, 4:], 1, axis=0)], 1)
    fields = [logps(p, t) for t in (tokens, mismatched) for p in (params, reference)]
    yes = jnp.ones(len(tokens), bool)
    return losses.kto(*fields, yes, yes, label, beta=0.5, axis_name="data")[0]


optimizer = optax.adam(1e-2)


@jax.jit
def step(params, opt_state, *data):
    loss, grads = jax.value_and_grad(lambda p: kto(p, *data).mean())(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss


# %% Train on random sequences, of which those that end with an even token are desirable.
tokens = jax.random.randint(jax.random.key(0), (32, 8), 0, 32)
params, reference, opt_state = jax.device_put(
    (params, params, optimizer.init(params)), NamedSharding(mesh, P())
)
batch = jax.device_put((tokens, tokens[:, -1] % 2 == 0), NamedSharding(mesh, P("data")))
for i in range(60):
    params, opt_state, loss = step(params, opt_state, reference, *batch)
    if i % 20 == 0:
        print(f"step {i:2d}  loss {loss:.4f}")
