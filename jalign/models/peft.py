"""LoRA adapters in the folder format of Hugging Face PEFT.

Where a checkpoint fuses what we keep apart (Phi-3's qkv_proj, GPT-2's c_attn), the adapter of the
fused matrix holds ours side by side: A stacked, B block-diagonal, its rank their sum. Reading one
back gives each part the whole A and its own columns of B, which is the same function.

Letters: L layers, r rank.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jalign.models.decoder import Decoder
from jalign.models.families import family_of
from jalign.models.heads import ScalarHead
from jalign.models.linear import Linear
from jalign.models.lora import Lora, adapters, sites
from jalign.models.safetensors_io import write

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
SCORE = "score.weight"

# Fields that can make an adapter something else than W + s A B, and the values under which they do
# not.
PLAIN: dict[str, tuple] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
    "modules_to_save": (None, [], ["score"]),
    **dict.fromkeys(
        (
            *("use_dora", "lora_bias", "use_qalora", "use_bdlora", "arrow_config", "kasa_config"),
            *("layer_replication", "target_parameters", "trainable_token_indices"),
            *("alora_invocation_tokens", "velora_config", "monteclora_config", "megatron_config"),
        ),
        (None, False, [], {}),
    ),
}


class Site(NamedTuple):
    """A matrix of the checkpoint and the linear layers of ours that it holds, one after the other.

    Attributes:
      module: its name, with `{}` for the layer: "model.layers.{}.self_attn.q_proj".
      ours: paths such as `layers.attn.q`.
      conv: stored [in, out] (GPT-2's Conv1D).
    """

    module: str
    ours: tuple[str, ...]
    conv: bool

    @property
    def short(self) -> str:
        """What follows the number of the layer."""
        return self.module.split("{}.")[-1]


def save_adapter(model: Decoder, folder: str | os.PathLike, base_name: str) -> None:
    """Write the adapters, and the scalar head if there is one, for `PeftModel.from_pretrained`.

    Args:
      model: with adapters; made by `hub.load`, or by `hub.init` from a config.
      folder: created if it is not there.
      base_name: hub name or folder of the model the adapters belong to.

    Raises:
      ValueError: the model has no adapters, or no config that names its family.
    """
    ours = adapters(model)
    if not ours:
        raise ValueError("the model has no LoRA adapters to save")
    table = [site for site in _table(model) if any(path in ours for path in site.ours)]
    tensors, ranks, scales = {}, {}, {}
    for site in table:
        parts = [(path, ours.get(path)) for path in site.ours]
        a, b, scale = _side_by_side(parts, sites(model))
        ranks[site.short], scales[site.short] = a.shape[-1], scale
        for i, (a_i, b_i) in enumerate(zip(a, b, strict=True)):
            name = PREFIX + site.module.format(i)
            tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a_i.T)
            tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b_i.T)
    if model.value is not None:
        tensors[PREFIX + SCORE] = np.ascontiguousarray(_on_host(model.value.kernel[...]).T)
    if jax.process_index() > 0:  # the others only help to collect what is spread over hosts
        return
    one = next(iter(ours.values()))
    config = _config(one, table, ranks, scales) | {
        "target_modules": _targets(table, _table(model)),
        "base_model_name_or_path": base_name,
        "task_type": "CAUSAL_LM" if model.value is None else "SEQ_CLS",
        "modules_to_save": None if model.value is None else ["score"],
    }
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / WEIGHTS, tensors)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_adapter(model: Decoder, folder: str | os.PathLike) -> Decoder:
    """A copy of `model` (arrays shared) with the adapters of a PEFT folder, to use or to train on.

    Args:
      model: the base model, without adapters; with a scalar head where the adapter has one.
      folder: holds adapter_config.json and adapter_model.safetensors.

    Raises:
      ValueError: not a plain LoRA (every field in the way is named), tensors that do not fit the
        model, layers without an adapter, values that are not finite, or a damaged file.
    """
    folder = Path(folder).expanduser()
    if adapters(model):
        raise ValueError("the model carries LoRA adapters already; merge them first")
    config, tensors = _read(folder)
    model = nnx.clone(model)
    for site in _table(model):
        found = [_pop(tensors, site, i) for i in range(model.spec.depth)]
        if not any(found):
            continue
        if not all(found):
            raise ValueError(f"{folder}: only some layers have an adapter for {site.short}")
        a, b = (np.stack(side) for side in zip(*found, strict=True))
        _attach(model, site, a, b, config)
    if model.value is not None and PREFIX + SCORE in tensors:
        _read_score(model.value, tensors.pop(PREFIX + SCORE), folder)
    if tensors:
        hint = "; load the base with value_head=True" if PREFIX + SCORE in tensors else ""
        raise ValueError(f"{folder}: no place for {', '.join(sorted(tensors))}{hint}")
    if not adapters(model):
        raise ValueError(f"{folder}: {WEIGHTS} holds no adapters")
    return model


def _table(model: Decoder) -> list[Site]:
    """The matrices of the model's checkpoint that can carry an adapter."""
    if model.source is None:
        raise ValueError("a model made from a Spec alone has no names for its layers: load it")
    linears = sites(model)
    rows = family_of(json.loads(model.source)).rows
    return [
        Site(row.theirs.removesuffix(".weight"), paths, not row.transposed)
        for row in rows
        if (paths := tuple(path.removesuffix(".kernel") for path in row.ours))[0] in linears
        and row.ours[0].endswith(".kernel")
    ]


def _side_by_side(
    parts: list[tuple[str, Lora | None]], linears: Mapping[str, Linear]
) -> tuple[np.ndarray, np.ndarray, float]:
    """A [L, in, R], B [L, R, out] and scale of one adapter that does what all parts do."""
    scale = next(lora.scale for _, lora in parts if lora is not None)
    present = [lora for _, lora in parts if lora is not None]
    a = np.concatenate([_on_host(lora.a[...]) for lora in present], axis=-1)
    widths = [linears[path].kernel.shape[-1] for path, _ in parts]
    b = np.zeros((len(a), a.shape[-1], sum(widths)), np.float32)
    row, column = 0, 0
    for (_, lora), width in zip(parts, widths, strict=True):
        if lora is not None:
            block = _on_host(lora.b[...]) * (lora.scale / scale)
            b[:, row : row + lora.rank, column : column + width] = block
            row += lora.rank
        column += width
    return a.astype(np.float32), b, scale


def _config(
    one: Lora, table: list[Site], ranks: dict[str, int], scales: dict[str, float]
) -> dict[str, Any]:
    """adapter_config.json without the names: the usual rank and alpha, and who differs."""
    alphas = {
        name: scale * (math.sqrt(ranks[name]) if one.rank_stabilised else ranks[name])
        for name, scale in scales.items()
    }
    rank, alpha = (Counter(x.values()).most_common(1)[0][0] for x in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: x for name, x in ranks.items() if x != rank},
        "alpha_pattern": {name: x for name, x in alphas.items() if x != alpha},
        "lora_dropout": one.dropout,
        "use_rslora": one.rank_stabilised,
        "fan_in_fan_out": any(site.conv for site in table),
        "bias": "none",
        "init_lora_weights": True,
    }


def _targets(chosen: list[Site], table: list[Site]) -> list[str]:
    """The last part of every chosen module's name, or more where that would match others too."""
    last = lambda site: site.short.split(".")[-1]  # noqa: E731
    others = {last(site) for site in table if site not in chosen}
    return sorted({site.short if last(site) in others else last(site) for site in chosen})


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not an adapter in PEFT's format: it has no {name}")
    try:
        config = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as e:
        raise ValueError(f"{folder / WEIGHTS} is truncated or damaged: {e}") from None
    except ValueError as e:
        raise ValueError(f"{folder / CONFIG} is not JSON: {e}") from None
    problems = [
        f"{field}={config[field]!r}"
        for field, plain in PLAIN.items()
        if field in config and config[field] not in plain
    ]
    if problems:
        raise ValueError(f"{folder} is not a plain LoRA: {', '.join(problems)} is not supported")
    broken = sorted(name for name, x in tensors.items() if not np.isfinite(x).all())
    if broken:
        raise ValueError(f"{folder}: weights that are not finite: {', '.join(broken)}")
    return config, tensors


def _pop(
    tensors: dict[str, np.ndarray], site: Site, layer: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """A layer's A [in, r] and B [r, out], or None."""
    names = [f"{PREFIX}{site.module.format(layer)}.lora_{x}.weight" for x in "AB"]
    if not all(name in tensors for name in names):
        return None
    a, b = (tensors.pop(name).astype(np.float32).T for name in names)
    return a, b


def _attach(model: Decoder, site: Site, a: np.ndarray, b: np.ndarray, config: dict) -> None:
    linears, column = sites(model), 0
    fan_in = linears[site.ours[0]].kernel.shape[1]
    widths = [linears[path].kernel.shape[2] for path in site.ours]
    if a.shape[1] != fan_in or b.shape[2] != sum(widths) or a.shape[2] != b.shape[1]:
        raise ValueError(
            f"the adapter of {site.short} is {a.shape[1]} x {a.shape[2]} and {b.shape[1]} x "
            f"{b.shape[2]}, but the matrix is {fan_in} x {sum(widths)}: another base model?"
        )
    options = {
        "alpha": _alpha(config, site, model.spec.depth),
        "dropout": float(config.get("lora_dropout") or 0.0),
        "rank_stabilised": bool(config.get("use_rslora")),
    }
    for path, width in zip(site.ours, widths, strict=True):
        part = jnp.asarray(b[:, :, column : column + width])
        linears[path].lora = Lora(jnp.asarray(a), part, **options)
        column += width


def _alpha(config: dict, site: Site, depth: int) -> float:
    """lora_alpha, or what alpha_pattern says, which must be the same for all layers."""

    def of(name: str) -> Iterator[float]:
        for pattern, alpha in (config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", name):
                yield alpha
        yield config["lora_alpha"]

    found = {float(next(of(site.module.format(i)))) for i in range(depth)}
    if len(found) > 1:
        raise ValueError(f"alpha of {site.short} differs between layers: {sorted(found)}")
    return found.pop()


def _read_score(head: ScalarHead, score: np.ndarray, folder: Path) -> None:
    kernel = head.kernel
    if score.T.shape != kernel.shape:
        raise ValueError(f"{folder}: {SCORE} is {score.shape}, should be {kernel.shape[::-1]}")
    kernel[...] = jnp.asarray(score.T, kernel.dtype)


def _on_host(x: jax.Array) -> np.ndarray:
    if x.is_fully_addressable:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
