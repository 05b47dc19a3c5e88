"""A run's model with all that others need to read it, as a folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jalign.models import hub, quant
from jalign.models.adapters import lora, peft
from jalign.parallel import hosts
from jalign.run import folder as runs
from jalign.run import roles as build
from jalign.run.export import card, readers


@dataclass
class Exported:
    """A run's model on its way to a folder."""

    run: str
    trained: runs.Weights
    said: list[str] = field(default_factory=list)  # what people should know

    def __post_init__(self) -> None:
        self.options, self.model, params, self.step = self.trained
        row = self.options.algorithm
        self.decoder = nnx.merge(*build.merged(self.model, params))
        if row.needs_critic:
            self.decoder.value = None  # of a critic on the policy's weights: nobody else reads it
        self.adapted = bool(lora.adapters(self.decoder))
        self.reward = row.scores_responses
        self.ends = build.eos_ids(self.model.path, self.model.tokenizer)
        names = self.model.tokenizer.convert_ids_to_tokens(list(self.ends))
        if self.decoder.value is None:
            self.said.append(f"a response ends with {' or '.join(map(repr, names))}")

    def write_adapter(self, out: Path, shown: str) -> None:
        """PEFT's folder, tokenizer and template beside it."""
        peft.save_adapter(self.decoder, out, self.model.path)
        if self.decoder.value is None:
            readers.write_generation(out, self.model.path, self.ends, self.model.tokenizer)
        self._finish(out, card.adapter_usage(shown, self.model.path, self._kind), "peft")

    def write_model(self, out: Path, shown: str, dtype: str, gain: float) -> str:
        """A whole model; returns what it is."""
        decoder, tokenizer = self.decoder, self.model.tokenizer
        decoder = quant.dequantize(lora.merge(decoder) if self.adapted else decoder)
        kind = hub.stored_dtype(self.model.path) if dtype == "base" else jnp.dtype(dtype)
        settings: dict[str, Any] = {}
        if decoder.value is not None:
            decoder.value.kernel = nnx.Param(decoder.value.kernel[...] * gain)
            if readers.pad_apart(tokenizer, decoder, self.ends):
                self.said.append(f"the embedding has a row more, for {tokenizer.pad_token}")
            settings["pad_token_id"] = tokenizer.pad_token_id
        settings["eos_token_id"] = readers.one_or_all(self.ends)
        hub.save(decoder, out, dtype=kind, settings=settings)  # by all processes together
        if not hosts.is_main():
            return ""
        if decoder.value is None:
            readers.write_generation(out, self.model.path, self.ends, tokenizer)
        self.said.append(f"weights in {kind.name}")
        if kind != jnp.float32:
            self.said[-1] += ", rounded from float32 (--dtype float32 keeps what was trained)"
        self._finish(out, card.usage(shown, self._kind, chat=self._chat), "transformers")
        return "the model with its adapters merged" if self.adapted else "the model"

    @property
    def _kind(self) -> str:
        if self.decoder.value is None:
            return "language model"
        return "reward model" if self.reward else "model with a scalar head"

    @property
    def _chat(self) -> bool:
        return bool(self.model.tokenizer.chat_template)

    def _finish(self, out: Path, usage: str, library: str) -> None:
        if self.reward:
            readers.end_where_scored(self.model.tokenizer)
        self.model.tokenizer.save_pretrained(out)
        facts = card.facts_of(self.run, self.options, self.step)
        title = f"{Path(self.run).name}, step {self.step}"
        card.write(out, facts, title, usage, library)
