"""Llama 1, 2, 3 and what copies them (TinyLlama, SmolLM2, Vicuna, ...)."""

from jalign.models.families.base import LLAMA_ROWS, Config, Family, decoder_numbers
from jalign.models.spec import Spec


def _spec(config: Config) -> Spec:
    bias = config.get("attention_bias", False)
    return Spec(
        **decoder_numbers(config),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=config.get("mlp_bias", False),
    )


FAMILIES = (
    Family("llama", "LlamaForCausalLM", "LlamaForSequenceClassification", _spec, LLAMA_ROWS),
)
