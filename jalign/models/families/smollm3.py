"""SmolLM3: a Llama in which every fourth layer has no rotary embedding (NoPE)."""

from jalign.models.families.base import LLAMA_ROWS, Config, Family, decoder_numbers, windowed
from jalign.models.families.rotary import rope
from jalign.models.spec import Spec


def _spec(config: Config) -> Spec:
    depth, every = config["num_hidden_layers"], config.get("no_rope_layer_interval", 4)
    # 1 is a layer with a rotary embedding, whatever the name says.
    rotary = config.get("no_rope_layers") or [(i + 1) % every != 0 for i in range(depth)]
    no_rope = tuple(not r for r in rotary[:depth])
    window, layers = config.get("sliding_window"), windowed(config)
    if not layers and config.get("use_sliding_window"):
        layers = no_rope
    bias = config.get("attention_bias", False)
    return Spec(
        **decoder_numbers(
            config,
            rope=rope(config, base=2_000_000.0),
            tied=config.get("tie_word_embeddings", True),
        ),
        no_rope=no_rope,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=config.get("mlp_bias", False),
        **({"window": window, "windowed": layers} if window and any(layers) else {}),
    )


FAMILIES = (
    Family("smollm3", "SmolLM3ForCausalLM", "SmolLM3ForSequenceClassification", _spec, LLAMA_ROWS),
)
