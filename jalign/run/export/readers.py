"""Settings that loaders of an exported model need besides its weights: end tokens, pad token, chat
template.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import nnx

from jalign.data.chat import Template
from jalign.models import hub
from jalign.models.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GENERATION_FILE = "generation_config.json"
_PAD = "<|pad|>"


def write_generation(
    folder: Path, base: str, ends: tuple[int, ...], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write generation_config.json: the base's own, with the end tokens of responses."""
    theirs = hub.find(base) / GENERATION_FILE
    generation_config = json.loads(theirs.read_text(encoding="utf-8")) if theirs.is_file() else {}
    if tokenizer.bos_token_id is not None:
        generation_config.setdefault("bos_token_id", tokenizer.bos_token_id)
    if generation_config.get("pad_token_id") is None:
        pad = tokenizer.pad_token_id
        generation_config["pad_token_id"] = ends[0] if pad is None else pad
    generation_config["eos_token_id"] = one_or_all(ends)
    (folder / GENERATION_FILE).write_text(
        json.dumps(generation_config, indent=2) + "\n", encoding="utf-8"
    )


def one_or_all(ids: tuple[int, ...]) -> int | list[int]:
    """A single id, or a list of several, as in Hugging Face's configs."""
    return ids[0] if len(ids) == 1 else list(ids)


def pad_apart(tokenizer: Any, decoder: Decoder, ends: tuple[int, ...]) -> bool:
    """Give the tokenizer of a reward model a pad token that is not an end token: transformers reads
    the reward at the last token that is not padding. If no special token is free, one is added;
    return whether the embedding had to grow for it.
    """
    special = [
        str(token)
        for i, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and i < decoder.spec.vocab_size
    ]
    meant = [token for token in special if re.search("pad|reserved|unused", token.lower())]
    # the least harmful first: what training never wrote, then what the data hardly hold
    own = [tokenizer.pad_token, tokenizer.unk_token]
    for token in (*own, *meant, tokenizer.bos_token, *special):
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in ends:
            tokenizer.pad_token = token
            return False
    tokenizer.add_special_tokens({"pad_token": _PAD})
    # embeddings are often padded beyond the tokenizer: then there is a row already
    missing = tokenizer.pad_token_id + 1 - decoder.spec.vocab_size
    if missing <= 0:
        return False
    table = decoder.embed.weight[...]
    rows = jnp.zeros((missing, table.shape[1]), table.dtype)
    decoder.embed.weight = nnx.Param(jnp.concatenate([table, rows]))
    options = json.loads(decoder.source or "{}")
    decoder.source = json.dumps(options | {"vocab_size": tokenizer.pad_token_id + 1})
    return True


def end_where_scored(tokenizer: PreTrainedTokenizerBase) -> None:
    """Change the chat template of a reward model so that conversations end at the scored token.

    Text after the last end of turn is dropped; a template without end of turn gets the EOS, as in
    training.
    """
    if not tokenizer.chat_template:
        return
    template = Template.of(tokenizer)
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = template.render(turn)
    end = template.end_of_turn
    tail = text.rpartition(end)[2] if end else template.tail
    if end and not tail:
        return
    rest = f".removesuffix({json.dumps(tail)})" if tail else ""
    eos = "" if end else " + eos_token"
    source = template.source.removesuffix("\n")  # Jinja drops it only at the end of a file
    start = "\n" if source.startswith("\n") else ""  # and the one after a block
    tokenizer.chat_template = (
        "{% set conversation %}" + start + source + "{% endset %}"
        "{{ conversation if add_generation_prompt else conversation" + rest + eos + " }}"
    )
