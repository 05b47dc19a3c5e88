"""Qwen 2, 2.5 (biases on q, k, v) and 3 (normalized queries and keys)."""

from jalign.models.families.base import LLAMA_ROWS, Config, Family, decoder_numbers, windowed
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


FAMILIES = (
    Family("qwen2", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification", _qwen2, LLAMA_ROWS),
    Family("qwen3", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification", _qwen3, LLAMA_ROWS),
)
