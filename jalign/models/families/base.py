"""Family: how one model type's config.json and tensor names map to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jalign.core import did_you_mean
from jalign.models.families.rotary import context, rope
from jalign.models.spec import Spec

Config = Mapping[str, Any]

HIDDEN_ACT = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


class Row(NamedTuple):
    """One tensor of a checkpoint and the parameters it holds.

    Attributes:
      theirs: its name; `{}` stands for the layer, a second one for the expert.
      ours: parameter paths; several are fused, one after the other along the output axis (our
        last).
      transposed: stored [out, in], as torch's Linear does.
      interleaved: fused by turns instead.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool
    interleaved: bool = False


def same(theirs: str, *ours: str) -> Row:
    return Row(theirs, ours, transposed=False)


def turned(theirs: str, *ours: str) -> Row:
    return Row(theirs, ours, transposed=True)


@dataclass(frozen=True)
class Family:
    """One model type of transformers.

    Attributes:
      model_type: as in config.json.
      causal, scalar: transformers' classes of the language model and of the one with a scalar head
        (None where it has none).
      spec: config.json -> our architecture.
      rows: the key table; rows whose parameters a model does not have (biases, an untied head) do
        not apply to it.
      prefix: what names start with, unless the checkpoint was saved from the bare transformer.
      ignored: regular expressions of tensors that hold no parameters.
    """

    model_type: str
    causal: str
    scalar: str | None
    spec: Callable[[Config], Spec]
    rows: Sequence[Row]
    prefix: str = "model."
    ignored: tuple[str, ...] = (r".*rotary_emb\.inv_freq",)


def decoder_numbers(config: Config, **defaults: object) -> dict:
    """The fields of `Spec` that nearly every config.json spells the same way.

    Raises:
      ValueError: a size is missing, or the activation is unknown.
    """
    heads = required(config, "num_attention_heads")
    width = required(config, "hidden_size")
    return {
        "vocab_size": required(config, "vocab_size"),
        "width": width,
        "depth": required(config, "num_hidden_layers"),
        "heads": heads,
        # Configs from before grouped attention have no such key, or null.
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or width // heads,
        "mlp_width": required(config, "intermediate_size"),
        "activation": activation(config.get("hidden_act", "silu")),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "rope": rope(config),
        "context": context(config),
        "tied": config.get("tie_word_embeddings", False),
    } | defaults


def required(config: Config, name: str) -> Any:
    if config.get(name) is None:
        raise ValueError(f"config.json of a {config.get('model_type')} must give {name!r}")
    return config[name]


def activation(name: str) -> str:
    if name not in HIDDEN_ACT:
        raise ValueError(f"activation {name!r} is unknown{did_you_mean(name, HIDDEN_ACT)}")
    return HIDDEN_ACT[name]


def windowed(config: Config) -> tuple[bool, ...]:
    """Which layers have a sliding window, from `layer_types`; empty when the config does not list
    them.
    """
    return tuple(kind == "sliding_attention" for kind in config.get("layer_types") or ())


ENDS = (
    same("model.embed_tokens.weight", "embed.weight"),
    same("model.norm.weight", "final_norm.weight"),
    turned("lm_head.weight", "lm_head.kernel"),
    turned("score.weight", "value.kernel"),
)

ATTENTION = (
    turned("model.layers.{}.self_attn.q_proj.weight", "layers.attn.q.kernel"),
    turned("model.layers.{}.self_attn.k_proj.weight", "layers.attn.k.kernel"),
    turned("model.layers.{}.self_attn.v_proj.weight", "layers.attn.v.kernel"),
    turned("model.layers.{}.self_attn.o_proj.weight", "layers.attn.o.kernel"),
    same("model.layers.{}.self_attn.q_proj.bias", "layers.attn.q.bias"),
    same("model.layers.{}.self_attn.k_proj.bias", "layers.attn.k.bias"),
    same("model.layers.{}.self_attn.v_proj.bias", "layers.attn.v.bias"),
    same("model.layers.{}.self_attn.o_proj.bias", "layers.attn.o.bias"),
    same("model.layers.{}.self_attn.q_norm.weight", "layers.attn.q_norm.weight"),
    same("model.layers.{}.self_attn.k_norm.weight", "layers.attn.k_norm.weight"),
)

MLP = (
    turned("model.layers.{}.mlp.gate_proj.weight", "layers.mlp.gate.kernel"),
    turned("model.layers.{}.mlp.up_proj.weight", "layers.mlp.up.kernel"),
    turned("model.layers.{}.mlp.down_proj.weight", "layers.mlp.down.kernel"),
    same("model.layers.{}.mlp.gate_proj.bias", "layers.mlp.gate.bias"),
    same("model.layers.{}.mlp.up_proj.bias", "layers.mlp.up.bias"),
    same("model.layers.{}.mlp.down_proj.bias", "layers.mlp.down.bias"),
)

FUSED_MLP = (
    turned(
        "model.layers.{}.mlp.gate_up_proj.weight", "layers.mlp.gate.kernel", "layers.mlp.up.kernel"
    ),
    turned("model.layers.{}.mlp.down_proj.weight", "layers.mlp.down.kernel"),
)

PRE_NORMS = (
    same("model.layers.{}.input_layernorm.weight", "layers.attn_norm.weight"),
    same("model.layers.{}.post_attention_layernorm.weight", "layers.mlp_norm.weight"),
)

POST_NORMS = (
    same("model.layers.{}.post_attention_layernorm.weight", "layers.post_attn_norm.weight"),
    same("model.layers.{}.post_feedforward_layernorm.weight", "layers.post_mlp_norm.weight"),
)

LLAMA_ROWS = (*ENDS, *ATTENTION, *MLP, *PRE_NORMS)
