"""OLMoE: experts, and queries and keys normalized over all heads at once, as in OLMo 2."""

from jalign.models.families.base import Config, Family, decoder_numbers
from jalign.models.families.experts import expert_rows, experts
from jalign.models.spec import Spec

ROWS = expert_rows("mlp", "gate", "gate_proj", "up_proj", "down_proj")


def _spec(config: Config) -> Spec:
    if config.get("clip_qkv") is not None:
        raise ValueError(f"clip_qkv={config['clip_qkv']}: clipped queries are not supported")
    values = decoder_numbers(config, norm_eps=config.get("rms_norm_eps", 1e-5))
    mixture = experts(
        config,
        "num_experts",
        width=values["mlp_width"],
        normalize=config.get("norm_topk_prob", False),
    )
    bias = config.get("attention_bias", False)
    return Spec(
        **values,
        qk_norm=True,
        qk_norm_over="width",
        qkv_bias=bias,
        o_bias=bias,
        experts=mixture,
    )


FAMILIES = (Family("olmoe", "OlmoeForCausalLM", None, _spec, ROWS),)
