"""Settings derived from the devices: mesh, compute dtype, micro-batch sizes."""

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
    return make_mesh(mesh.data, mesh.fsdp, mesh.tensor, mesh.context, mesh.expert)


def rules_of(mesh: MeshConfig) -> Rules | None:
    """Sharding rules that replace the defaults; None keeps the defaults."""
    return [(name, PartitionSpec(*axes)) for name, axes in mesh.rules.items()] or None


def compute_dtype(name: str) -> jnp.dtype:
    """The named dtype; "auto" is float32 on CPU and bfloat16 on accelerators."""
    if name == "auto":
        # on CPU a step in bfloat16 takes 1.6 times as long as in float32 (measured on a Zen 5)
        name = "float32" if devices.platform() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def cost_of(spec: Spec) -> Cost:
    """Cost of the slots of a batch for this model and device; batch shapes are chosen by it."""
    # on CPU a further bin costs little, on a TPU the latency of a program
    per_bin = 32.0 if devices.platform() == "cpu" else 128.0
    return Cost.of_model(spec.width, spec.depth, spec.vocab_size, bin=per_bin)


def usual_tokens(platform: str | None = None) -> int:
    """Tokens per micro-batch for this kind of device; on CPU they fit in its caches."""
    return 2048 if (platform or devices.platform()) == "cpu" else 8192


def usual_multiple() -> int:
    """Row lengths and token budgets are multiples of this number."""
    # a TPU's vector registers have 128 lanes; on CPU shorter rows only save padding
    return 64 if devices.platform() == "cpu" else 128


def max_tokens_for(examples: Examples) -> int:
    """Tokens per micro-batch for this kind of device, enough for the longest example."""
    usual = usual_tokens()
    prompt, response, _ = examples.lengths
    most = response.max(initial=0)  # a binary example gets another's response beside its own
    # + 1: the last position of a stream stays empty, slots without a token point to it
    flat = (prompt + response.sum(1)).max(initial=0) + most + 1
    padded = max(response.shape[1], 2) * (-(-(prompt.max(initial=0) + most) // 128) * 128)
    return max(usual, -(-int(max(flat, padded)) // 128) * 128)
