"""LoRA adapters in the folder format of Hugging Face PEFT.

Some checkpoints fuse matrices that are separate here (Phi-3's qkv_proj, GPT-2's c_attn). The
adapter of a fused matrix concatenates ours: A stacked, B block-diagonal, its rank their sum. When
it is read back, each matrix gets all of A and its own columns of B, which is the same function.

Letters: L layers, r rank.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jalign.models.adapters import peft_config
from jalign.models.adapters.lora import Lora, adapters
from jalign.models.adapters.peft_config import CONFIG, WEIGHTS
from jalign.models.adapters.peft_tables import PREFIX, replace_tables, tables_to_save
from jalign.models.decoder import Decoder
from jalign.models.families import family_of
from jalign.models.heads import ScalarHead
from jalign.models.keys import layers_of
from jalign.models.linear import Linear, linear_layers
from jalign.models.safetensors_io import write
from jalign.parallel.hosts import gather

SCORE = "score.weight"


class FusedMatrix(NamedTuple):
    """A matrix of the checkpoint and the linear layers of ours that it holds, one after the other.

    Attributes:
      module: its name, with `{}` for the layer: "model.layers.{}.self_attn.q_proj".
      ours: paths such as `layers.attn.q`.
      conv: stored [in, out] (GPT-2's Conv1D).
      layers: the numbers of the layers that have it.
    """

    module: str
    paths: tuple[str, ...]
    conv: bool
    layers: tuple[int, ...]

    @property
    def short(self) -> str:
        """What follows the number of the layer."""
        return self.module.split("{}.")[-1]

    @property
    def names(self) -> list[str]:
        """Its name in each layer."""
        return [self.module.format(i) for i in self.layers]


def save_adapter(model: Decoder, folder: str | os.PathLike, base_name: str) -> None:
    """Write the adapters, and the scalar head if there is one, for `PeftModel.from_pretrained`.

    Args:
      model: with adapters; made by `hub.load`, or by `hub.init` from a config.
      folder: created if it is not there.
      base_name: hub name or folder of the model the adapters belong to.

    Raises:
      ValueError: the model has no adapters, or no config that names its family.
    """
    loras = adapters(model)
    if not loras:
        raise ValueError("the model has no LoRA adapters to save")
    table = [matrix for matrix in _table(model) if any(path in loras for path in matrix.paths)]
    if rest := sorted(loras.keys() - {path for matrix in table for path in matrix.paths}):
        raise ValueError(
            f"adapters of experts ({', '.join(rest)}) are not written in PEFT's format: export "
            "the merged model"
        )
    tensors, ranks, scales, partly, modules = {}, {}, {}, [], []
    for matrix in table:
        parts = [(path, loras.get(path)) for path in matrix.paths]
        a, b, scale = _side_by_side(parts, linear_layers(model))
        # Ranks that `load_adapter` filled up with zeros are written as they were.
        used = [(x != 0).any(0) | (y != 0).any(1) for x, y in zip(a, b, strict=True)]
        used = used if np.any(used) else [u | True for u in used]
        counts = [int(u.sum()) for u in used]
        for i, (name, u) in enumerate(zip(matrix.names, used, strict=True)):
            if u.any():
                tensors[f"{PREFIX}{name}.lora_A.weight"] = np.ascontiguousarray(a[i][:, u].T)
                tensors[f"{PREFIX}{name}.lora_B.weight"] = np.ascontiguousarray(b[i][u].T)
        if len(set(counts)) == 1:  # all layers agree
            ranks[matrix.short], scales[matrix.short] = counts[0], scale
            continue
        some = {name: n for name, n in zip(matrix.names, counts, strict=True) if n}
        ranks, scales = ranks | some, scales | dict.fromkeys(some, scale)
        if len(some) < len(counts):
            partly, modules = [*partly, matrix], [*modules, *some]
    if model.value is not None:
        tensors[PREFIX + SCORE] = np.ascontiguousarray(gather(model.value.kernel[...]).T)
    tables = {name: np.ascontiguousarray(gather(x)) for name, x in tables_to_save(model).items()}
    tensors |= {f"{PREFIX}{name}.weight": x for name, x in tables.items()}
    replaced = [name.split(".")[-1] for name in tables]
    to_save = ["score"] * (model.value is not None) + replaced
    if jax.process_index() > 0:  # other processes only take part in the gathers
        return
    lora = next(iter(loras.values()))
    config = _config(lora, table, ranks, scales) | {
        "target_modules": _targets([s for s in table if s not in partly], _table(model)) + modules,
        "base_model_name_or_path": base_name,
        "task_type": "CAUSAL_LM" if model.value is None else "SEQ_CLS",
        "modules_to_save": to_save or None,
    }
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / WEIGHTS, tensors)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_adapter(model: Decoder, folder: str | os.PathLike) -> Decoder:
    """A copy of `model` (arrays shared) with the adapters of a PEFT folder, to use or to train on.

    If layers have adapters of different ranks or scales, or none, smaller ones are padded with
    zeros, which training does not change. Adapters of the embedding or unembedding are merged into
    them (`jalign.models.adapters.peft_tables`) and not trained.

    Args:
      model: the base model, without adapters; with a scalar head where the adapter has one.
      folder: holds adapter_config.json and adapter_model.safetensors.

    Raises:
      ValueError: not a plain LoRA (every field in the way is named), tensors that do not fit the
        model, a layer without an adapter that its config asks for, values that are not finite, or a
        damaged file.
    """
    folder = Path(folder).expanduser()
    if adapters(model):
        raise ValueError("the model carries LoRA adapters already; merge them first")
    config, tensors = peft_config.read(folder)
    model = nnx.clone(model)
    for matrix in _table(model):
        names = matrix.names
        layers = [_pop(tensors, name) for name in names]
        if not any(layers):
            continue
        missing = [n for n, x in zip(names, layers, strict=True) if x is None]
        if any(peft_config.targeted(config, name) for name in missing):
            raise ValueError(f"{folder}: only some layers have an adapter for {matrix.short}")
        _attach(model, matrix, *_stacked(names, layers, config), config)
    scale_of, tokens = partial(peft_config.scale, config), peft_config.token_indices(config)
    replace_tables(model, tensors, scale_of, tokens)
    if model.value is not None and PREFIX + SCORE in tensors:
        _read_score(model.value, tensors.pop(PREFIX + SCORE), folder)
    if tensors:
        hint = "; load the base with value_head=True" if PREFIX + SCORE in tensors else ""
        raise ValueError(f"{folder}: no place for {', '.join(sorted(tensors))}{hint}")
    if not adapters(model) and not model.replaced:
        raise ValueError(f"{folder}: {WEIGHTS} holds no adapters")
    return model


def base_of(folder: str | os.PathLike) -> str:
    """The base model that an adapter names.

    Raises:
      ValueError: it names none.
    """
    file = Path(folder) / CONFIG
    try:
        base = json.loads(file.read_text()).get("base_model_name_or_path")
    except ValueError as e:
        raise ValueError(f"{file} is not JSON: {e}") from None
    if not base:
        raise ValueError(f"{file} names no base model (base_model_name_or_path)")
    return base


def _table(model: Decoder) -> list[FusedMatrix]:
    """The matrices of the model's checkpoint that can carry an adapter."""
    if model.source is None:
        raise ValueError("a model made from a Spec alone has no names for its layers: load it")
    linears = linear_layers(model)
    rows = family_of(json.loads(model.source)).rows
    return [
        FusedMatrix(
            row.theirs.removesuffix(".weight"),
            paths,
            not row.transposed,
            layers_of(model.spec, paths[0]),
        )
        for row in rows
        if (paths := tuple(path.removesuffix(".kernel") for path in row.ours))[0] in linears
        and row.ours[0].endswith(".kernel")
    ]


def _side_by_side(
    parts: list[tuple[str, Lora | None]], linears: Mapping[str, Linear]
) -> tuple[np.ndarray, np.ndarray, float]:
    """A [L, in, R], B [L, R, out] and scale of one adapter equal to all of these side by side."""
    scale = next(lora.scale for _, lora in parts if lora is not None)
    present = [lora for _, lora in parts if lora is not None]
    a = np.concatenate([gather(lora.a[...]) for lora in present], axis=-1)
    widths = [linears[path].kernel.shape[-1] for path, _ in parts]
    b = np.zeros((len(a), a.shape[-1], sum(widths)), np.float32)
    row, column = 0, 0
    for (_, lora), width in zip(parts, widths, strict=True):
        if lora is not None:
            # PEFT has one scale per module, so a part's own goes into its B.
            block = gather(lora.b[...]) * (lora.scale / scale)
            b[:, row : row + lora.rank, column : column + width] = block
            row += lora.rank
        column += width
    return a.astype(np.float32), b, scale


def _config(
    lora: Lora, table: list[FusedMatrix], ranks: dict[str, int], scales: dict[str, float]
) -> dict[str, Any]:
    """adapter_config.json without the names: the common rank and alpha, and the exceptions."""
    alphas = {
        name: scale * (math.sqrt(ranks[name]) if lora.rank_stabilized else ranks[name])
        for name, scale in scales.items()
    }
    # PEFT's patterns name exceptions: the commonest value becomes the default.
    rank, alpha = (Counter(x.values()).most_common(1)[0][0] for x in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: x for name, x in ranks.items() if x != rank},
        "alpha_pattern": {name: x for name, x in alphas.items() if x != alpha},
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilized,
        "fan_in_fan_out": any(matrix.conv for matrix in table),
        "bias": "none",
        "init_lora_weights": True,
    }


def _targets(with_adapter: list[FusedMatrix], table: list[FusedMatrix]) -> list[str]:
    """The last component of every selected module's name, or more if it would match others too."""
    last = lambda matrix: matrix.short.split(".")[-1]  # noqa: E731
    others = {last(matrix) for matrix in table if matrix not in with_adapter}
    return sorted(
        {matrix.short if last(matrix) in others else last(matrix) for matrix in with_adapter}
    )


def _pop(tensors: dict[str, np.ndarray], module: str) -> tuple[np.ndarray, np.ndarray] | None:
    """A layer's A [in, r] and B [r, out], or None."""
    names = [f"{PREFIX}{module}.lora_{x}.weight" for x in "AB"]
    if not all(name in tensors for name in names):
        return None
    a, b = (tensors.pop(name).astype(np.float32).T for name in names)
    return a, b


def _stacked(
    names: list[str], layers: list[tuple[np.ndarray, np.ndarray] | None], config: dict
) -> tuple[np.ndarray, np.ndarray, float]:
    """A [L, in, r], B [L, r, out] and alpha of what layers have, one rank and one scale for all.

    Smaller ranks are padded with zeros, which training does not change, and a layer's own scale
    goes into B.
    """
    present = [(n, x) for n, x in zip(names, layers, strict=True) if x is not None]
    rank = max(a.shape[1] for _, (a, _) in present)
    scales = {n: peft_config.scale(config, n, a.shape[1]) for n, (a, _) in present}
    alphas = {peft_config.alpha(config, n) for n in scales}
    shapes = {(a.shape, b.shape) for _, (a, b) in present}
    if len(shapes) == len(alphas) == 1 and len(present) == len(names):
        a, b = (np.stack(side) for side in zip(*(x for _, x in present), strict=True))
        return a, b, alphas.pop()
    scale = Counter(scales.values()).most_common(1)[0][0]
    one_a, one_b = present[0][1]
    a = np.zeros((len(names), len(one_a), rank), np.float32)
    b = np.zeros((len(names), rank, one_b.shape[1]), np.float32)
    for i, pair in enumerate(layers):
        if pair is not None:
            if (len(pair[0]), pair[1].shape[1]) != (len(one_a), one_b.shape[1]):
                raise ValueError(f"the adapter of {names[i]} has another shape than other layers'")
            r = pair[0].shape[1]
            a[i, :, :r], b[i, :r] = pair[0], pair[1] * (scales[names[i]] / scale)
    return a, b, scale * peft_config.norm(config, rank)


def _attach(
    model: Decoder, matrix: FusedMatrix, a: np.ndarray, b: np.ndarray, alpha: float, config: dict
) -> None:
    linears, column = linear_layers(model), 0
    fan_in = linears[matrix.paths[0]].kernel.shape[1]
    widths = [linears[path].kernel.shape[2] for path in matrix.paths]
    if a.shape[1] != fan_in or b.shape[2] != sum(widths) or a.shape[2] != b.shape[1]:
        raise ValueError(
            f"the adapter of {matrix.short} is {a.shape[1]} x {a.shape[2]} and {b.shape[1]} x "
            f"{b.shape[2]}, but the matrix is {fan_in} x {sum(widths)}: another base model?"
        )
    options = {
        "alpha": alpha,
        "dropout": float(config.get("lora_dropout") or 0.0),
        "rank_stabilized": bool(config.get("use_rslora")),
    }
    for path, width in zip(matrix.paths, widths, strict=True):
        part = jnp.asarray(b[:, :, column : column + width])
        linears[path].lora = Lora(jnp.asarray(a), part, **options)
        column += width


def _read_score(head: ScalarHead, score: np.ndarray, folder: Path) -> None:
    kernel = head.kernel
    if score.T.shape != kernel.shape:
        raise ValueError(f"{folder}: {SCORE} is {score.shape}, should be {kernel.shape[::-1]}")
    kernel[...] = jnp.asarray(score.T, kernel.dtype)
