"""Qwen 2, 2.5 (biases on q, k, v), 3 (normalized queries and keys) and 3.5 (gated delta nets in
three of four layers, gated attention in the others).
"""

from jalign.models.delta.spec import DeltaNet
from jalign.models.families.base import (
    LLAMA_ROWS,
    Config,
    Family,
    decoder_numbers,
    same,
    turned,
    windowed,
)
from jalign.models.families.rotary import rope
from jalign.models.spec import Spec


def _window(config: Config) -> dict:
    # Qwen's configs name a sliding_window that only use_sliding_window turns on.
    if not config.get("use_sliding_window") or config.get("sliding_window") is None:
        return {}
    first, depth = config.get("max_window_layers", 28), config["num_hidden_layers"]
    layers = windowed(config) or tuple(i >= first for i in range(depth))
    return {"window": config["sliding_window"], "windowed": layers}


def _qwen2(config: Config) -> Spec:
    # These biases are in no config: transformers hard-codes them.
    return Spec(**decoder_numbers(config), **_window(config), qkv_bias=True)


def _qwen3(config: Config) -> Spec:
    bias = config.get("attention_bias", False)
    values = decoder_numbers(config, head_dim=config.get("head_dim") or 128)
    return Spec(**values, **_window(config), qkv_bias=bias, o_bias=bias, qk_norm=True)


DELTA_ROWS = (
    turned(
        "model.layers.{}.linear_attn.in_proj_qkv.weight",
        "layers.delta.q.kernel",
        "layers.delta.k.kernel",
        "layers.delta.v.kernel",
    ),
    turned("model.layers.{}.linear_attn.in_proj_z.weight", "layers.delta.z.kernel"),
    turned("model.layers.{}.linear_attn.in_proj_a.weight", "layers.delta.a.kernel"),
    turned("model.layers.{}.linear_attn.in_proj_b.weight", "layers.delta.b.kernel"),
    turned("model.layers.{}.linear_attn.out_proj.weight", "layers.delta.o.kernel"),
    same("model.layers.{}.linear_attn.conv1d.weight", "layers.delta.conv"),
    same("model.layers.{}.linear_attn.A_log", "layers.delta.a_log"),
    same("model.layers.{}.linear_attn.dt_bias", "layers.delta.a_bias"),
    same("model.layers.{}.linear_attn.norm.weight", "layers.delta.norm.weight"),
)


def _qwen3_5(config: Config) -> Spec:
    depth, every = config["num_hidden_layers"], config.get("full_attention_interval", 4)
    kinds = config.get("layer_types")
    delta = [(i + 1) % every != 0 for i in range(depth)]
    delta = [kind == "linear_attention" for kind in kinds] if kinds else delta
    bias = config.get("attention_bias", False)
    return Spec(
        **decoder_numbers(
            config,
            head_dim=config.get("head_dim") or 256,
            norm="rms_plus_one",
            rope=rope(config, fraction=0.25),
        ),
        qkv_bias=bias,
        o_bias=bias,
        qk_norm=True,
        attn_gate=True,
        delta=DeltaNet(
            key_heads=config.get("linear_num_key_heads", 16),
            value_heads=config.get("linear_num_value_heads", 32),
            key_dim=config.get("linear_key_head_dim", 128),
            value_dim=config.get("linear_value_head_dim", 128),
            conv=config.get("linear_conv_kernel_dim", 4),
        ),
        delta_layers=tuple(delta),
    )


FAMILIES = (
    Family("qwen2", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification", _qwen2, LLAMA_ROWS),
    Family("qwen3", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification", _qwen3, LLAMA_ROWS),
    Family(
        "qwen3_5_text",
        "Qwen3_5ForCausalLM",
        "Qwen3_5TextForSequenceClassification",
        _qwen3_5,
        (*LLAMA_ROWS, *DELTA_ROWS),
        # Heads that predict several tokens at once.
        ignored=(r".*rotary_emb\.inv_freq", r"mtp\..*"),
    ),
)
