"""A policy as a model of lm_eval (EleutherAI's harness). Needs the extra `eval`.

Log-likelihoods come from the scorer, generated text from the engine of `jalign.serve`, on the
device that the policy is on. Tokens are those that lm_eval's own `hf` model would feed, so that
scores of the same weights agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from jalign.core import did_you_mean
from jalign.data.records import Message
from jalign.data.templates import template_source
from jalign.layout import Layout
from jalign.models.score import score
from jalign.parallel import hosts
from jalign.rewards.model import _rounded
from jalign.rollout.text import prompt_ids
from jalign.run.policy import Policy
from jalign.serve.engine import Engine
from jalign.serve.types import Limits, Request

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    Pair = tuple[Any, Sequence[int], Sequence[int]]
    """(key, tokens of the context, tokens of the continuation)."""

LONGEST = 2048  # tokens of a model whose config names no context; as in lm_eval
SAMPLING = ("temperature", "top_k", "top_p", "min_p")
"""What a task may set in `generation_kwargs` besides `until`, `do_sample` and the length."""


class JalignLM(TemplateLM):
    """`lm_eval.simple_evaluate(model=JalignLM(policy), tasks=[...])`.

    Args:
      policy: a policy that `jalign.load` or a run returned.
      batch_size: rows of one call of the model, and responses that are sampled at once.
      max_length: most tokens of a context with its continuation; longer contexts lose their front.
        None: the model's context.
      max_gen_toks: most tokens of a response where the task sets none.
      seed: of sampling, where the task asks for it.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        seed: int = 0,
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.policy, self.tokenizer, self.batch_size = policy, policy.tokenizer, batch_size
        spec = policy.decoder.spec
        self.max_length = max_length or spec.learned_positions or spec.context or LONGEST
        self.max_gen_toks, self.seed = max_gen_toks, seed
        # split once: jit takes the weights as an argument, else they become its constants
        self._split = policy.weights

    @property
    def eot_token_id(self) -> int:
        """The id of EOS."""
        return int(self.tokenizer.eos_token_id)  # type: ignore[arg-type]

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is replaced by: BOS, or EOS without one."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)  # type: ignore[arg-type]

    @property
    def tokenizer_name(self) -> str:
        """For lm_eval's caches of requests."""
        return self.policy.path.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **unused: object
    ) -> list[int]:
        """Ids of a text; with BOS by default where the tokenizer adds one and the text has none."""
        bos = str(self.tokenizer.bos_token or "")
        if add_special_tokens is None and bos and string.startswith(bos):
            add_special_tokens = False
        if add_special_tokens is False:
            return self.tokenizer(string, add_special_tokens=False)["input_ids"]
        return prompt_ids(self.tokenizer, string)

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **unused: object
    ) -> list[tuple[float, bool]]:
        """(log p(continuation | context) in nats, whether greedy decoding would give it) each."""
        rows = [
            (self._cut(list(context), list(after)), len(after)) for _, context, after in requests
        ]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        width = max((n for _, n in rows), default=1)
        out: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        with jax.set_mesh(self.policy.mesh):
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                layout = padded([rows[i] for i in batch], self.batch_size, width)
                logps, others = map(hosts.gather, _logps(*self._split, layout))
                for i, logp, other in zip(batch, logps, others, strict=False):
                    n = rows[i][1]
                    # the likeliest other token is no likelier: greedy decoding takes this one
                    out[i] = (float(logp[:n].sum()), bool((logp[:n] >= other[:n]).all()))
        for (key, *_), answer in zip(requests, out, strict=True):
            if key is not None:  # of a window of a rolling log-likelihood
                self.cache_hook.add_partial("loglikelihood", key, answer)
        return out

    def _cut(self, context: list[int], continuation: list[int]) -> list[int]:
        """Both, without the front of the context where they are too long: the last token is only
        predicted, so that one more than `max_length` fits.
        """
        if not continuation or len(continuation) > self.max_length:
            raise ValueError(
                f"a continuation must have 1 to {self.max_length} tokens, got {len(continuation)}"
            )
        return (context + continuation)[-(self.max_length + 1) :]

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """log p of each text in nats, in windows of at most `max_length` tokens, each of which is
        conditioned on one token.
        """
        windows: list[Pair] = []
        owners: list[int] = []
        for i, request in enumerate(requests):
            (text,) = request.args
            parts = get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
            )
            windows += [(None, *make_disjoint_window(part)) for part in parts]
            owners += [i] * (len(windows) - len(owners))
        totals = [0.0] * len(requests)
        for owner, (logp, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += logp
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """A response to each context, which ends before a stop string, at an end token, or at its
        most tokens.

        Raises:
          ValueError: a task sets something that the sampler does not have.
        """
        asked = [self._request(i, *request.args) for i, request in enumerate(requests)]
        if not asked:
            return []
        longest = max(len(request.prompt) + request.max_tokens for request in asked)
        # no longer than these requests need: a row of the cache is as long as the longest
        limits = Limits(rows=min(self.batch_size, len(asked)), max_len=longest)
        with Engine({"model": self.policy}, limits) as engine:
            texts = [completion.text for completion in engine.complete(asked)]
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _request(self, number: int, context: str, kwargs: Mapping[str, Any]) -> Request:
        options: dict[str, Any] = dict(normalize_gen_kwargs(dict(kwargs), self.max_gen_toks))
        until, most = options.pop("until", None) or [], options.pop("max_gen_toks")
        # as in lm_eval: greedy, unless the task asks for sampling
        options.setdefault("temperature", float(options.pop("do_sample", False)))
        for name in options:
            if name not in SAMPLING:
                near = did_you_mean(name, SAMPLING)
                raise ValueError(f"generation_kwargs: no option {name!r}{near}")
        room = self.max_length
        if not 0 < most < room:
            raise ValueError(f"max_gen_toks must be in [1, {room - 1}], got {most}")
        stop = (until,) if isinstance(until, str) else tuple(filter(None, until))
        ids = self.tok_encode(context)[-(self.max_length - most) :]
        return Request(
            prompt=tuple(ids or [self.prefix_token_id]), max_tokens=most, stop=stop,
            seed=self.seed + number, **options,
        )  # fmt: skip

    def apply_chat_template(
        self, chat_history: list[Message], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the model's template renders it."""
        text = self.tokenizer.apply_chat_template(
            chat_history,  # type: ignore[arg-type]
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return str(text)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template that will be used; None if none is asked for.

        Raises:
          ValueError: the tokenizer has no template.
        """
        if not chat_template:
            return None
        if isinstance(chat_template, str):
            self.tokenizer.chat_template = template_source(self.tokenizer, chat_template)
        if not self.tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template")
        return str(self.tokenizer.chat_template)


def padded(rows: Sequence[tuple[list[int], int]], count: int, width: int) -> Layout:
    """Rows of token ids of which the last n are scored, one stream each; length and width are
    rounded up, because each new shape compiles the model again.

    Args:
      rows: (ids, n).
      count: rows of the layout; missing ones are empty.
      width: most scored tokens of a row.
    """
    length = _rounded(max(len(ids) for ids, _ in rows), least=32)
    width = min(_rounded(width, least=1), length)
    tokens, positions = np.zeros((2, count, length), np.int32)
    before, at = np.zeros((2, count, width), np.int32)
    for row, (ids, n) in enumerate(rows):
        # the last token is never read as input, which lies behind the last position of a table
        tokens[row, : len(ids)] = ids
        positions[row, : len(ids) - 1] = np.arange(len(ids) - 1)
        at[row, :n] = np.arange(len(ids) - n, len(ids))
        before[row, :n] = at[row, :n] - 1
    slots = np.tile(np.arange(width, dtype=np.int32), (count, 1, 1, 1))
    return Layout(tokens, positions, before, at, slots)


@partial(jax.jit, static_argnums=0)
def _logps(graphdef: nnx.GraphDef, state: nnx.State, layout: Layout) -> tuple[jax.Array, jax.Array]:
    """[rows, width] log-probs of the scored tokens, and of the likeliest other ones, nats."""
    out = score(nnx.merge(graphdef, state), layout, ("token_logps", "competitor_logps"))
    return jnp.squeeze(out["token_logps"], 1), jnp.squeeze(out["competitor_logps"], 1)
