"""Granite 3: a Llama whose embeddings, attention, residual connections and logits have factors."""

from jalign.models.families.base import LLAMA_ROWS, Config, Family, decoder_numbers
from jalign.models.spec import Spec


def _spec(config: Config) -> Spec:
    bias = config.get("attention_bias", False)
    return Spec(
        **decoder_numbers(config),
        embed_scale=config.get("embedding_multiplier", 1.0),
        attn_scale=config.get("attention_multiplier", 1.0),
        residual_scale=config.get("residual_multiplier", 1.0),
        logit_scale=1.0 / config.get("logits_scaling", 1.0),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=config.get("mlp_bias", False),
    )


FAMILIES = (Family("granite", "GraniteForCausalLM", None, _spec, LLAMA_ROWS),)
