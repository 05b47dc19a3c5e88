"""Gemma 1, 2 and the text model of Gemma 3."""

from typing import Any

from jalign.models.families.base import (
    ATTENTION,
    ENDS,
    LLAMA_ROWS,
    MLP,
    POST_NORMS,
    Config,
    Family,
    activation,
    decoder_numbers,
    same,
    windowed,
)
from jalign.models.families.rotary import rope
from jalign.models.spec import Spec

NORMS = (
    same("model.layers.{}.input_layernorm.weight", "layers.attn_norm.weight"),
    same("model.layers.{}.pre_feedforward_layernorm.weight", "layers.mlp_norm.weight"),
    *POST_NORMS,
)


def _common(config: Config, **more: Any) -> dict[str, Any]:
    if config.get("use_bidirectional_attention"):
        raise ValueError(
            "Gemma with use_bidirectional_attention is an encoder, not a language model"
        )
    # Early Gemma configs say hidden_act "gelu" and mean its tanh approximation.
    act = config.get("hidden_activation") or config.get("hidden_act") or "gelu"
    bias = config.get("attention_bias", False)
    return decoder_numbers(
        config,
        # Not width / heads, from which Gemma's heads differ.
        head_dim=config.get("head_dim") or 256,
        activation=activation("gelu_pytorch_tanh" if act == "gelu" else act),
        norm="rms_plus_one",
        embed_scale=config["hidden_size"] ** 0.5,
        qkv_bias=bias,
        o_bias=bias,
        tied=config.get("tie_word_embeddings", True),
        **more,
    )


def _gemma(config: Config) -> Spec:
    return Spec(**_common(config))


def _alternating(config: Config, full_every: int, **more: Any) -> Spec:
    """Gemma 2 and 3: every `full_every`-th layer sees everything, the others a window."""
    depth = config["num_hidden_layers"]
    return Spec(
        **_common(config, **more),
        post_norms=True,
        window=config.get("sliding_window", 4096),
        windowed=windowed(config) or tuple((i + 1) % full_every != 0 for i in range(depth)),
        # Not head_dim ** -0.5: Gemma 2 27B scales by width / heads.
        attn_scale=config.get("query_pre_attn_scalar", 256) ** -0.5,
    )


def _gemma2(config: Config) -> Spec:
    return _alternating(
        config,
        2,
        attn_softcap=config.get("attn_logit_softcapping", 50.0),
        logit_softcap=config.get("final_logit_softcapping", 30.0),
    )


def _gemma3(config: Config) -> Spec:
    if "rope_parameters" in config:
        local = rope(config, layer_type="sliding_attention")
    else:
        # Windowed layers see no more than before, so only the global ones are stretched.
        local = rope({"rope_theta": config.get("rope_local_base_freq", 10000.0)})
    return _alternating(
        config,
        config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6,
        context=config.get("max_position_embeddings"),  # stretched already
        qk_norm=True,
        rope=rope(config, base=1_000_000.0, layer_type="full_attention"),
        local_rope=local,
        logit_softcap=config.get("final_logit_softcapping"),
    )


FAMILIES = (
    Family("gemma", "GemmaForCausalLM", "GemmaForSequenceClassification", _gemma, LLAMA_ROWS),
    Family(
        "gemma2",
        "Gemma2ForCausalLM",
        "Gemma2ForSequenceClassification",
        _gemma2,
        (*ENDS, *ATTENTION, *MLP, *NORMS),
    ),
    Family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        "Gemma3TextForSequenceClassification",
        _gemma3,
        (*ENDS, *ATTENTION, *MLP, *NORMS),
    ),
)
