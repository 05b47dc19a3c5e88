"""Qwen 2 MoE (Qwen 1.5 MoE, Qwen 2 57B-A14B; a shared expert) and Qwen 3 MoE (30B-A3B,
235B-A22B).
"""

from jalign.models.families.base import Config, Family, decoder_numbers, required, turned, windowed
from jalign.models.families.experts import expert_rows, experts
from jalign.models.spec import Spec

ROWS = expert_rows("mlp", "gate", "gate_proj", "up_proj", "down_proj")
SHARED = (
    turned("model.layers.{}.mlp.shared_expert.gate_proj.weight", "layers.mlp.shared.gate.kernel"),
    turned("model.layers.{}.mlp.shared_expert.up_proj.weight", "layers.mlp.shared.up.kernel"),
    turned("model.layers.{}.mlp.shared_expert.down_proj.weight", "layers.mlp.shared.down.kernel"),
    turned("model.layers.{}.mlp.shared_expert_gate.weight", "layers.mlp.shared_gate.kernel"),
)


def _qwen2(config: Config) -> Spec:
    window = {}
    if config.get("use_sliding_window") and config.get("sliding_window"):
        first, depth = config.get("max_window_layers", 28), config["num_hidden_layers"]
        # Unlike Qwen 2, every other one of the first layers.
        default = tuple(i % 2 == 0 and i < first for i in range(depth))
        window = {"window": config["sliding_window"], "windowed": windowed(config) or default}
    mixture = experts(
        config,
        "num_experts",
        width=required(config, "moe_intermediate_size"),
        normalize=config.get("norm_topk_prob", False),
        shared_width=required(config, "shared_expert_intermediate_size"),
    )
    bias = config.get("qkv_bias", True)
    return Spec(**decoder_numbers(config), **window, qkv_bias=bias, experts=mixture)


def _qwen3(config: Config) -> Spec:
    # All layers have the window, if it is used.
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window") else None
    mixture = experts(
        config,
        "num_experts",
        width=required(config, "moe_intermediate_size"),
        normalize=config.get("norm_topk_prob", False),
    )
    bias = config.get("attention_bias", False)
    return Spec(
        **decoder_numbers(config),
        window=window,
        qkv_bias=bias,
        o_bias=bias,
        qk_norm=True,
        experts=mixture,
    )


FAMILIES = (
    Family(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        "Qwen2MoeForSequenceClassification",
        _qwen2,
        (*ROWS, *SHARED),
    ),
    Family("qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3MoeForSequenceClassification", _qwen3, ROWS),
)
