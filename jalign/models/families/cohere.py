"""Cohere 2 (Command R7B, Command A, Aya): attention and MLP in parallel, LayerNorm without bias,
neighboring features rotated, and no rotary embedding in the layers that see everything.
"""

from dataclasses import replace

from jalign.models.families.base import (
    ATTENTION,
    ENDS,
    MLP,
    Config,
    Family,
    decoder_numbers,
    same,
    windowed,
)
from jalign.models.families.rotary import rope
from jalign.models.spec import Spec

ROWS = (
    *ENDS,
    *ATTENTION,
    *MLP,
    same("model.layers.{}.input_layernorm.weight", "layers.attn_norm.weight"),
)


def _spec(config: Config) -> Spec:
    depth, every = config["num_hidden_layers"], config.get("sliding_window_pattern", 4)
    layers = windowed(config) or tuple((i + 1) % every != 0 for i in range(depth))
    bias = config.get("attention_bias", False)
    values = decoder_numbers(
        config,
        norm_eps=config.get("layer_norm_eps", 1e-5),
        # Whatever the config says of head_dim, as in transformers.
        head_dim=config["hidden_size"] // config["num_attention_heads"],
        rope=replace(rope(config), interleaved=True),
        tied=config.get("tie_word_embeddings", True),
    )
    return Spec(
        **values,
        norm="layer_no_bias",
        parallel=True,
        window=config.get("sliding_window", 4096),
        windowed=layers,
        no_rope=tuple(not w for w in layers),
        logit_scale=config.get("logit_scale", 0.0625),
        qkv_bias=bias,
        o_bias=bias,
    )


FAMILIES = (Family("cohere2", "Cohere2ForCausalLM", None, _spec, ROWS),)
