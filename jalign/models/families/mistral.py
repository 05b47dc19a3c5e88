"""Mistral: a Llama whose every layer may have a sliding window."""

from jalign.models.families.base import LLAMA_ROWS, Config, Family, decoder_numbers
from jalign.models.spec import Spec


def _spec(config: Config) -> Spec:
    # A config without the key means 7B v0.1's window, as in transformers; null means none.
    return Spec(**decoder_numbers(config), window=config.get("sliding_window", 4096))


FAMILIES = (
    Family("mistral", "MistralForCausalLM", "MistralForSequenceClassification", _spec, LLAMA_ROWS),
)
