"""The families of checkpoints: config.json -> `Spec`, and tensor names <-> parameter paths."""

from __future__ import annotations

from jalign.core import did_you_mean
from jalign.models.families import (
    cohere,
    gemma,
    glm,
    gpt2,
    gpt_oss,
    granite,
    llama,
    mistral,
    mixtral,
    olmo,
    olmoe,
    phi3,
    qwen,
    qwen_moe,
    smollm3,
)
from jalign.models.families.base import Config, Family

_DENSE = (llama, mistral, gemma, qwen, phi3, gpt2, smollm3, olmo, granite, cohere, glm)
_EXPERTS = (qwen_moe, mixtral, olmoe, gpt_oss)
_MODULES = (*_DENSE, *_EXPERTS)
FAMILIES: dict[str, Family] = {f.model_type: f for module in _MODULES for f in module.FAMILIES}


# quant_method of a config.json -> what it is called.
QUANTIZED = {"gptq": "GPTQ", "awq": "AWQ", "bitsandbytes": "bitsandbytes", "fp8": "FP8"}


# Keys that a saved model writes anew, or not: of MXFP4 the decoded values are written.
NOT_KEPT = ("id2label", "label2id", "num_labels", "quantization_config")


def family_of(config: Config) -> Family:
    """The family that reads this config.json, by its `architectures`, or its `model_type` when it
    lists none.

    Raises:
      ValueError: the checkpoint brings code, quantized weights or an unknown architecture; names
        the nearest known one.
    """
    check_plain(config)
    by_class = {name: f for f in FAMILIES.values() for name in (f.causal, f.scalar) if name}
    given = config.get("architectures") or []
    for name in given:
        if name in by_class:
            return by_class[name]
    if isinstance(inner := config.get("text_config"), dict):
        kind = str(inner.get("model_type"))
        raise ValueError(f"its text model {kind!r} is unknown{did_you_mean(kind, FAMILIES)}")
    if given:
        scalar = "SequenceClassification" in given[0]
        like = [name for name in by_class if ("SequenceClassification" in name) == scalar]
        raise ValueError(f"architecture {given[0]!r} is unknown{did_you_mean(given[0], like)}")
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise ValueError(f"model_type {kind!r} is unknown{did_you_mean(kind, FAMILIES)}")
    return FAMILIES[kind]


def check_plain(config: Config) -> None:
    """Check that a checkpoint consists of plain weights of a class that transformers has.

    Raises:
      ValueError: it is quantized, or its Python code defines other classes than transformers'.
    """
    if config.get("auto_map") and not _same_classes(config):
        raise ValueError(
            "this checkpoint brings its own Python code (auto_map), which is never run: take a "
            "conversion to a class of transformers"
        )
    if quantization := config.get("quantization_config"):
        method = str(quantization.get("quant_method", "an unknown method"))
        if method == "mxfp4":  # decoded where it is read (`jalign.models.mxfp4`)
            return
        raise ValueError(
            f"this checkpoint is quantized (quantization_config) by {QUANTIZED.get(method, method)}"
            "; only plain weights and MXFP4 load: take the model that it was made from, and store "
            "its matrices in 4 or 8 bits here by model.quant: nf4 or int8"
        )


def _same_classes(config: Config) -> bool:
    """Whether the code in a checkpoint is what became a class of transformers, as with Phi-3."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return False
    stem = family.causal.split("For")[0].split("LMHead")[0]
    models = [x for name, x in config["auto_map"].items() if name.startswith("AutoModel")]
    names = [str(x[0] if isinstance(x, list) else x).split(".")[-1] for x in models]
    return bool(names) and all(name.startswith(stem) for name in names)
