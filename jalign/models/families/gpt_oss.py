"""GPT-OSS 20B and 120B: experts with biases and a clamped activation, attention sinks, a window in
every other layer.
"""

from jalign.models.families.base import (
    ATTENTION,
    ENDS,
    PRE_NORMS,
    Config,
    Family,
    Row,
    decoder_numbers,
    required,
    same,
    turned,
    windowed,
)
from jalign.models.families.experts import experts
from jalign.models.families.rotary import rope
from jalign.models.spec import Spec

GATE_UP = ("layers.mlp.experts.gate", "layers.mlp.experts.up")


def _gate_up(theirs: str, kind: str) -> Row:
    ours = tuple(f"{path}.{kind}" for path in GATE_UP)
    return Row(f"model.layers.{{}}.mlp.experts.{theirs}", ours, transposed=False, interleaved=True)


ROWS = (
    *ENDS,
    *ATTENTION,
    *PRE_NORMS,
    same("model.layers.{}.self_attn.sinks", "layers.attn.sinks"),
    turned("model.layers.{}.mlp.router.weight", "layers.mlp.router.kernel"),
    same("model.layers.{}.mlp.router.bias", "layers.mlp.router.bias"),
    _gate_up("gate_up_proj", "kernel"),
    _gate_up("gate_up_proj_bias", "bias"),
    same("model.layers.{}.mlp.experts.down_proj", "layers.mlp.experts.down.kernel"),
    same("model.layers.{}.mlp.experts.down_proj_bias", "layers.mlp.experts.down.bias"),
)
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def _spec(config: Config) -> Spec:
    # Defaults of transformers' GptOssConfig.
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or YARN
    config = {"head_dim": 64, "rms_norm_eps": 1e-5, **config, "rope_parameters": scaling}
    mixture = experts(
        config,
        "num_local_experts",
        width=required(config, "intermediate_size"),
        normalize=True,
        bias=True,
        swiglu_limit=config.get("swiglu_limit", 7.0),
        swiglu_alpha=config.get("swiglu_alpha", 1.702),
    )
    bias = config.get("attention_bias", True)
    every_other = tuple(i % 2 == 0 for i in range(config["num_hidden_layers"]))
    return Spec(
        **decoder_numbers(config, rope=rope(config, base=150000.0)),
        window=config.get("sliding_window", 128),
        windowed=windowed(config) or every_other,
        qkv_bias=bias,
        o_bias=bias,
        attn_sinks=True,
        experts=mixture,
    )


FAMILIES = (Family("gpt_oss", "GptOssForCausalLM", "GptOssForSequenceClassification", _spec, ROWS),)
