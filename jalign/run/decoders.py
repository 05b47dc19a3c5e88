"""Load a decoder and add its trainable parts: adapters, a scalar head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jalign.models import hub
from jalign.models.adapters import peft
from jalign.models.adapters.lora import adapters, add_lora, trainable_filter, without_dropout
from jalign.models.decoder import Decoder
from jalign.models.heads import ScalarHead, initial_kernel
from jalign.models.prune import first_layers
from jalign.options import RunOptions
from jalign.parallel.rules import place
from jalign.run.devices import compute_dtype, rules_of

if TYPE_CHECKING:
    from jax.typing import DTypeLike

Read = Callable[..., Decoder]
"""(path, **options of `hub.load`) -> the decoder."""

Place = Callable[..., Decoder]
"""(make, *decoders) -> make(*decoders), or its shapes in their shardings (`jalign.plan`)."""


def make_arrays(make: Callable[..., Decoder], *decoders: Decoder) -> Decoder:
    """The `Place` of a run: create the arrays."""
    return make(*decoders)


class Source(NamedTuple):
    """How decoders are read and where their arrays are put."""

    mesh: Mesh
    read: Read | None = None  # None: `hub.load`
    place: Place = make_arrays


class FrozenBase(NamedTuple):
    """A frozen base model and its identity: policy, critic and reward model with the same identity
    share one copy.
    """

    origin: tuple[Any, ...]
    decoder: Decoder

    def share(self) -> Decoder:
        """A new module that shares the arrays."""
        return nnx.merge(*nnx.split(self.decoder))


def read_decoder(
    options: RunOptions, source: Source, path: str, param_dtype: DTypeLike, **load_options: Any
) -> Decoder:
    """Load a stored model with the attention kernel and dtypes of the options."""
    c = options.model
    return (source.read or hub.load)(
        path,
        dtype=compute_dtype(c.dtype),
        param_dtype=param_dtype,
        mesh=source.mesh,
        rules=rules_of(options.mesh),
        remat=c.remat,
        attention=None if c.attention == "auto" else c.attention,
        **load_options,
    )


def trained_decoder(
    options: RunOptions,
    source: Source,
    path: str,
    *,
    heads: int,
    seed: int,
    lm_head: bool,
    shared_base: FrozenBase | None = None,
) -> tuple[Decoder, FrozenBase | None]:
    """A trainable model with its adapters, and the frozen base under them.

    Args:
      heads: outputs of the scalar head; 0 adds no head.
      seed: offset of the random keys; it distinguishes policy (0) and critic (2).
      lm_head: whether the unembedding is loaded.
      shared_base: reused instead of loading the same weights again.
    """
    c = options.model
    freezes = bool(c.lora or c.adapter)
    # what is trained is kept in float32: bfloat16 masters swallow small updates
    dtype = compute_dtype(c.dtype) if freezes else jnp.float32
    key = partial(_head_key, options.seed, seed)  # within `place`: a planned mesh runs nothing
    origin = base_origin(options, path, dtype)
    if freezes and shared_base and shared_base.origin == origin:
        decoder = shared_base.share()
        if heads:
            decoder = source.place(lambda d: with_head(d, heads, dtype, key()), decoder)
    else:
        load = {"value_head": heads, "lm_head": lm_head}
        decoder = source.place(lambda: _base(options, source, path, dtype, load | {"key": key()}))
    if not freezes:
        return decoder, None
    # a module of its own, because the head is taken from it; its arrays are not copied
    base = FrozenBase(origin, nnx.merge(*nnx.split(decoder)))
    base.decoder.value = None
    return source.place(lambda d: with_adapters(options, d, seed, source.mesh), decoder), base


def base_origin(options: RunOptions, path: str, dtype: DTypeLike) -> tuple[Any, ...]:
    """All that shapes the arrays of a frozen base or how they are computed: one difference, and
    nothing is shared.
    """
    c = options.model
    return (path, dtype, c.remat, c.attention, c.depth, c.quant, options.mesh)


def _head_key(seed: int, offset: int) -> jax.Array:
    key = jax.random.key(seed)
    return jax.random.fold_in(key, offset) if offset else key


def _base(
    options: RunOptions, source: Source, path: str, dtype: DTypeLike, load: dict[str, Any]
) -> Decoder:
    """Load the stored model, truncated and quantized as the options say."""
    c = options.model
    quant = None if c.quant == "none" else c.quant
    decoder = read_decoder(options, source, path, dtype, quant=quant, **load)
    return first_layers(decoder, c.depth) if c.depth else decoder


def with_head(decoder: Decoder, heads: int, dtype: DTypeLike, key: jax.Array) -> Decoder:
    """The decoder with a new scalar head."""
    # Rngs(0) is overwritten below: a role draws its head from a key of the run's own
    head = ScalarHead(decoder.spec.width, heads, param_dtype=dtype, rngs=nnx.Rngs(0))
    head.kernel[...] = initial_kernel(key, *head.kernel.shape).astype(dtype)
    decoder.value = head
    return decoder


def with_adapters(options: RunOptions, decoder: Decoder, seed: int, mesh: Mesh) -> Decoder:
    """Add new adapters (`model.lora`) or those of a folder (`model.adapter`).

    Raises:
      ValueError: both are set, or the folder has no adapters of linear layers.
    """
    c = options.model
    if c.adapter and c.lora:
        raise ValueError("model.adapter brings its own adapters: leave out model.lora")
    if c.adapter:
        decoder = peft.load_adapter(decoder, c.adapter)
        if not adapters(decoder):
            raise ValueError(
                f"model.adapter: {c.adapter} has nothing beside the linear layers that could be "
                "trained; merge it into its base with peft first"
            )
        if options.algorithm.needs_reference():  # policy and reference are equal at step 0
            decoder = without_dropout(decoder)
    elif c.lora:
        decoder = add_lora(
            decoder,
            rank=c.lora.rank,
            alpha=c.lora.alpha,
            dropout=c.lora.dropout,
            targets=c.lora.targets,
            rank_stabilized=c.lora.rank_stabilised,
            # + 1: `_head_key` folds in the even offsets, and no two draws may be the same
            rngs=nnx.Rngs(params=jax.random.fold_in(jax.random.key(options.seed), seed + 1)),
        )
    place(decoder, mesh, only=trainable_filter(decoder))
    return decoder
