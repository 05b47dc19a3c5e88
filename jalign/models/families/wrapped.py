"""Multimodal models whose text model is supported (Gemma 3 from 4B on, LLaVA, ...), read as that
text model.
"""

from __future__ import annotations

import re

from jalign.models.families import FAMILIES, check_plain
from jalign.models.families.base import Config

TEXT = (  # prefixes of the text model's tensors, and those of a text model alone
    (re.compile(r"(model\.)?language_model\.model\."), "model."),
    (re.compile(r"model\.language_model\."), "model."),
    (re.compile(r"(model\.)?language_model\.(lm_head|score)\."), r"\2."),
)
REST = re.compile(
    r"(model\.)?(vision_tower|vision_model|visual|image_newline|embed_vision"
    r"|multi_modal_projector|multimodal_projector|mm_projector)(\.|$)"
)
SHARED = ("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype")


def text_config(config: Config) -> dict:
    """The config.json of a multimodal model's text model; any other config unchanged.

    Missing keys of the inner config take transformers' defaults.
    """
    inner = config.get("text_config")
    if not isinstance(inner, dict) or inner.get("model_type") not in FAMILIES:
        return dict(config)
    check_plain(config)
    from transformers import CONFIG_MAPPING  # of little use to other models, and slow

    family = FAMILIES[inner["model_type"]]
    full_config = CONFIG_MAPPING[family.model_type](**inner).to_dict()
    shared = {n: config[n] for n in SHARED if config.get(n) is not None and inner.get(n) is None}
    if "tie_word_embeddings" in config and "tie_word_embeddings" not in inner:
        shared["tie_word_embeddings"] = config["tie_word_embeddings"]
    (kind, *_) = config.get("architectures") or [""]
    scalar = kind.endswith("SequenceClassification")
    wanted = family.scalar if scalar and family.scalar else family.causal
    return full_config | shared | {"architectures": [wanted]}


def text_name(name: str) -> str | None:
    """A tensor's name in the text model alone; None if it belongs to another part, such as the
    vision tower. Names of text models are unchanged.
    """
    if REST.match(name):
        return None
    for pattern, replacement in TEXT:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name
