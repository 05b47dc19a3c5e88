"""What fine-tuning changed, for an optimizer that merges it into every step (`optim.merging`)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jalign.core import TrainState
from jalign.models.adapters.lora import trainable_filter
from jalign.models.prune import first_layers
from jalign.optim.online_merging import reference_delta
from jalign.options import RunOptions
from jalign.run.decoders import Source, read_decoder
from jalign.run.policy import model_path


def with_base(state: TrainState, options: RunOptions, mesh: Mesh) -> TrainState:
    """The state before the first step, whose optimizer holds model.path - optim.merging.base.

    Raises:
      ValueError: the base is another architecture than the model.
    """
    merging, depth = options.optim.merging, options.model.depth
    assert merging is not None
    base = read_decoder(options, Source(mesh), model_path(merging.base), jnp.float32)
    base = first_layers(base, depth) if depth else base
    before = nnx.state(base, trainable_filter(base))
    shapes, others = (
        {jax.tree_util.keystr(path): x.shape for path, x in jax.tree.leaves_with_path(tree)}
        for tree in (state.params, before)
    )
    if shapes != others:
        raise ValueError(
            f"optim.merging.base: {merging.base} is another architecture than model.path: "
            f"{_first_difference(shapes, others)}"
        )
    held = state.opt_state.reference_delta
    subtract = partial(reference_delta, method=merging.method, density=merging.density)
    # the weights are arguments: what a jitted function captures is compiled in as constants
    tau = jax.jit(subtract, out_shardings=jax.tree.map(lambda x: x.sharding, held))(
        state.params, before
    )
    return replace(state, opt_state=state.opt_state._replace(reference_delta=tau))


def _first_difference(ours: dict[str, tuple], theirs: dict[str, tuple]) -> str:
    name = next(n for n in sorted(ours | theirs) if ours.get(n) != theirs.get(n))
    return f"{name} is {theirs.get(name, 'absent')} instead of {ours.get(name, 'absent')}"
