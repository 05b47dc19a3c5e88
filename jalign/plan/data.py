"""Batches for a plan: all examples have the maximum allowed length."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.data.collate import Field
from jalign.data.examples import Example, Examples
from jalign.data.lay_out import lay_out
from jalign.data.packing import demands_of
from jalign.data.pipeline import Batches
from jalign.layout import Layout, MicroBatches
from jalign.models.spec import Spec
from jalign.options import RunOptions
from jalign.options.data import EMBEDDED
from jalign.parallel.mesh import batch_shards
from jalign.plan import work
from jalign.plan.work import Rows
from jalign.run import data as build_data
from jalign.run import rollouts as build_online
from jalign.run.batches import reads_mismatched, spec_of
from jalign.train.micro_batches import bin_shape, fit_into
from jalign.train.source import SPLIT

LIST = 4  # assumed responses per prompt if only the data determine their number


def longest(options: RunOptions, spec: Spec) -> tuple[int, int]:
    """Maximum tokens of a prompt and of a response, within the model's learned positions."""
    room = spec.learned_positions
    prompt, response = options.data.max_prompt_len, options.data.max_response_len
    if options.algorithm.experience:
        response = build_online.spec_of(options).response_len
    if room is not None and prompt + response > room:
        prompt, response = room - room // 2, room // 2
    return prompt, response


def steps_of(options: RunOptions) -> int:
    """Optimizer steps of the run; 0 if they depend on data that are not available locally."""
    if options.steps:
        return options.steps
    names = build_data.names_of(options.data.train)
    if not all(name in EMBEDDED or Path(name).expanduser().exists() for name in names):
        return 0  # a plan downloads nothing
    try:
        count = len(build_data.all_rows(options)[0])
    except (ValueError, OSError):
        return 0
    return max(1, int(options.epochs * count / options.batch_size))


def offline_data(options: RunOptions, mesh: Mesh, spec: Spec) -> tuple[MicroBatches, ...]:
    """The data of one step of an offline run, from the real pipeline."""
    k = responses_of(options)
    examples = longest_examples(options, spec, options.batch_size, k)
    batches = Batches(examples, spec_of(options, examples, mesh, spec, options.batch_size))
    data = next(batches.eval_batches())
    return _with_reference(options, data) if options.reference == "cached" else data


def responses_of(options: RunOptions) -> int:
    """Responses per example of an offline run."""
    if reads_mismatched(options):
        return 1
    return options.algorithm.format.k or LIST


def online_data(options: RunOptions, mesh: Mesh, spec: Spec) -> tuple[MicroBatches, ...]:
    """The data of one step of an online run."""
    rollout, row = build_online.spec_of(options), options.algorithm
    k = row.format.k or rollout.responses
    # `data.pretraining` adds one text per prompt
    slots = rollout.batch_size * (2 if options.data.pretraining is not None else 1)
    examples = longest_examples(options, spec, slots, k)
    prompt, response = longest(options, spec)
    shape, count = bin_shape(
        examples=slots,
        responses=k,
        prompt_len=prompt,
        response_len=response,
        max_tokens=rollout.max_tokens,
        streams=batch_shards(mesh),
        multiple=rollout.multiple,
    )
    fields = {name: Field(_axes(options, name), np.float32) for name in _extras(options)}
    if slots > rollout.batch_size:
        fields["pretraining"] = Field("", np.float32)
        examples.extras["pretraining"] = np.zeros(slots, np.float32)
    packing = fit_into(demands_of(examples.lengths), shape, count)
    assert packing is not None  # the shape was computed for these lengths
    return (lay_out(packing.bins, examples, range(slots), packing.shape, fields, packing.room),)


def abstract(mesh: Mesh, data: tuple[MicroBatches, ...]) -> tuple[MicroBatches, ...]:
    """Shapes of the arrays of a step, sharded over a mesh."""

    def on_mesh(x: Any) -> jax.ShapeDtypeStruct:
        x = np.asarray(x)
        sharding = NamedSharding(mesh, SPLIT if x.ndim else PartitionSpec())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(on_mesh, data)


def rows_of(data: tuple[MicroBatches, ...]) -> list[Rows]:
    """Shapes of the model's inputs in a step."""
    shapes = []
    for stack in data:
        layout, count = stack.batch.layout, int(stack.count)
        streams, tokens = layout.tokens.shape[1:]
        rows, length = (1, tokens) if layout.rows is None else layout.rows.shape[2:]
        scored = layout.at.shape[-1]
        n = count * streams
        shapes.append(Rows(n * tokens, n * rows, length, n * scored))
    return shapes


def used_rows(data: tuple[MicroBatches, ...]) -> list[Rows]:
    """The part of `rows_of` that examples use: their tokens, rows by length, scored tokens."""
    lengths: Counter[int] = Counter()
    tokens = scored = 0
    for stack in data:
        layout, count = stack.batch.layout, int(stack.count)
        by_row = _row_lengths(layout, count)
        lengths.update(by_row.ravel().tolist())
        if layout.rows is None:
            tokens += int(by_row.sum())
        else:
            nowhere = layout.rows[0, 0].size
            tokens += int((layout.inverse.first[:count] < nowhere).sum())
        scored += int(stack.batch.mask[:count].sum())
    del lengths[0]  # empty rows
    return [Rows(tokens, 0, 1, scored), *(Rows(0, n, length, 0) for length, n in lengths.items())]


def real_tokens(data: tuple[MicroBatches, ...]) -> int:
    """Tokens of the examples of a step; a shared prompt counts once per response."""
    return sum(int(_row_lengths(stack.batch.layout, int(stack.count)).sum()) for stack in data)


def _row_lengths(layout: Layout, count: int) -> np.ndarray:
    """Tokens of each row of the first `count` micro-batches, [count, S, M] or padded [count, S];
    every example of a plan ends with a scored token.
    """
    if layout.rows is None:
        last = layout.at[:count].max(-1)
        return np.where(last > 0, last + 1, 0)
    empty = layout.tokens.shape[-1] - 1
    return (layout.rows[:count] != empty).sum(-1)


def step_flops(
    options: RunOptions, spec: Spec, data: tuple[MicroBatches, ...]
) -> tuple[float, float]:
    """FLOPs of an optimizer step on these batches: of the tokens of its examples without
    recomputation, and of all that is computed.
    """
    again = options.algorithm.batch_coupled and sum(int(stack.count) for stack in data) > 1
    useful, _ = _flops(options, spec, used_rows(data), again)
    return useful, _flops(options, spec, rows_of(data), again)[1]


def _flops(options: RunOptions, spec: Spec, rows: list[Rows], again: bool) -> tuple[float, float]:
    """FLOPs of a step on these rows, without and with recomputation; `again`: the policy runs
    forward twice.
    """
    algorithm = options.algorithm
    counted = partial(
        work.step,
        spec,
        rows,
        adapters=bool(options.model.lora or options.model.adapter),
        remat=options.model.remat,
    )
    reads_reference = algorithm.needs_reference() and options.reference != "cached"
    flops = counted(
        # an online run scores with its reference once per rollout, before its steps
        reference=reads_reference and not algorithm.experience,
        again=again,
        vocabulary=not algorithm.needs_value_head,
    )
    if not algorithm.needs_critic or options.model.critic == "shared":
        return flops
    critic = counted(vocabulary=False)
    return flops[0] + critic[0], flops[1] + critic[1]


def _extras(options: RunOptions) -> list[str]:
    """Columns that the loss reads from the data."""
    row = options.algorithm
    return sorted(set(row.inputs()) & row.format.data_fields)


def _axes(options: RunOptions, name: str) -> str:
    """Axes of a column after [B], in the letters of `data.collate`."""
    form = options.algorithm.format
    axes = form.axes.get(name, "B").removeprefix("B").replace("R", "KR")
    # each sample is an example of its own
    return "K" if form.policy_samples and not axes else axes


def _with_reference(
    options: RunOptions, data: tuple[MicroBatches, ...]
) -> tuple[MicroBatches, ...]:
    """The columns of a cached reference, as `train.reference` adds them."""
    row, extended = options.algorithm, []
    names = [n for n in row.inputs() if n.startswith("ref_")]
    for stack in data:
        batch = stack.batch
        sizes = dict(zip("KR", batch.mask.shape[-2:], strict=True))
        extras = dict(batch.extras)
        for name in names:
            axes = row.format.axes.get(name, "B").removeprefix("B")
            shape = (*extras["index"].shape, *(sizes[a] for a in axes))
            extras[name] = np.zeros(shape, np.float32)
        extended.append(stack._replace(batch=batch._replace(extras=extras)))
    return tuple(extended)


def longest_examples(options: RunOptions, spec: Spec, count: int, k: int) -> Examples:
    """`count` examples of the maximum allowed length, with distinct prompts."""
    prompt_len, response_len = longest(options, spec)
    sizes = {"R": response_len, "K": k, "A": options.model.heads}

    def extra(name: str, i: int) -> np.ndarray:
        if name == "label":
            return np.asarray(i % 2 == 0)
        return np.zeros(tuple(sizes[a] for a in _axes(options, name)), np.float32)

    def one(i: int) -> Example:
        # prompts that differ: KTO's mismatched response must be one to another prompt
        prompt = np.full(prompt_len, i % spec.vocab_size, np.int32)
        response = np.zeros(response_len, np.int32)
        scored = np.arange(response_len) >= (
            prompt_len == 0
        )  # without a prompt the first token has no context
        extras = {name: extra(name, i) for name in _extras(options)}
        return Example(prompt, (response,) * k, (scored,) * k, extras)

    return Examples.from_list(one(i) for i in range(count))
