"""Published training steps, compiled and predicted: `python -m jalign.plan.anchors [NAME ...]`.

Each is a plain step of a Llama-shaped model as its source describes it, on a v6e-8: float32
masters, bfloat16 compute, AdamW, 8,192 tokens a row, splash attention in blocks of 2,048, layers
in a scan and computed again in the backward pass, the head in chunks, parameters sharded over all
chips, no collective matmuls. The sources keep the input, queries, keys and values of each layer in
host memory until then; here only a step does that does not fit without it.
Compiling takes tens of minutes of CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, shard_map
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.parallel.axes import FSDP
from jalign.plan.links import Links
from jalign.plan.prediction import lines
from jalign.plan.schedule import timeline
from jalign.plan.targets import target, topology
from jalign.plan.timeline import Timeline

TARGET, TOKENS, BLOCK, CHUNKS = "v6e-8", 8192, 2048, 8
OPTIONS = {
    "xla_tpu_scoped_vmem_limit_kib": "98304",
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
}
"""Compiler options, as the sources set them."""
OFFLOADED = jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=["input", "q", "k", "v"],
    offload_src="device",
    offload_dst="pinned_host",
)
"""What the backward pass reads from the host, as the sources set it."""
PRODUCTS = (
    *((n, n, n) for n in (1024, 2048, 4096, 8192)),
    (8192, 4096, 14336), (8192, 14336, 4096), (8192, 4096, 4096), (8192, 2048, 5632),
    (16384, 4096, 14336),
)  # fmt: skip

Params = dict[str, Array]


class Anchor(NamedTuple):
    """A published step.

    Attributes:
      vocab: size of the vocabulary; the other sizes are those of Llama 3 8B and Mistral 7B.
      rows: rows of a chip.
      published: tokens per second and chip.
      source: who published it.
      offloaded: whether what the backward pass starts from waits in host memory.
      layers: number of layers.
    """

    vocab: int
    rows: int
    published: float
    source: str
    offloaded: bool = False
    layers: int = 32


ANCHORS = {
    "llama3_8b_maxtext": Anchor(128256, 3, 7139, "tpu-recipes, trillium/Llama3.1-8B-MaxText/v6e-8"),
    "mistral_7b_maxtext": Anchor(
        32000, 6, 7777, "tpu-recipes, trillium/Mistral-7B-MaxText", offloaded=True
    ),
}
WIDTH, MLP, HEADS, KV_HEADS, HEAD = 4096, 14336, 32, 8, 128


def sizes(anchor: Anchor) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape of each parameter, and its axis that is sharded."""
    d, heads, kv = WIDTH, HEADS * HEAD, KV_HEADS * HEAD
    n = anchor.layers
    return {
        "embed": ((anchor.vocab, d), 1), "head": ((d, anchor.vocab), 0), "norm": ((d,), 0),
        "q": ((n, d, heads), 1), "k": ((n, d, kv), 1), "v": ((n, d, kv), 1),
        "o": ((n, heads, d), 2), "gate": ((n, d, MLP), 1), "up": ((n, d, MLP), 1),
        "down": ((n, MLP, d), 2), "norm_1": ((n, d), 1), "norm_2": ((n, d), 1),
    }  # fmt: skip


def attention(mesh: Mesh) -> Callable[[Array, Array, Array], Array]:
    """Causal splash attention of [B, H, T, C], each chip its own rows."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    names = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv",
             "block_kv_dkv_compute")  # fmt: skip
    blocks = kernel.BlockSizes(**dict.fromkeys(names, BLOCK), use_fused_bwd_kernel=True)
    mask = masks.MultiHeadMask([masks.CausalMask((TOKENS, TOKENS))] * HEADS)
    attend = kernel.make_splash_mha_single_device(mask, block_sizes=blocks)
    rows = PartitionSpec(FSDP)
    return shard_map(
        jax.vmap(attend), mesh=mesh, in_specs=(rows,) * 3, out_specs=rows, check_vma=False
    )


def rotated(x: Array) -> Array:
    """Rotary positions on [B, T, H, C]."""
    angle = jnp.arange(TOKENS)[:, None] * 5e5 ** (-jnp.arange(0, HEAD, 2) / HEAD)
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(jnp.bfloat16)


def normed(x: Array, scale: Array) -> Array:
    """RMS norm in float32."""
    y = x.astype(jnp.float32)
    return (y * jax.lax.rsqrt((y**2).mean(-1, keepdims=True) + 1e-5) * scale).astype(jnp.bfloat16)


def loss_fn(mesh: Mesh, offloaded: bool, params: Params, tokens: Array) -> Array:
    """Mean cross entropy of the next token."""
    policy = OFFLOADED if offloaded else None
    attend, b = attention(mesh), tokens.shape[0]
    constrain = jax.lax.with_sharding_constraint
    gathered = lambda w: constrain(w.astype(jnp.bfloat16), NamedSharding(mesh, PartitionSpec()))  # noqa: E731
    by_rows = lambda x, *axes: constrain(x, NamedSharding(mesh, PartitionSpec(*axes, FSDP)))  # noqa: E731

    def layer(x: Array, p: Params) -> tuple[Array, None]:
        x = checkpoint_name(x, "input")
        y = normed(x, p["norm_1"])
        q, k, v = (checkpoint_name(y @ gathered(p[n]), n) for n in "qkv")
        q, k, v = (z.reshape(b, TOKENS, -1, HEAD) for z in (q, k, v))
        q, k, v = (z.swapaxes(1, 2) for z in (rotated(q) * HEAD**-0.5, rotated(k), v))
        x += attend(q, k, v).swapaxes(1, 2).reshape(b, TOKENS, -1) @ gathered(p["o"])
        y = normed(x, p["norm_2"])
        y = jax.nn.silu(y @ gathered(p["gate"])) * (y @ gathered(p["up"]))
        return by_rows(x + y @ gathered(p["down"])), None

    def chunk(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        x, labels = inputs
        logits = by_rows((x @ head).astype(jnp.float32))
        label = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
        return total + (jax.nn.logsumexp(logits, -1) - label).sum(), None

    def chunks(x: Array) -> Array:
        x = x.reshape(b, CHUNKS, TOKENS // CHUNKS, *x.shape[2:]).swapaxes(0, 1)
        return by_rows(x, None)

    layers = {name: p for name, p in params.items() if name not in ("embed", "head", "norm")}
    x = by_rows(gathered(params["embed"])[tokens])
    x, _ = jax.lax.scan(jax.checkpoint(layer, prevent_cse=False, policy=policy), x, layers)
    x, labels, head = normed(x, params["norm"]), jnp.roll(tokens, -1, 1), gathered(params["head"])
    inputs = chunks(x), chunks(labels)
    return jax.lax.scan(jax.checkpoint(chunk), jnp.float32(0), inputs)[0] / tokens.size


def step(
    mesh: Mesh, offloaded: bool, params: Params, mu: Params, nu: Params, tokens: Array
) -> tuple[Params, ...]:
    """AdamW after clipping."""
    grads = jax.grad(partial(loss_fn, mesh, offloaded))(params, tokens)
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in grads.values()))
    grads = {n: g * jnp.minimum(1, 1 / norm) for n, g in grads.items()}
    mu = {n: 0.9 * mu[n] + 0.1 * g for n, g in grads.items()}
    nu = {n: 0.95 * nu[n] + 0.05 * g * g for n, g in grads.items()}
    change = {n: mu[n] / (jnp.sqrt(nu[n]) + 1e-8) + 0.1 * p for n, p in params.items()}
    return {n: p - 3e-5 * change[n] for n, p in params.items()}, mu, nu


def compiled_text(anchor: Anchor) -> str:
    """The program of a step, compiled for the target."""
    devices = topology(target(TARGET))
    mesh = Mesh(np.array(devices), (FSDP,))

    def shape(axes: tuple[int, ...], split: int, dtype: type = jnp.float32) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(*[None] * split, FSDP)
        return jax.ShapeDtypeStruct(axes, dtype, sharding=NamedSharding(mesh, spec))

    params = {name: shape(*size) for name, size in sizes(anchor).items()}
    tokens = shape((anchor.rows * len(devices), TOKENS), 0, jnp.int32)
    shardings = ({name: p.sharding for name, p in params.items()},) * 3
    run = partial(step, mesh, anchor.offloaded)
    train = jax.jit(run, donate_argnums=(0, 1, 2), out_shardings=shardings)
    return train.lower(params, params, params, tokens).compile(compiler_options=OPTIONS).as_text()


def predicted(anchor: Anchor, text: str) -> tuple[float, Timeline]:
    """Tokens per second and chip without a factor, and the timeline."""
    goal = target(TARGET)
    result = timeline(text, goal.accelerator, Links.of(goal.accelerator, topology(goal)))
    return anchor.rows * TOKENS / result.seconds, result


def product_share(name: str, shape: tuple[int, int, int], vmem_kib: str | None) -> float:
    """Share of the peak rate of a target at which `[m, k] @ [k, n]` in bfloat16 is predicted to
    run.
    """
    m, k, n = shape
    goal = target(name)
    mesh = Mesh(np.array(topology(goal)[:1]), ("x",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    x, y = (jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=everywhere) for s in ((m, k), (k, n)))
    options = {"xla_tpu_scoped_vmem_limit_kib": vmem_kib} if vmem_kib else {}
    text = jax.jit(jnp.matmul).lower(x, y).compile(compiler_options=options).as_text()
    return 2 * m * k * n / goal.accelerator.flops / timeline(text, goal.accelerator).seconds


def main() -> None:
    """Print published and predicted tokens per second, and what the seconds are spent on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ANCHORS), help=", ".join(ANCHORS))
    parser.add_argument("--folder", default=None, help="keep the programs here, and read them")
    parser.add_argument("--products", nargs="+", help="targets: bfloat16 products alone")
    parser.add_argument("--vmem_kib", help="on-chip memory that a product may use")
    args = parser.parse_args()
    for name in args.products or ():
        for shape in PRODUCTS:
            share = product_share(name, shape, args.vmem_kib)
            print(f"{name} {'x'.join(map(str, shape))}: {share:.2f} of the peak", flush=True)
    for name in () if args.products else args.names:
        anchor = ANCHORS[name]
        file = Path(args.folder or ".") / f"{name}.hlo"
        text = file.read_text() if args.folder and file.exists() else compiled_text(anchor)
        if args.folder:
            file.write_text(text)
        rate, result = predicted(anchor, text)
        print(f"{name}: published {anchor.published:.0f} tokens/s a chip ({anchor.source})")
        print(f"  predicted {rate:.0f}, factor for seconds {rate / anchor.published:.3f}")
        print("\n".join(lines(name, result, target(TARGET).accelerator)))


if __name__ == "__main__":
    main()
