"""Mixtral: a Mistral whose layers have experts."""

from jalign.models.families.base import Config, Family, decoder_numbers
from jalign.models.families.experts import expert_rows, experts
from jalign.models.spec import Spec

ROWS = expert_rows("block_sparse_moe", "gate", "w1", "w3", "w2")


def _spec(config: Config) -> Spec:
    values = decoder_numbers(config, norm_eps=config.get("rms_norm_eps", 1e-5))
    mixture = experts(config, "num_local_experts", width=values["mlp_width"], normalize=True)
    return Spec(**values, window=config.get("sliding_window"), experts=mixture)


FAMILIES = (
    Family("mixtral", "MixtralForCausalLM", "MixtralForSequenceClassification", _spec, ROWS),
)
