"""Write a policy as a folder with everything that other libraries need to load it."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jalign.models import hub, quant
from jalign.models.adapters import lora, peft
from jalign.parallel import hosts
from jalign.run.export import card, model_folder, readers
from jalign.run.policy import Policy

DTYPES = ("base", "float32", "bfloat16", "float16")


class Exported:
    """A policy prepared for export.

    Attributes:
      adapted: whether it has adapters.
      reward: whether it is a reward model with one reward per response.
      notes: lines for the user, complete after writing.
    """

    def __init__(self, policy: Policy):
        row = policy.algorithm
        self.policy, self.tokenizer, self.ends = policy, policy.tokenizer, policy.eos
        # a module of its own: what is removed or scaled below stays on the policy
        self.decoder = nnx.merge(*policy.weights)
        if row and row.needs_critic:
            self.decoder.value = None  # a critic's head: not part of the language model
        self.adapted = bool(lora.adapters(self.decoder))
        self.reward = bool(row and row.scores_responses)
        self.notes: list[str] = []
        if self.decoder.value is None:
            names = self.tokenizer.convert_ids_to_tokens(list(self.ends))
            self.notes.append(f"a response ends with {' or '.join(map(repr, names))}")

    def write_adapter(self, out: Path, shown: str) -> None:
        """Write a PEFT folder with tokenizer and chat template."""
        base = self.policy.path
        peft.save_adapter(self.decoder, out, base)
        if self.decoder.value is None:
            readers.write_generation(out, base, self.ends, self.tokenizer)
        self._finish(out, card.adapter_usage(shown, base, self._kind), "peft")

    def write_model(self, out: Path, shown: str, dtype: str, gain: float = 1.0) -> str:
        """Write the full model; return what was written, in words."""
        decoder, tokenizer, base = self.decoder, self.tokenizer, self.policy.path
        # adapters are merged into dense matrices: no other library reads these codes
        decoder = quant.dequantize(lora.merge(decoder) if self.adapted else decoder)
        stored = hub.stored_dtype(base) if dtype == "base" else jnp.dtype(dtype)
        settings: dict[str, Any] = {}
        if decoder.value is not None:
            # the head is linear, so a gain on its weights is a gain on the reward in any reader
            decoder.value.kernel = nnx.Param(decoder.value.kernel[...] * gain)
        # one that was not trained here keeps its padding, which decides where it is read
        if decoder.value is not None and self.policy.algorithm:
            if readers.pad_apart(tokenizer, decoder, self.ends):
                self.notes.append(f"the embedding has a row more, for {tokenizer.pad_token}")
            settings["pad_token_id"] = tokenizer.pad_token_id
        settings["eos_token_id"] = readers.one_or_all(self.ends)
        hub.save(decoder, out, dtype=stored, settings=settings)  # by all processes together
        if not hosts.is_main():
            return ""
        if decoder.value is None:
            readers.write_generation(out, base, self.ends, tokenizer)
        self.notes.append(f"weights in {stored.name}")
        if stored != jnp.float32:
            self.notes[-1] += ", rounded from float32 (--dtype float32 keeps what was trained)"
        chat = bool(tokenizer.chat_template)
        self._finish(out, card.usage(shown, self._kind, chat=chat), "transformers")
        return "the model with its adapters merged" if self.adapted else "the model"

    @property
    def _kind(self) -> str:
        if self.decoder.value is None:
            return "language model"
        return "reward model" if self.reward else "model with a scalar head"

    def _finish(self, out: Path, usage: str, library: str) -> None:
        if self.reward:
            readers.end_where_scored(self.tokenizer)
        self.tokenizer.save_pretrained(out)
        facts = self.policy.facts
        card.write(out, facts, card.title_of(facts), usage, library)


def save(policy: Policy, folder: Path, *, adapter: bool, dtype: str, overwrite: bool) -> None:
    """Implement `Policy.save`.

    Raises:
      ValueError: the folder already holds a model, or there is no adapter.
    """
    exported, shown = Exported(policy), str(folder)
    if adapter and not exported.adapted:
        raise ValueError("the whole model was trained: there is no adapter; leave out adapter=True")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    model_folder.check(shown, overwrite)
    write = partial(exported.write_model, dtype=dtype)
    with jax.set_mesh(policy.mesh), model_folder.written(shown, overwrite) as out:
        (exported.write_adapter if adapter else write)(out, shown)
