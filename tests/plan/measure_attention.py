"""What attention on a flat stream takes on a TPU between its products, by the compiler's cycles.

    python -m tests.plan.measure_attention v6e-1

TinyLlama's 32 heads of 64 on 12,416 tokens: gathered to 17 rows of 1,024, rotated, attended to,
gathered back, and the gradient of it all. Nothing runs; 15 s of CPU.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.kernels.attention import attention
from jalign.kernels.compiler_options import SCOPED_VMEM_KIB
from jalign.kernels.flat import collapse, expand
from jalign.kernels.splash import tokens_last
from jalign.models.rope import Rope
from jalign.plan.prediction import lines
from jalign.plan.schedule import timeline
from jalign.plan.targets import target, topology

ROWS, T, HEADS, KV_HEADS, HEAD, TOKENS, COPIES = 17, 1024, 32, 4, 64, 12416, 2
ROPE = Rope()


def block(q: Array, k: Array, v: Array, rows: Array, inverse: Array, positions: Array) -> Array:
    """Attention of [TOKENS, heads * HEAD] streams."""

    def by_row(x: Array, heads: int) -> Array:
        x = expand(x[None], rows, inverse)
        return tokens_last(x.reshape(ROWS, T, heads, HEAD))

    q, k, v = by_row(q, HEADS), by_row(k, KV_HEADS), by_row(v, KV_HEADS)
    q, k = ROPE.rotate(q, k, ROPE.rotation(positions, HEAD), tokens_last=True)
    y = attention(q, k, v, scale=HEAD**-0.5, implementation="splash")
    return collapse(y.reshape(1, ROWS, T, HEADS, HEAD), rows, inverse).reshape(TOKENS, -1)


def with_gradient(q, k, v, rows, inverse, positions, dy):
    y, pull = jax.vjp(lambda *qkv: block(*qkv, rows, inverse, positions), q, k, v)
    return y, pull(dy)


def main(name: str) -> None:
    goal = target(name)
    mesh = Mesh(np.array(topology(goal)[:1]), ("x",))
    here = NamedSharding(mesh, PartitionSpec())

    def shape(*axes: int, dtype: type = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(axes, dtype, sharding=here)

    q, kv = shape(TOKENS, HEADS * HEAD), shape(TOKENS, KV_HEADS * HEAD)
    indices = [(1, ROWS, T), (1, TOKENS, COPIES), (ROWS, T)]
    options = {"xla_tpu_scoped_vmem_limit_kib": str(SCOPED_VMEM_KIB[goal.accelerator.kind])}
    run = jax.jit(with_gradient, compiler_options=options)
    lowered = run.lower(q, kv, kv, *(shape(*x, dtype=jnp.int32) for x in indices), q)
    text = lowered.compile().as_text()
    print(
        "\n".join(
            lines(
                f"attention on one chip of {name}",
                timeline(text, goal.accelerator),
                goal.accelerator,
            )
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
