"""Embedding and unembedding in a PEFT adapter: LoRA on them, or replaced tables.

They are merged into the model; only adapters of linear layers continue training. PEFT wraps one of
two tied tables and leaves the other unchanged: such a model becomes untied.

Letters: V vocabulary, D width, r rank.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from safetensors import safe_open

from jalign.models.decoder import Decoder
from jalign.models.families import family_of
from jalign.models.linear import Linear

PREFIX = "base_model.model."
HEAD = "lm_head"
EMBED, UNEMBED = "embed", "lm_head"  # as in `Decoder.replaced`

ENDS = ("modules_to_save.weight", "weight", "base_layer.weight")  # the first that is there counts

Tensors = dict[str, np.ndarray]


def module_names(model: Decoder) -> dict[str, str]:
    """The checkpoint's names of the two tables, such as `model.embed_tokens` and `lm_head`."""
    assert model.source is not None
    rows = family_of(json.loads(model.source)).rows
    (embed,) = [row.theirs for row in rows if row.ours == ("embed.weight",)]
    return {EMBED: embed.removesuffix(".weight"), UNEMBED: HEAD}


def replace_tables(
    model: Decoder,
    tensors: Tensors,
    scale_of: Callable[[str, int], float],
    token_indices: Mapping[str, Sequence[int]],
) -> None:
    """Move the tables and their adapters from `tensors` into the model.

    Args:
      model: changed in place.
      scale_of: (module, rank) -> s of W + s A B.
      token_indices: last part of a module's name -> the tokens that have other embeddings; of two
        tied tables in both.

    Raises:
      ValueError: tables of different sizes, or of another width than the model's.
    """
    names = module_names(model)
    tied = model.spec.tied
    if not tied and model.lm_head is None:
        names = {EMBED: names[EMBED]}  # a scalar model: an unembedding has no place
    current = {EMBED: model.embed.weight[...]}
    if UNEMBED in names:
        current[UNEMBED] = current[EMBED] if tied else model.lm_head.kernel[...].T
    bases = {table: _base(tensors, name) for table, name in names.items()}
    embed, head = bases[EMBED], bases.get(UNEMBED)
    if tied and head is None and embed is not None and len(embed) != len(current[EMBED]):
        bases[UNEMBED] = embed  # resized, both
    updated: dict[str, jax.Array] = {}
    for table, name in names.items():
        base = current[table] if bases[table] is None else jnp.asarray(bases[table])
        delta = _delta(tensors, name, scale_of)
        rows = tensors.pop(f"{PREFIX}{name}.token_adapter.trainable_tokens_delta", None)
        if rows is not None:
            base = base.at[np.asarray(token_indices[name.split(".")[-1]])].set(rows)
            if tied and table == EMBED:
                bases[UNEMBED] = base
        elif bases[table] is None and delta is None:
            updated[table] = current[table]
            continue
        value = base.astype(jnp.float32)
        if delta is not None:
            if delta.shape != value.shape:
                raise ValueError(f"the adapter of {name} is {delta.shape}, not {value.shape}")
            value = value + delta
        updated[table] = value.astype(current[table].dtype)
    _put(model, updated, current, names)


def tables_to_save(model: Decoder) -> dict[str, jax.Array]:
    """The tables that differ from the base, by their names in the checkpoint."""
    names, tables = module_names(model), {}
    for table in model.replaced:
        if table == EMBED or model.spec.tied:
            x = model.embed.weight[...]
        else:
            assert model.lm_head is not None
            x = model.lm_head.kernel[...].T
        tables[names[table]] = x
    return tables


def vocabulary_of(folder: str | os.PathLike) -> int | None:
    """V of an adapter that replaces the embedding; None for any other."""
    file = Path(folder).expanduser() / "adapter_model.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, framework="np") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is not a dict
            module, _, end = name.partition("embed_tokens." if "embed_tokens." in name else "wte.")
            if module.startswith(PREFIX) and end in ENDS:
                return opened.get_slice(name).get_shape()[0]
    return None


def _base(tensors: Tensors, name: str) -> np.ndarray | None:
    """The adapter's replacement of a table, or None."""
    tables = [tensors.pop(f"{PREFIX}{name}.{end}", None) for end in ENDS]
    # The base's own table, which PEFT may store beside its replacement.
    tensors.pop(f"{PREFIX}{name}.original_module.weight", None)
    return next((x for x in tables if x is not None), None)


def _delta(tensors: Tensors, name: str, scale_of: Callable[[str, int], float]) -> np.ndarray | None:
    """s A B of a table [V, D], in float32."""
    for a_name, b_name, looked_up in (
        ("lora_embedding_A", "lora_embedding_B", True),
        ("lora_A.weight", "lora_B.weight", False),
    ):
        a, b = (f"{PREFIX}{name}.{x}" for x in (a_name, b_name))
        if a in tensors and b in tensors:
            a, b = (tensors.pop(x).astype(np.float32) for x in (a, b))
            product = (b @ a).T if looked_up else b @ a  # [D, r] [r, V], or [V, r] [r, D]
            return scale_of(name, len(a)) * product
    return None


def _put(
    model: Decoder,
    updated: dict[str, jax.Array],
    current: dict[str, jax.Array],
    names: dict[str, str],
) -> None:
    sizes = {names[table]: x.shape for table, x in updated.items()}
    if len(set(sizes.values())) > 1 or updated[EMBED].shape[1] != model.spec.width:
        raise ValueError(
            f"the tables of the adapter do not fit each other or the model, whose width is "
            f"{model.spec.width}: {', '.join(f'{n} is {list(s)}' for n, s in sizes.items())}; "
            "where the vocabulary was resized, start from a base with embeddings of that size"
        )
    changed = tuple(
        t for t, x in updated.items() if x is not current[t] and not _equal(x, current[t])
    )
    if not changed:
        return
    spec, config = model.spec, json.loads(model.source or "{}")
    sharding = model.embed.weight[...].sharding
    model.embed.weight = nnx.Param(_place_like(updated[EMBED], sharding, transposed=False))
    if UNEMBED in updated:
        if spec.tied and not _equal(updated[EMBED], updated[UNEMBED]):
            spec = dataclasses.replace(spec, tied=False)
            config["tie_word_embeddings"] = False
            types = {"dtype": model.dtype, "param_dtype": updated[UNEMBED].dtype}
            model.lm_head = nnx.data(
                nnx.eval_shape(lambda: Linear(1, 1, **types, rngs=nnx.Rngs(0)))
            )
        if not spec.tied and (UNEMBED in changed or model.spec.tied):
            model.lm_head.kernel = nnx.Param(
                _place_like(updated[UNEMBED].T, sharding, transposed=True)
            )
    config["vocab_size"] = updated[EMBED].shape[0]
    model.spec = dataclasses.replace(spec, vocab_size=updated[EMBED].shape[0])
    model.source = json.dumps(config)
    model.replaced = tuple(sorted({*model.replaced, *changed}))


def _equal(a: jax.Array, b: jax.Array) -> bool:
    return a.shape == b.shape and bool(jnp.array_equal(a, b))


def _place_like(x: jax.Array, sharding: jax.sharding.Sharding, *, transposed: bool) -> jax.Array:
    """Place `x` in the sharding of the embedding, or of its transpose."""
    if isinstance(sharding, NamedSharding) and transposed:
        rows, columns = (*sharding.spec, None, None)[:2]
        sharding = NamedSharding(sharding.mesh, PartitionSpec(columns, rows))
    return jax.device_put(x, sharding)
