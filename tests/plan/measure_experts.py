"""What the experts of a mixture take on a TPU, by the compiler's cycles.

    python -m tests.plan.measure_experts v5p-8 [--tokens 32768] [--forward] [--copied]

Qwen3 30B-A3B: four layers of 128 experts of 768 on 2,048 features, eight for each token, scanned,
frozen, with the gradient of the tokens through recomputed layers; --forward without it, as in
sampling; --copied with matrices that are sliced from their stack. Nothing runs; 10 to 30 s of CPU.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.kernels.compiler_options import SCOPED_VMEM_KIB
from jalign.models.experts import in_place
from jalign.models.experts.sparse import SparseMLP
from jalign.models.experts.spec import Experts
from jalign.parallel.axes import MESH_AXES
from jalign.plan.prediction import lines
from jalign.plan.schedule import timeline
from jalign.plan.targets import target, topology

WIDTH, LAYERS = 2048, 4
EXPERTS = Experts(count=128, top_k=8, width=768)


def layers() -> SparseMLP:
    types = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16, "rngs": nnx.Rngs(0)}
    mlp = SparseMLP(WIDTH, EXPERTS, activation="silu", layers=LAYERS, **types)
    return mlp


def main(name: str, tokens: int, forward: bool, copied: bool) -> None:
    goal = target(name)
    devices = np.array(topology(goal)[:1]).reshape([1] * len(MESH_AXES))
    mesh = Mesh(devices, MESH_AXES)
    here = NamedSharding(mesh, PartitionSpec())
    mlps = nnx.eval_shape(layers)
    if not copied:
        in_place.set_frozen(mlps)
    graphdef, state = nnx.split(mlps)

    def run(state: nnx.State, x: jax.Array) -> jax.Array:
        stacks = in_place.stacks(nnx.merge(graphdef, state))

        def one(x, layer):
            params, number = layer
            mlp = nnx.merge(graphdef, params)
            in_place.with_stacks(mlp, stacks, number)
            return x + mlp(x, None)[0], None

        return jax.lax.scan(jax.checkpoint(one), x, (state, jnp.arange(LAYERS)))[0]

    def with_gradient(state, x, dy):
        y, pull = jax.vjp(lambda x: run(state, x), x)
        return y, pull(dy)

    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)  # noqa: E731
    x = place(jax.ShapeDtypeStruct((tokens, WIDTH), jnp.bfloat16))
    args = (jax.tree.map(place, state), x) + (() if forward else (x,))
    options = {"xla_tpu_scoped_vmem_limit_kib": str(SCOPED_VMEM_KIB[goal.accelerator.kind])}
    with jax.set_mesh(mesh):
        lowered = jax.jit(run if forward else with_gradient, compiler_options=options).lower(*args)
    text = lowered.compile().as_text()
    title = f"{LAYERS} layers of experts on one chip of {name}"
    print("\n".join(lines(title, timeline(text, goal.accelerator), goal.accelerator)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--forward", action="store_true")
    parser.add_argument("--copied", action="store_true")
    args = parser.parse_args()
    main(args.target, args.tokens, args.forward, args.copied)
