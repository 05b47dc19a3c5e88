"""GPT-2: learned positions, LayerNorm, biases everywhere. Its Conv1D stores [in, out], so nothing
is transposed.
"""

from jalign.models.families.base import Config, Family, activation, required, same, turned
from jalign.models.spec import Spec

ROWS = (
    same("transformer.wte.weight", "embed.weight"),
    same("transformer.wpe.weight", "positions.weight"),
    same("transformer.ln_f.weight", "final_norm.weight"),
    same("transformer.ln_f.bias", "final_norm.bias"),
    # A Linear beside Conv1D layers, so stored the other way round.
    turned("lm_head.weight", "lm_head.kernel"),
    turned("score.weight", "value.kernel"),
    same("transformer.h.{}.ln_1.weight", "layers.attn_norm.weight"),
    same("transformer.h.{}.ln_1.bias", "layers.attn_norm.bias"),
    same("transformer.h.{}.ln_2.weight", "layers.mlp_norm.weight"),
    same("transformer.h.{}.ln_2.bias", "layers.mlp_norm.bias"),
    same(
        "transformer.h.{}.attn.c_attn.weight",
        "layers.attn.q.kernel",
        "layers.attn.k.kernel",
        "layers.attn.v.kernel",
    ),
    same(
        "transformer.h.{}.attn.c_attn.bias",
        "layers.attn.q.bias",
        "layers.attn.k.bias",
        "layers.attn.v.bias",
    ),
    same("transformer.h.{}.attn.c_proj.weight", "layers.attn.o.kernel"),
    same("transformer.h.{}.attn.c_proj.bias", "layers.attn.o.bias"),
    same("transformer.h.{}.mlp.c_fc.weight", "layers.mlp.up.kernel"),
    same("transformer.h.{}.mlp.c_fc.bias", "layers.mlp.up.bias"),
    same("transformer.h.{}.mlp.c_proj.weight", "layers.mlp.down.kernel"),
    same("transformer.h.{}.mlp.c_proj.bias", "layers.mlp.down.bias"),
)


def _spec(config: Config) -> Spec:
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if config.get(name):
            raise ValueError(f"GPT-2 with {name} is not supported")
    width, heads = required(config, "n_embd"), required(config, "n_head")
    return Spec(
        vocab_size=required(config, "vocab_size"),
        width=width,
        depth=required(config, "n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp_width=config.get("n_inner") or 4 * width,
        activation=activation(config.get("activation_function", "gelu_new")),
        gated=False,
        norm="layer",
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
        learned_positions=required(config, "n_positions"),
        rope=None,
        attn_scale=None if config.get("scale_attn_weights", True) else 1.0,
        tied=config.get("tie_word_embeddings", True),
    )


FAMILIES = (
    Family(
        "gpt2",
        "GPT2LMHeadModel",
        "GPT2ForSequenceClassification",
        _spec,
        ROWS,
        prefix="transformer.",
        # Causal masks, which older checkpoints store as buffers.
        ignored=(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",),
    ),
)
