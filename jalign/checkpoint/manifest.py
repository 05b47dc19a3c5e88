"""What a checkpoint says about itself, and whether it fits the state that is wanted.

Layout: RUN/checkpoints/STEP/state holds one flat dictionary of arrays, the leaves of
`core.TrainState` by dotted name: `params.layers.attn.q.kernel` [layers, in, out] (all layers
stacked), `params.embed.weight` [V, D], `opt_state.1.0.mu...`, `key`, `step`. Masters are float32;
adapters (`....lora.a`, `....lora.b`) stand without the frozen weights. RUN/checkpoints/STEP/meta is
JSON: identity, position in the data, evaluations, checksums. Orbax reads it without jalign:
`ocp.v1.load(STEP)`, `ocp.v1.load_checkpointables(STEP)` (state and meta), and in its older API
`StandardCheckpointer().restore(STEP/state)`, `PyTreeCheckpointer().restore(STEP/state)`, and
`CheckpointManager(RUN/checkpoints)` with `Composite(state=StandardRestore())`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import (
    AbstractMesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)
from jaxtyping import PyTree

from jalign.checkpoint.fingerprint import fingerprint
from jalign.parallel.paths import named_leaves

Facts = Mapping[str, Any]  # JSON-serializable
Meta = dict[str, Any]  # JSON, with the step, the leaves and a digest


def arrays(state: PyTree) -> dict[str, jax.Array]:
    """The leaves of a state by name.

    Raises:
      TypeError: a leaf is not a jax array.
    """
    leaves = named_leaves(state)
    for name, x in leaves.items():
        if not isinstance(x, jax.Array):
            raise TypeError(f"only jax arrays are saved; {name} is {type(x).__name__}")
    return leaves


def seal(step: int, leaves: dict[str, jax.Array], meta: Facts) -> Meta:
    """The meta as stored: with dtype, shape and checksum of every leaf, and its own digest."""
    checksums = fingerprint(leaves)
    facts = {name: [str(x.dtype), list(x.shape), checksums[name]] for name, x in leaves.items()}
    sealed = json.loads(json.dumps({**meta, "step": step, "leaves": facts}))
    return {**sealed, "digest": _digest(sealed)}


def is_intact(step: int, meta: object) -> bool:
    """Whether this is a meta as it was sealed, and of this step."""
    return isinstance(meta, dict) and meta.get("digest") == _digest(meta) and meta["step"] == step


def _digest(meta: Meta) -> str:
    text = json.dumps({k: v for k, v in meta.items() if k != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def placed(abstract_state: PyTree) -> dict[str, jax.ShapeDtypeStruct]:
    """The leaves of an abstract state by name, each with a sharding.

    A leaf without one, or on one device where others are on a mesh, is replicated over that mesh.

    Raises:
      ValueError: a sharding is over an AbstractMesh, which has no devices.
    """
    leaves = named_leaves(abstract_state)
    given: dict[str, Any] = {name: getattr(x, "sharding", None) for name, x in leaves.items()}
    named = [s for s in given.values() if isinstance(s, NamedSharding)]
    meshes = [s.mesh for s in named]
    if any(isinstance(mesh, AbstractMesh) for mesh in meshes):
        raise ValueError(
            "the abstract state needs shardings over real devices; some are over an AbstractMesh"
        )
    default: Sharding = (
        NamedSharding(meshes[0], PartitionSpec())
        if meshes
        else SingleDeviceSharding(jax.devices()[0])
    )

    def place(s: Sharding | None) -> Sharding:
        # A scalar made outside jit claims one device, where no jit could take it with the others.
        return default if s is None or (meshes and isinstance(s, SingleDeviceSharding)) else s

    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place(given[name]))
        for name, x in leaves.items()
    }


def check_fits(step: int, meta: Meta, wanted: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Compares the leaves of a checkpoint with those that are wanted.

    Raises:
      ValueError: names, shapes or dtypes differ; says which (Orbax would cast a dtype silently).
    """
    saved = meta["leaves"]
    current = {name: [str(x.dtype), list(x.shape)] for name, x in wanted.items()}
    wrong = [f"{name} is only in the checkpoint" for name in saved if name not in current]
    wrong += [f"{name} is not in the checkpoint" for name in current if name not in saved]
    wrong += [
        f"{name} is {saved[name][0]}{saved[name][1]} in the checkpoint and {dtype}{shape} here"
        for name, (dtype, shape) in current.items()
        if name in saved and saved[name][:2] != [dtype, shape]
    ]
    if wrong:
        more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(
            f"the checkpoint of step {step} does not fit: {'; '.join(wrong[:8])}{more}"
        )


def empty(x: jax.ShapeDtypeStruct) -> jax.Array:
    """An array without elements; Orbax does not store those."""
    return jax.jit(lambda: jnp.zeros(x.shape, x.dtype), out_shardings=x.sharding)()
