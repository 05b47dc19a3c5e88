"""Phi-3, Phi-4 and Phi-4 mini: a Llama whose checkpoint fuses q, k, v and gate, up."""

from jalign.models.families.base import (
    ENDS,
    FUSED_MLP,
    PRE_NORMS,
    Config,
    Family,
    decoder_numbers,
    turned,
)
from jalign.models.spec import Spec

ROWS = (
    *ENDS,
    *PRE_NORMS,
    *FUSED_MLP,
    turned(
        "model.layers.{}.self_attn.qkv_proj.weight",
        "layers.attn.q.kernel",
        "layers.attn.k.kernel",
        "layers.attn.v.kernel",
    ),
    turned("model.layers.{}.self_attn.o_proj.weight", "layers.attn.o.kernel"),
)


def _spec(config: Config) -> Spec:
    values = decoder_numbers(config, norm_eps=config.get("rms_norm_eps", 1e-5))
    return Spec(**values, window=config.get("sliding_window"))


FAMILIES = (Family("phi3", "Phi3ForCausalLM", "Phi3ForSequenceClassification", _spec, ROWS),)
