"""The families of checkpoints: config.json -> `Spec`, and tensor names <-> parameter paths."""

from __future__ import annotations

from jalign.core import did_you_mean
from jalign.models.families import (
    cohere,
    gemma,
    glm,
    gpt2,
    granite,
    llama,
    mistral,
    olmo,
    phi3,
    qwen,
    smollm3,
)
from jalign.models.families.base import Config, Family

_MODULES = (llama, mistral, gemma, qwen, phi3, gpt2, smollm3, olmo, granite, cohere, glm)
FAMILIES: dict[str, Family] = {f.model_type: f for module in _MODULES for f in module.FAMILIES}


def family_of(config: Config) -> Family:
    """The family that reads this config.json, by its `architectures`, or its `model_type` when it
    lists none.

    Raises:
      ValueError: the checkpoint brings code, quantized weights or an unknown architecture; names
        the nearest known one.
    """
    if "auto_map" in config:
        raise ValueError(
            "this checkpoint brings its own Python code (auto_map), which is never run"
        )
    if config.get("quantization_config"):
        raise ValueError(
            "this checkpoint is quantized (quantization_config); only plain weights load"
        )
    by_class = {name: f for f in FAMILIES.values() for name in (f.causal, f.scalar) if name}
    given = config.get("architectures") or []
    for name in given:
        if name in by_class:
            return by_class[name]
    if given:
        raise ValueError(f"architecture {given[0]!r} is unknown{did_you_mean(given[0], by_class)}")
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise ValueError(f"model_type {kind!r} is unknown{did_you_mean(kind, FAMILIES)}")
    return FAMILIES[kind]
