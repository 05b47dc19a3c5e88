"""Models of text and images whose text model is one of ours (Gemma 3 from 4B on, LLaVA, ...): read
as that text model, which is what they are for text alone.
"""

from __future__ import annotations

import re

from jalign.models.families import FAMILIES, family_of
from jalign.models.families.base import Config

TEXT = (  # where the text model's tensors may stand, and where they do in a text model
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
    """The config.json of the text model inside of a model of text and images; that of any other
    model as it is.

    What the inner config does not say is as in transformers.
    """
    inner = config.get("text_config")
    if not isinstance(inner, dict) or inner.get("model_type") not in FAMILIES:
        return dict(config)
    for name in ("auto_map", "quantization_config"):
        if config.get(name):
            family_of(config)  # which refuses it
    from transformers import CONFIG_MAPPING  # of little use to other models, and slow

    family = FAMILIES[inner["model_type"]]
    full_config = CONFIG_MAPPING[family.model_type](**inner).to_dict()
    shared = {n: config[n] for n in SHARED if config.get(n) is not None and inner.get(n) is None}
    if "tie_word_embeddings" in config and "tie_word_embeddings" not in inner:
        shared["tie_word_embeddings"] = config["tie_word_embeddings"]
    (kind, *_) = config.get("architectures") or [""]
    scalar = kind.endswith("SequenceClassification")
    return full_config | shared | {"architectures": [family.scalar if scalar else family.causal]}


def text_name(name: str) -> str | None:
    """A tensor's name in the text model alone; None: it belongs to something else, such as the
    vision tower. Names of text models stay.
    """
    if REST.match(name):
        return None
    for pattern, replacement in TEXT:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name
