"""GLM-4: half of each head's features turn, neighbors together; the checkpoint fuses gate and up.
`glm4` (0414, Z1) also normalizes outputs, `glm` (9b-chat-hf) does not.
"""

from dataclasses import replace

from jalign.models.families.base import (
    ATTENTION,
    ENDS,
    FUSED_MLP,
    PRE_NORMS,
    Config,
    Family,
    decoder_numbers,
    same,
)
from jalign.models.families.rotary import rope
from jalign.models.spec import Spec

ROWS = (*ENDS, *ATTENTION, *FUSED_MLP, *PRE_NORMS)
POST_NORMS = (
    same("model.layers.{}.post_self_attn_layernorm.weight", "layers.post_attn_norm.weight"),
    same("model.layers.{}.post_mlp_layernorm.weight", "layers.post_mlp_norm.weight"),
)


def _glm(config: Config, *, post_norms: bool = False) -> Spec:
    return Spec(
        **decoder_numbers(
            config,
            head_dim=config.get("head_dim") or 128,
            norm_eps=config.get("rms_norm_eps", 1.5625e-07),
            rope=replace(rope(config, fraction=0.5), interleaved=True),
        ),
        post_norms=post_norms,
        qkv_bias=config.get("attention_bias", True),
    )


def _glm4(config: Config) -> Spec:
    return _glm(config, post_norms=True)


FAMILIES = (
    Family("glm", "GlmForCausalLM", "GlmForSequenceClassification", _glm, ROWS),
    Family("glm4", "Glm4ForCausalLM", "Glm4ForSequenceClassification", _glm4, (*ROWS, *POST_NORMS)),
)
