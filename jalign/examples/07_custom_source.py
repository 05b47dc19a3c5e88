"""A source of batches of your own: here every fourth step replays older pairs.

For the loop a source is a callable `(state, frozen) -> tuple[MicroBatches, ...]`; an environment or
a replay buffer has the same form. With the rest of `jalign.train.source.Source` it is logged,
saved and resumed, and `jalign.offline(..., source=...)` takes it.
"""

# %% A row of the catalogue, a model as functions, and data as packed batches.
import jax
import optax
from flax import nnx

from jalign import algorithms, embedded
from jalign.core import Frozen
from jalign.data import chat, pipeline, sources
from jalign.data.batch_spec import BatchSpec
from jalign.data.from_rows import examples_from_rows
from jalign.models import functional, hub
from jalign.parallel.mesh import batch_shards, make_mesh
from jalign.train import loop, source, state, step

row, mesh = algorithms.get("simpo"), make_mesh(fsdp=-1)
tokenizer = chat.load_tokenizer(embedded.path())
pairs = sources.read(embedded.pairs())


def batches(rows, seed):
    examples = examples_from_rows(rows, "pairs", tokenizer)
    spec = BatchSpec(batch_size=16, streams=batch_shards(mesh), seed=seed)
    return source.Offline(pipeline.Batches(examples, spec), mesh)


class Replay:
    """New pairs, and old ones at every `every`-th step."""

    def __init__(self, new, old, every):
        self.new, self.old, self.every, self.calls = new, old, every, 0

    def __call__(self, state, frozen):
        self.calls += 1
        turn = self.old if self.calls % self.every == 0 else self.new
        return turn(state, frozen)


# %% The step takes the whole state and donates it; frozen weights are an argument, too.
apply, params, base = functional.functional(hub.load(embedded.path(), mesh=mesh), nnx.Param)
optimizer = optax.adamw(1e-4)
start = state.init_state(mesh, params, optimizer, row, seed=0)
train_step = jax.jit(step.make_train_step(row, apply, optimizer, beta=2.5), donate_argnums=0)
data = Replay(batches(pairs[:64], seed=0), batches(pairs[64:128], seed=1), every=4)


def show(info):
    print(info.step, {name: round(float(info.metrics[name]), 4) for name in ("loss", "grad_norm")})


with jax.set_mesh(mesh):
    loop.fit(train_step, start, Frozen(base, None), data, steps=8, hooks=[show])
