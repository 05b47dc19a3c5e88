"""What follows from the devices: the mesh, the compute type, sizes of micro-batches."""

import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jalign.data.batch_spec import Cost
from jalign.data.examples import Examples
from jalign.kernels import devices
from jalign.models.spec import Spec
from jalign.options import MeshConfig
from jalign.parallel.mesh import make_mesh
from jalign.parallel.rules import Rules


def mesh_of(mesh: MeshConfig) -> Mesh:
    """The mesh over all devices."""
    return make_mesh(mesh.data, mesh.fsdp, mesh.tensor, mesh.context)


def rules_of(mesh: MeshConfig) -> Rules | None:
    """Sharding rules that replace the default ones; None keeps those."""
    return [(name, PartitionSpec(*axes)) for name, axes in mesh.rules.items()] or None


def compute_dtype(name: str) -> jnp.dtype:
    """float32 on CPU, bfloat16 on accelerators, unless named."""
    if name == "auto":
        # on CPU a step in bfloat16 takes 1.6 times as long as in float32 (measured on a Zen 5)
        name = "float32" if devices.platform() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def cost_of(spec: Spec) -> Cost:
    """Cost of a slot in a batch of this model on this kind of device; batch shapes follow it."""
    # a CPU pays little per bin, a TPU the latency of a whole program
    per_bin = 32.0 if devices.platform() == "cpu" else 128.0
    return Cost.of_model(spec.width, spec.depth, spec.vocab_size, bin=per_bin)


def usual_tokens(platform: str | None = None) -> int:
    """Tokens of a micro-batch that suit this kind of device: on CPU they stay in its caches."""
    return 2048 if (platform or devices.platform()) == "cpu" else 8192


def usual_multiple() -> int:
    """Row lengths and token budgets are multiples of it."""
    # a TPU's vector registers have 128 lanes; on CPU shorter rows only save padding
    return 64 if devices.platform() == "cpu" else 128


def max_tokens_for(examples: Examples) -> int:
    """Tokens of a micro-batch that suit this kind of device, and hold the longest example."""
    usual = usual_tokens()
    prompt, response, _ = examples.lengths
    most = response.max(initial=0)  # a binary example gets another's response beside its own
    # + 1: the last position of a stream stays empty, slots without a token point to it
    flat = (prompt + response.sum(1)).max(initial=0) + most + 1
    padded = max(response.shape[1], 2) * (-(-(prompt.max(initial=0) + most) // 128) * 128)
    return max(usual, -(-int(max(flat, padded)) // 128) * 128)
