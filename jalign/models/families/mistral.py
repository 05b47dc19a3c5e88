"""Mistral, a Llama whose every layer may have a sliding window; Ministral, of which some have one;
Ministral 3, which is stretched by YaRN and lets queries grow with their position.
"""

from dataclasses import replace

from jalign.models.families.base import LLAMA_ROWS, Config, Family, decoder_numbers, windowed
from jalign.models.families.rotary import original_tokens, rope, scaling
from jalign.models.rope import QueryGrowth
from jalign.models.spec import Spec

# What transformers takes for a Ministral 3 without rotary parameters.
MINISTRAL3_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def _mistral(config: Config) -> Spec:
    # A config without the key means 7B v0.1's window, as in transformers; null means none.
    return Spec(**decoder_numbers(config), window=config.get("sliding_window", 4096))


def _ministral(config: Config) -> Spec:
    window, layers = config.get("sliding_window", 4096), windowed(config)
    if window is None or not layers:
        return Spec(**decoder_numbers(config), window=window)
    return Spec(**decoder_numbers(config), window=window, windowed=layers)


def _ministral3(config: Config) -> Spec:
    given = config.get("rope_parameters") or config.get("rope_scaling")
    config = {**config, "rope_parameters": given or MINISTRAL3_ROPE}
    p, rotary = scaling(config), rope(config)
    tokens = original_tokens(config, p)
    if (beta := p.get("llama_4_scaling_beta")) and tokens:
        rotary = replace(rotary, query_growth=QueryGrowth(float(beta), tokens))
    return Spec(
        **decoder_numbers(
            config,
            head_dim=config.get("head_dim") or 128,
            norm_eps=config.get("rms_norm_eps", 1e-5),
            rope=rotary,
        ),
        window=config.get("sliding_window"),
    )


FAMILIES = (
    Family(
        "mistral", "MistralForCausalLM", "MistralForSequenceClassification", _mistral, LLAMA_ROWS
    ),
    Family(
        "ministral",
        "MinistralForCausalLM",
        "MinistralForSequenceClassification",
        _ministral,
        LLAMA_ROWS,
    ),
    Family(
        "ministral3",
        "Ministral3ForCausalLM",
        "Ministral3ForSequenceClassification",
        _ministral3,
        LLAMA_ROWS,
    ),
)
