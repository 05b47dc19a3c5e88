"""OLMo 2 and 3: outputs are normalized instead of inputs, queries and keys over all heads at once.
OLMo 3 has windows, and stretches the rotary embedding of its full layers alone.
"""

from typing import Any

from jalign.models.families.base import (
    ATTENTION,
    ENDS,
    MLP,
    POST_NORMS,
    Config,
    Family,
    decoder_numbers,
    windowed,
)
from jalign.models.families.rotary import rope
from jalign.models.spec import Spec

ROWS = (*ENDS, *ATTENTION, *MLP, *POST_NORMS)


def _common(config: Config, **more: Any) -> Spec:
    bias = config.get("attention_bias", False)
    return Spec(
        **decoder_numbers(config, norm_eps=config.get("rms_norm_eps", 1e-5), **more),
        pre_norms=False,
        post_norms=True,
        qk_norm=True,
        qk_norm_over="width",
        qkv_bias=bias,
        o_bias=bias,
    )


def _olmo2(config: Config) -> Spec:
    return _common(config)


def _olmo3(config: Config) -> Spec:
    base, depth = 500_000.0, config["num_hidden_layers"]
    if "rope_parameters" in config:
        local = rope(config, base=base, layer_type="sliding_attention")
    else:
        # Windowed layers see no more than before, so only the full ones are stretched.
        local = rope({"rope_theta": config.get("rope_theta", base)})
    return _common(
        config,
        context=config.get("max_position_embeddings"),  # stretched already
        rope=rope(config, base=base, layer_type="full_attention"),
        local_rope=local,
        window=config.get("sliding_window", 4096),
        windowed=windowed(config) or tuple((i + 1) % 4 != 0 for i in range(depth)),
    )


FAMILIES = (
    Family("olmo2", "Olmo2ForCausalLM", "Olmo2ForSequenceClassification", _olmo2, ROWS),
    Family("olmo3", "Olmo3ForCausalLM", "Olmo3ForSequenceClassification", _olmo3, ROWS),
)
