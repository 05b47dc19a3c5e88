"""One rollout: prompts, the responses sampled to them, and what models and rewards say of those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jalign.core import Arrays, Frozen
from jalign.data.collate import Field
from jalign.data.examples import Example, Examples
from jalign.data.lay_out import lay_out
from jalign.data.packing import Bin, Demands, Shape, assign, demands_of, fractions_of_stream
from jalign.layout import Batch, MicroBatches
from jalign.parallel import hosts
from jalign.parallel.hosts import to_global
from jalign.parallel.mesh import batch_shards
from jalign.rollout.groups import Responses
from jalign.train.objective import Apply
from jalign.train.source import SPLIT

# Parts of the longest prompt, responses and row for which there are shapes: of every level that is
# met a run compiles its programs, and which one is met must follow from the examples alone.
PROMPT_LEVELS = ROW_LEVELS = (0.5, 1.0)
RESPONSE_LEVELS = (0.25, 0.5, 0.75, 1.0)

FROM_MODELS = ("old_token_logps", "ref_token_logps", "values")


class Judged(NamedTuple):
    """What rewards say of K responses to each of B prompts; None where nothing was asked.

    Attributes:
      scores: [B, K] float64, NaN where a reward is missing.
      win_probs: [B, K, K] probability that the first response is preferred to the second, NaN where
        that is not known.
      metrics: means of the parts of the reward, and counts of failures, for the log.
      step_scores: [B][K] float64, one per token: the reward of a step at its last token, NaN at
        the others. `scores` are then their means, NaN where the reward of a step is missing.
      failures: name of a reward that failed -> for how many and why.
    """

    scores: np.ndarray | None
    win_probs: np.ndarray | None
    metrics: dict[str, float]
    step_scores: list[list[np.ndarray]] | None = None
    failures: Mapping[str, str] = MappingProxyType({})


def padded(rows: Sequence[Sequence[np.ndarray]], length: int, fill: float) -> np.ndarray:
    """[B, K, length] float32 of B x K arrays of numbers per token."""
    out = np.full((len(rows), len(rows[0]), length), fill, np.float32)
    for b, row in enumerate(rows):
        for k, x in enumerate(row):
            out[b, k, : len(x)] = x
    return out


def model_fields(apply: Apply, temperature: float) -> Callable[..., Arrays]:
    """`(params, frozen, batch, names) -> {name: [B, K, R]}` for names out of old_token_logps,
    ref_token_logps and values; jit it with `names` static.
    """

    def read(params: Any, frozen: Frozen, batch: Batch, names: tuple[str, ...]) -> Arrays:
        found, shape = {}, batch.mask.shape
        own = {"old_token_logps": "token_logps", "values": "values"}
        if outputs := tuple(own[n] for n in own if n in names):
            out = apply(params, frozen.base, batch.layout, outputs, None, temperature=temperature)
            found |= {n: out[o] for n, o in own.items() if n in names}
        if "ref_token_logps" in names:
            out = apply(
                frozen.ref,
                frozen.base,
                batch.layout,
                ("token_logps",),
                None,
                temperature=temperature,
            )
            found["ref_token_logps"] = out["token_logps"]
        return {n: jnp.where(batch.mask, x.reshape(shape), 0.0) for n, x in found.items()}

    return read


def examples_of(prompts: Sequence[np.ndarray], responses: Responses, here: np.ndarray) -> Examples:
    """Prompts with their K responses; those without a reward (`here` [B, K] False) have no scored
    tokens.
    """
    return Examples.from_list(
        Example(
            np.asarray(prompt, np.int32),
            tuple(tokens),
            tuple(np.full(len(t), bool(ok)) for t, ok in zip(tokens, oks, strict=True)),
            {},
        )
        for prompt, tokens, oks in zip(prompts, responses.tokens, here, strict=True)
    )


def bins_of(
    *, examples: int, responses: int, prompt_len: int, response_len: int, max_tokens: int,
    streams: int, multiple: int, of_prompt: float = 1.0, of_responses: float = 1.0,
    of_row: float = 1.0,
) -> tuple[Shape, int]:  # fmt: skip
    """The shape of a micro-batch, and how many of it a step needs at most: for examples however
    long they are, or for such as take on average these parts of the longest prompt, of the longest
    responses and, each of them, of the longest row. Examples are spread evenly over the
    micro-batches.
    """
    up = lambda x: -(-ceil(x) // multiple) * multiple  # noqa: E731
    scored = ceil(of_responses * responses * response_len)
    most = ceil(of_prompt * prompt_len) + scored
    each = -(-examples // streams)
    fit = max(1, max_tokens // most)
    parts = -(-each // fit)
    fit = -(-each // parts)
    shape = Shape(
        streams=streams,
        tokens=up(fit * most + 1),
        rows=fit * responses,
        row_len=up(of_row * (prompt_len + response_len)),
        scored=up(fit * scored),
        prompts=fit,
        responses=responses,
        response_len=response_len,
    )
    return shape, parts


def assigned(demands: Demands, shape: Shape, parts: int) -> list[Bin] | None:
    """Which example goes where, or None if so many bins of the shape do not hold them all."""
    if demands.each and max(fractions_of_stream(demands.each, shape)) > 1:
        return None
    [bins] = assign(demands, [shape])
    return bins if len(bins) <= parts else None


def pack(
    examples: Examples,
    numbers: Sequence[int],
    shape: Shape,
    parts: int,
    own: slice,
    fields: Mapping[str, Field],
) -> tuple[MicroBatches, ...]:
    """The numbered examples in bins of a shape; `own` are the streams this process lays out."""
    bins = assigned(demands_of(examples.lengths.take(numbers)), shape, parts)
    assert bins is not None
    local = shape._replace(streams=len(range(*own.indices(shape.streams))))
    mine = [streams[own] for streams in bins]
    return (lay_out(mine, examples, numbers, local, fields, parts),)


@dataclass(frozen=True)
class Bins:
    """Micro-batches for prompts and responses of at most these lengths, in the smallest of a few
    static shapes that holds what there is: a step costs what its tokens do, not what the longest
    would, and a run compiles a handful of programs.

    Attributes:
      mesh: over all devices.
      prompt_len, response_len: most tokens.
      max_tokens: most tokens of a micro-batch on one device, unless one example has more.
      multiple: row lengths and token budgets are multiples of it.
    """

    mesh: Mesh
    prompt_len: int
    response_len: int
    max_tokens: int
    multiple: int

    def of(
        self,
        examples: Examples,
        numbers: Sequence[int],
        responses: int,
        fields: Mapping[str, Field],
        places: int,
    ) -> tuple[MicroBatches, ...]:
        """The numbered examples of so many responses each on the device, with room for `places`
        examples.
        """
        streams = batch_shards(self.mesh)
        shape, parts = self.shape_for(examples, numbers, responses, places, streams)
        each = streams // jax.process_count()
        own = slice(jax.process_index() * each, (jax.process_index() + 1) * each)
        return to_global(self.mesh, SPLIT, pack(examples, numbers, shape, parts, own, fields))

    def shape_for(
        self,
        examples: Examples,
        numbers: Sequence[int],
        responses: int,
        places: int,
        streams: int,
    ) -> tuple[Shape, int]:
        """The shape of the micro-batches for these examples, and how many of them at most."""
        whole = partial(
            bins_of,
            examples=max(len(numbers), places),
            responses=responses,
            prompt_len=self.prompt_len,
            response_len=self.response_len,
            max_tokens=self.max_tokens,
            streams=streams,
            multiple=self.multiple,
        )
        demands = demands_of(examples.lengths.take(numbers))
        longest = max(demands.longest, default=0) / (self.prompt_len + self.response_len)
        of_row = next((level for level in ROW_LEVELS if longest <= level), 1.0)
        found = [
            whole(of_prompt=p, of_responses=r, of_row=of_row)
            for p in PROMPT_LEVELS
            for r in RESPONSE_LEVELS
        ]
        for shape, parts in sorted(found, key=lambda x: x[0].slots * x[1]):
            if assigned(demands, shape, parts) is not None:
                return shape, parts
        return whole()


class Reader:
    """What the models say of responses, token by token; `options` are the compiler's."""

    def __init__(
        self,
        apply: Apply,
        temperature: float,
        bins: Bins,
        options: Mapping[str, Any] | None = None,
    ):
        self.bins = bins
        read = model_fields(apply, temperature)
        self._read = jax.jit(read, static_argnames="names", compiler_options=dict(options or {}))

    def __call__(
        self,
        prompts: Sequence[np.ndarray],
        responses: Responses,
        names: Sequence[str],
        params: Any,
        frozen: Frozen,
    ) -> dict[str, np.ndarray]:
        """{name: [B, K, R]} float32 for names out of `FROM_MODELS`; 0 where there is no token."""
        b, k = len(prompts), len(responses.tokens[0])
        examples = examples_of(prompts, responses, np.ones((b, k), bool))
        shape = (b, k, self.bins.response_len)
        found = {name: np.zeros(shape, np.float32) for name in names}
        for stack in self.bins.of(examples, range(b), k, {}, b):
            for i in range(int(stack.count)):
                batch = stack.micro_batch(i)
                out = self._read(params, frozen, batch, names=tuple(sorted(names)))
                index = hosts.gather(batch.extras["index"])
                for name, x in out.items():
                    found[name][index[index >= 0]] = hosts.gather(x)[index >= 0]
        return found
