"""A trained reward model as a function of texts.

The reward is read at the last token of a response (its EOS unless it was cut), as in training
(Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, section 3.4). Models of other makers are
read where transformers reads them: at the last token of the conversation that is not padding.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from transformers import AutoConfig, PreTrainedTokenizerBase

from jalign.core import did_you_mean
from jalign.data.chat import Template, load_tokenizer
from jalign.data.drafts import is_chat
from jalign.data.examples import Example, Examples
from jalign.data.lay_out import pack, padded_shape
from jalign.data.records import Message, Record, parse
from jalign.data.tokenize import tokenize
from jalign.data.turns import joined
from jalign.layout import Batch, Layout
from jalign.models import hub
from jalign.models.decoder import Decoder
from jalign.models.families.wrapped import text_name
from jalign.models.keys import SCORE
from jalign.models.limits import check_rows
from jalign.models.safetensors_io import Checkpoint
from jalign.models.score import score
from jalign.parallel import hosts

LOG = logging.getLogger(__name__)

REWARD_FILE = "reward.json"
"""File beside an exported reward model: its bias (Hugging Face's heads have none), the gain already
folded into its weights, and its length limits in training. Each may be missing."""

PLACEHOLDER = "a"  # a response of which only the EOS is scored

BATCH_SIZE = 32  # responses per call of the model

READ_AT = ("end", "last")

Prompt = str | Sequence[Message]


class RewardModel:
    """`model(prompts, responses)`: one number per response, higher is better.

    Args:
      model: a decoder with a scalar head of one output, or its `nnx.split`.
      tokenizer: the one it was trained with.
      bias: added to the output of the head (`losses.fit_normalization`).
      max_prompt_len, max_response_len: as in training, in tokens: a longer prompt loses its front,
        a longer response its end. None: any.
      keep_eos: as in training: a cut response still ends with an EOS.
      template: as in training, for prompts that are messages; None is the tokenizer's own.
      read_at: where the reward is read: "end", the token that ends the response, as in training
        here; "last", the last token that is not padding, as transformers' sequence classification
        does. Chat templates may write tokens after the end of a turn. Not with limits of lengths.
      pad_token: id of padding, for "last": it may be a token that ends responses.
      batch_size: most responses of one call of the model.

    Raises:
      ValueError: a model without a scalar head, or with several outputs, or options that
        contradict each other.
    """

    def __init__(
        self,
        model: Decoder | tuple[nnx.GraphDef, nnx.State],
        tokenizer: PreTrainedTokenizerBase,
        *,
        bias: float = 0.0,
        max_prompt_len: int | None = None,
        max_response_len: int | None = None,
        keep_eos: bool = False,
        template: str | None = None,
        read_at: str = "end",
        pad_token: int | None = None,
        batch_size: int = BATCH_SIZE,
    ):
        # Split once: jit takes the state as an argument, else weights become its constants.
        self._split = model if isinstance(model, tuple) else nnx.split(model)
        decoder = nnx.merge(*self._split)
        if decoder.value is None:
            raise ValueError("a reward model has a scalar head, and this model has none")
        if (outputs := decoder.value.kernel.shape[1]) != 1:
            raise ValueError(f"a reward is one number, and the head of this model gives {outputs}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if read_at not in READ_AT:
            raise ValueError(f"read_at={read_at!r} is unknown{did_you_mean(read_at, READ_AT)}")
        if read_at == "last" and (max_prompt_len or max_response_len or keep_eos):
            raise ValueError("a reward at the last token is that of a whole text: set no limits")
        self.tokenizer, self.bias, self.template = tokenizer, bias, template
        self.read_at, self.pad_token = read_at, pad_token
        self.batch_size = batch_size
        self.step: int | None = None  # of the run that it was read from
        self._spec, self._warned = decoder.spec, False
        self._limits: dict[str, Any] = {
            # A table of positions ends; rotary ones do not, and `check_rows` warns of those.
            "max_len": decoder.spec.learned_positions,
            "max_prompt_len": max_prompt_len,
            "max_response_len": max_response_len,
            "keep_eos": keep_eos,
        }

    @classmethod
    def load(
        cls,
        name: str | os.PathLike,
        *,
        dtype: DTypeLike = jnp.float32,
        mesh: Mesh | None = None,
        **options: object,
    ) -> RewardModel:
        """A sequence-classification model with one label: a folder that `jalign export` wrote, or
        any other in Hugging Face's format (also on the hub).

        Args:
          dtype: of the computation and of the parameters, which are not trained.
          mesh: where the parameters are spread; None is one device.
          options: of the class; they override `reward.json`.

        Raises:
          ValueError: weights without `score.weight`, or with more than one label.
        """
        folder = hub.find(name)
        # The header alone: a folder without a head is refused before its weights are read.
        if not (labels := labels_of(folder)):
            raise ValueError(f"{name} is no reward model: its weights have no {SCORE}")
        model = hub.load(folder, dtype=dtype, param_dtype=dtype, value_head=labels, mesh=mesh)
        return cls(model, load_tokenizer(folder), **reading_of(folder) | options)  # type: ignore

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """[n] float32 rewards; -inf where a response is empty or blank.

        A prompt is text, or messages to which the response is the assistant's reply. An EOS is
        appended to every response, including those that the sampler truncated.

        Raises:
          ValueError: not as many prompts as responses.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts and {len(responses)} responses")
        pairs = enumerate(zip(prompts, responses, strict=True))
        rows = [(i, {"prompt": prompt, "completion": text}) for i, (prompt, text) in pairs]
        records = [parse(row, "supervised")._replace(row=i) for i, row in rows]
        examples = self.tokenized(records)
        rewards = np.full(len(records), -math.inf, np.float32)
        if len(examples):
            rewards[np.asarray(examples.extras["row"])] = self.of_examples(examples)
        return rewards

    def of_sampled(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """[n] float32 rewards as of a call, except for empty or blank responses.

        Their reward is the output of the head at an EOS right after the prompt, so a policy that
        stops at once learns its value. -inf only if the prompt has no token either.
        """
        blank = [not text.strip() for text in responses]
        rewards = self(prompts, responses)
        given = [i for i, empty in enumerate(blank) if empty]
        rows = [{"prompt": prompts[i], "completion": PLACEHOLDER} for i in given]
        records = [
            parse(row, "supervised")._replace(row=i) for i, row in zip(given, rows, strict=True)
        ]
        ends = [e for e in self._at_once(records) if len(e.prompt)]
        if ends:
            rewards[[int(e.extras["row"]) for e in ends]] = self.of_examples(ends)
        return rewards

    def _at_once(self, records: Sequence[Record]) -> list[Example]:
        """Examples in which the response of each record ends before its first token."""
        if self.read_at == "last":
            return [self._to_last(record, empty=True) for record in records]
        last = slice(-1, None)  # the EOS
        return [
            e._replace(responses=(e.responses[0][last],), scored=(e.scored[0][last],))
            for e in (self.tokenized(records) if records else ())
        ]

    @property
    def state(self) -> nnx.State:
        """Its weights."""
        return self._split[1]

    def tokenized(self, records: Sequence[Record]) -> Examples:
        """The records tokenized as in training, without those that training would drop."""
        chat = any(not isinstance(record.prompt, str) for record in records)
        # `tokenize` refuses a template for plain text.
        template = self.template if chat else None
        if self.read_at == "last":
            examples = Examples.from_list(self._to_last(r) for r in records if not _is_blank(r))
        else:
            examples = tokenize(records, self.tokenizer, template=template, **self._limits)
        self._check(examples)
        return examples

    def _to_last(self, record: Record, *, empty: bool = False) -> Example:
        """The whole text, scored at its last token that is not padding; with `empty`, without the
        words of the response.
        """
        if is_chat(record):
            prompt: list[Message] = list(cast(Any, record.prompt))
            (response,) = cast(Any, record.responses)
            response = [{**m, "content": ""} for m in response] if empty else response
            if prompt and prompt[-1]["role"] == "assistant":  # which the response continues
                response = [joined(prompt.pop(), response[0]), *response[1:]]
            template = Template.of(self.tokenizer, self.template)
            text = template.render([*prompt, *response], record.tools)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            (example,) = tokenize([record], self.tokenizer)
            response = example.responses[0][-1:] if empty else example.responses[0]
            ids = [*example.prompt.tolist(), *response.tolist()]
        # As transformers, also where padding is a token that ends texts; the first if all is.
        count = max((i + 1 for i, x in enumerate(ids) if x != self.pad_token), default=1)
        ids = np.asarray(ids[:count], np.int32)
        row = {"row": np.asarray(record.row, np.int32)}
        return Example(ids[:-1], (ids[-1:],), (np.ones(1, bool),), row)

    def _check(self, examples: Examples) -> None:
        """Check that all tokens have embeddings; warn once if rows exceed the trained context."""
        rows = [np.concatenate([e.prompt, response]) for e in examples for response in e.responses]
        what = "the reward model's response"
        warning = check_rows(
            rows, self._spec, tokenizer=self.tokenizer, what=what, model="the reward model"
        )
        if warning and not self._warned:
            self._warned = True
            LOG.warning("%s", warning)

    def of_examples(self, examples: Iterable[Example]) -> np.ndarray:
        """float32 rewards of the responses of all examples, concatenated."""
        rewards = [scores[-1] + self.bias for scores in self.at_scored(examples)]
        return np.array(rewards, np.float32)

    def at_scored(self, examples: Iterable[Example]) -> list[np.ndarray]:
        """Outputs of the head at the scored tokens, [scored tokens] float32, for the responses of
        all examples, concatenated; responses of similar length share a batch.
        """
        rows = Examples.from_list(
            Example(e.prompt, (response,), (scored,), {})
            for e in examples
            for response, scored in zip(e.responses, e.scored, strict=True)
        )
        order = np.argsort(rows.lengths.row_tokens, kind="stable")
        by_row = [np.zeros(0, np.float32)] * len(rows)
        for start in range(0, len(rows), self.batch_size):
            batch = padded(rows, order[start : start + self.batch_size], self.batch_size)
            # One transfer per batch; converting in the loop below would wait for each row.
            scores = hosts.gather(scores_of(*self._split, batch.layout))
            for i, x, mask in zip(batch.extras["index"], scores, batch.mask, strict=True):
                if i >= 0:
                    by_row[i] = x[mask]
        return by_row


def _is_blank(record: Record) -> bool:
    (response,) = record.responses
    if isinstance(response, str):
        return not response.strip()
    return not any(str(cast(Any, m)["content"]).strip() for m in response)


def padded(rows: Examples, indices: np.ndarray, most: int) -> Batch:
    """A batch of padded rows in one of few shapes, since each is compiled: length and count (up to
    `most`) are rounded up to 2^k or 3 * 2^k.
    """
    length = _rounded(rows.lengths.row_tokens[indices].max(), least=32)
    slots = min(_rounded(len(indices), least=1), most)
    (batch,) = pack(rows, indices, padded_shape(slots, 1, length, length))
    return batch


@partial(jax.jit, static_argnums=0)
def scores_of(graphdef: nnx.GraphDef, state: nnx.State, layout: Layout) -> jax.Array:
    """[B, 1, R] outputs of the head at scored tokens; arbitrary elsewhere."""
    return score(nnx.merge(graphdef, state), layout, ("scores",))["scores"]


def labels_of(folder: Path) -> int:
    """Outputs of a checkpoint's scalar head; 0 if it has none."""
    with Checkpoint(folder, text_name) as checkpoint:
        return checkpoint.shapes.get(SCORE, (0,))[0]


def reading_of(folder: Path) -> dict[str, Any]:
    """Options of `RewardModel` with which the model of a folder is read: what `reward.json` says,
    or without one, what transformers does.
    """
    file = folder / REWARD_FILE
    if not file.is_file():
        config = AutoConfig.from_pretrained(folder).get_text_config()
        return {"read_at": "last", "pad_token": config.pad_token_id}
    try:
        limits = json.loads(file.read_text(encoding="utf-8"))
        known = {"bias": float, "max_prompt_len": int, "max_response_len": int, "keep_eos": bool}
        return {name: kind(limits[name]) for name, kind in known.items() if name in limits}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} must be an object of numbers: {error}") from error


def _rounded(n: int, least: int) -> int:
    """The smallest of 2^k and 3 * 2^k that is at least n and `least`."""
    power = 1 << max(int(n) - 1, 0).bit_length()
    return max(power * 3 // 4 if power >= 4 and n <= power * 3 // 4 else power, least)
