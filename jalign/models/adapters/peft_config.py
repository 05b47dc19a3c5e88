"""adapter_config.json: refuse what is not a plain LoRA, and read each module's settings."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLE = "adapter_model.bin"

# Fields that can make an adapter something else than W + s A B, and the values under which they do
# not.
PLAIN: dict[str, tuple] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # Those that leave the base as it is; pissa, olora and loftq change it.
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
    **dict.fromkeys(
        (
            *("use_dora", "lora_bias", "use_qalora", "use_bdlora", "arrow_config", "kasa_config"),
            *("layer_replication", "target_parameters"),
            *("alora_invocation_tokens", "velora_config", "monteclora_config", "megatron_config"),
        ),
        (None, False, [], {}),
    ),
}


SAVED = ("score", "classifier", "lm_head", "embed_tokens", "wte")


def read(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    if not (folder / WEIGHTS).is_file() and (folder / PICKLE).is_file():
        raise ValueError(
            f"{folder} holds its adapter as {PICKLE}, which can run code when it is read and is "
            "refused: load it with peft once and save it, which writes safetensors"
        )
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
    given = config.get("modules_to_save") or ()
    others = {name for name in given if name.split(".")[-1] not in SAVED}
    problems += [f"modules_to_save={sorted(others)!r}"] if others else []
    if problems:
        raise ValueError(f"{folder} is not a plain LoRA: {', '.join(problems)} is not supported")
    broken = sorted(name for name, x in tensors.items() if not np.isfinite(x).all())
    if broken:
        raise ValueError(f"{folder}: weights that are not finite: {', '.join(broken)}")
    return config, tensors


def token_indices(config: dict) -> dict[str, list[int]]:
    """Tokens whose embeddings alone were trained: last part of a module's name -> ids."""
    given = config.get("trainable_token_indices") or {}
    if not isinstance(given, dict):
        return {"embed_tokens": given, "wte": given}
    return {name.split(".")[-1]: ids for name, ids in given.items()}


def norm(config: dict, rank: int) -> float:
    return math.sqrt(rank) if config.get("use_rslora") else float(rank)


def scale(config: dict, name: str, rank: int) -> float:
    """s of W + s A B of a module."""
    return alpha(config, name) / norm(config, rank)


def alpha(config: dict, name: str) -> float:
    """lora_alpha of a module, or its entry in alpha_pattern."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        # PEFT's own rule: the first pattern that matches counts.
        if re.match(rf"(.*\.)?({pattern})$", name):
            return float(alpha)
    return float(config["lora_alpha"])


def targeted(config: dict, name: str) -> bool:
    """Whether PEFT gives this module an adapter."""

    def matches(given: Any) -> bool:
        if isinstance(given, str):
            return given == "all-linear" or bool(re.fullmatch(given, name))
        return any(name == t or name.endswith(f".{t}") for t in given)

    targets, left_out = config.get("target_modules"), config.get("exclude_modules")
    if (targets is not None and not matches(targets)) or (left_out and matches(left_out)):
        return False
    layers = config.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    number = re.search(r"\.(\d+)\.", name)
    return not layers or number is None or int(number[1]) in layers
