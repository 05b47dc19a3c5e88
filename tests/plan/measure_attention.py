"""What attention on a flat stream takes on a TPU between its products, by the compiler's cycles.

    python -m tests.plan.measure_attention v6e-1 [--head 128] [--tokens_last]

32 heads on 4 of keys, gathered from a stream to rows, rotated, attended to, gathered back, and the
gradient of it all. Heads of 64 as TinyLlama: 12,416 tokens in 17 rows of 1,024; of 128 as Qwen3
30B-A3B: 24,576 tokens in 16 rows of 2,048; --tokens_last stores them as those of 64. Nothing runs;
15 s of CPU.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.kernels import splash_layout
from jalign.kernels.attention import attention
from jalign.kernels.compiler_options import SCOPED_VMEM_KIB
from jalign.kernels.flat import collapse, expand
from jalign.layout import Inverse
from jalign.models.rope import Rope
from jalign.models.rotate import rotate_by_product, rotate_in_one_pass
from jalign.plan.prediction import lines
from jalign.plan.schedule import timeline
from jalign.plan.targets import target, topology

HEADS, KV_HEADS, COPIES = 32, 4, 2
SIZES = {64: (17, 1024, 12416), 128: (16, 2048, 24576)}  # rows, tokens of a row, of the stream
ROPE = Rope()


def block(q: Array, k: Array, v: Array, rows: Array, inverse: Inverse, positions: Array) -> Array:
    """Attention of [tokens, heads * head] streams."""
    _, m, t = rows.shape
    tokens, head = len(q), q.shape[-1] // HEADS

    def by_row(x: Array, heads: int) -> Array:
        return expand(x[None], rows, inverse).reshape(m, t, heads, head)

    q, k, v = splash_layout.as_read(by_row(q, HEADS), by_row(k, KV_HEADS), by_row(v, KV_HEADS))
    turn = rotate_by_product if splash_layout.by_lanes(q, k) else rotate_in_one_pass
    q, k = ROPE.rotate(q, k, ROPE.rotation(positions, head), turn)
    y = attention(q, k, v, scale=head**-0.5, implementation="splash")
    return collapse(y.reshape(1, m, t, HEADS, head), rows, inverse).reshape(tokens, -1)


def with_gradient(q, k, v, rows, inverse, positions, dy):
    y, pull = jax.vjp(lambda *qkv: block(*qkv, rows, inverse, positions), q, k, v)
    return y, pull(dy)


def main(name: str, head: int) -> None:
    m, t, tokens = SIZES[head]
    goal = target(name)
    mesh = Mesh(np.array(topology(goal)[:1]), ("x",))
    here = NamedSharding(mesh, PartitionSpec())

    def shape(*axes: int, dtype: type = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(axes, dtype, sharding=here)

    q, kv = shape(tokens, HEADS * head), shape(tokens, KV_HEADS * head)
    prompts = tokens // 3
    integers = lambda *axes: shape(*axes, dtype=jnp.int32)  # noqa: E731
    inverse = Inverse(integers(1, tokens), integers(1, prompts, COPIES - 1))
    kib = SCOPED_VMEM_KIB.get(goal.accelerator.kind)
    options = {"xla_tpu_scoped_vmem_limit_kib": str(kib)} if kib else {}
    run = jax.jit(with_gradient, compiler_options=options)
    lowered = run.lower(q, kv, kv, integers(1, m, t), inverse, integers(m, t), q)
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--head", type=int, default=64, choices=SIZES)
    parser.add_argument("--tokens_last", action="store_true")
    arguments = parser.parse_args()
    if arguments.tokens_last:
        splash_layout.by_lanes = lambda q, k: False
    main(arguments.target, arguments.head)
