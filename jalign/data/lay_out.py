"""Writes the arrays of micro-batches: from the token buffer of examples to `jalign.layout`.

Shape letters as there: B prompts, K responses, R scored tokens, S streams, N tokens, M rows,
T tokens per row, Q scored tokens per stream, P prompts per stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jalign.data.collate import Field, collate, fields_of
from jalign.data.examples import Examples, Responses
from jalign.data.packing import Bin, Shape, assign, demands_of
from jalign.layout import Batch, Inverse, Layout, MicroBatches


def pack(examples: Examples, indices: Sequence[int] | np.ndarray, shape: Shape) -> list[Batch]:
    """Examples in as many bins of `shape` as they need; their numbers are `extras["index"]`.

    Raises:
      ValueError: an example that a bin cannot hold.
    """
    lengths = examples.lengths.take(indices)
    k, most = lengths.response_lens.shape[1], lengths.scored_lens.max(initial=0)
    if k > shape.responses:
        raise ValueError(f"an example has {k} responses, the shape {shape.responses}")
    if most > shape.response_len:
        raise ValueError(f"a response has {most} scored tokens, the shape {shape.response_len}")
    [bins] = assign(demands_of(lengths), [shape])
    stack = lay_out(bins, examples, indices, shape, fields_of(examples, indices), len(bins))
    return [stack.micro_batch(i) for i in range(len(bins))]


def padded_shape(examples: int, responses: int, row_len: int, response_len: int) -> Shape:
    """The shape of `examples` examples of `responses` right-padded rows each."""
    return Shape(
        examples * responses, row_len, 0, row_len, response_len, 1, responses, response_len
    )


def lay_out(
    bins: Sequence[Bin],
    examples: Examples,
    indices: Sequence[int] | np.ndarray,
    shape: Shape,
    fields: Mapping[str, Field],
    room: int,
    mismatched: Sequence[int | None] = (),
) -> MicroBatches:
    """Arrays with a leading axis of `room`: the bins, then zeros (index -1).

    Args:
      bins: for each bin the members of its streams, as positions in `indices`.
      examples: the data set.
      indices: numbers of the examples of the step.
      shape: of one bin.
      fields: extras to collate.
      room: length of the leading axis, at least `len(bins)`.
      mismatched: for each of `indices` the example whose response becomes a further one of it;
        None: it has none. Empty: no example does.
    """
    s, n, m, t, q, p, k, r, _ = shape
    # Always `room` bins, so that one compiled step serves every batch; the count of bins
    # that are filled is an argument of it.
    zeros = lambda *size: np.zeros((room, s, *size), np.int32)  # noqa: E731
    layout = Layout(zeros(n), zeros(n), zeros(q), zeros(q), zeros(1, 1, r))
    if not shape.padded:
        inverse = Inverse(zeros(n), zeros(shape.shared, k - 1))
        layout = layout._replace(slots=zeros(p, k, r), rows=zeros(m, t), inverse=inverse)
    mask = np.zeros((room, shape.examples, k, r), bool)
    extras = {
        name: np.zeros((room, shape.examples, *field.shape(k, r)), field.dtype)
        for name, field in fields.items()
    }
    extras["index"] = np.full((room, shape.examples), -1, np.int32)
    stack = MicroBatches(Batch(layout, mask, extras), np.int32(len(bins)))
    write = _write_padded if shape.padded else _write_flat
    for i, streams in enumerate(bins):
        batch = stack.micro_batch(i)
        texts: list[_Text | None] = [None] * shape.examples
        for stream, members in enumerate(streams):
            for slot, member in enumerate(members, stream * p):
                index = int(indices[member])
                other = mismatched[member] if len(mismatched) else None
                text = examples.segments(index)
                texts[slot] = text if other is None else _with_mismatched(text, examples, other)
                batch.extras["index"][slot] = index
        write(batch, texts, shape)
        collate(examples, fields, batch.extras)
    return stack


_Text = tuple[np.ndarray, Responses]


def _with_mismatched(text: _Text, examples: Examples, mismatched: int) -> _Text:
    """A text with the response of another example behind its own."""
    prompt, responses = text
    [(tokens, scored)] = examples.segments(mismatched)[1]
    if not len(prompt):
        # no token precedes the first one now, so nothing predicts it
        scored = (np.arange(len(scored)) > 0) & scored
    return prompt, [*responses, (tokens, scored)]


def _write_flat(batch: Batch, texts: Sequence[_Text | None], shape: Shape) -> None:
    """One bin of streams in which every prompt is stored once, and responses follow all of them."""
    s, n, m, t, _, p, k, r, _ = shape
    # Slices of one counter instead of an arange for each segment: the loop runs once per response
    # of every step, and allocating small arrays is most of its time.
    count = np.arange(max(n, m * t), dtype=np.int32)
    layout, mask = batch.layout, batch.mask.reshape(s, p, k, r)
    assert layout.rows is not None and layout.inverse is not None
    # Unused entries point at a token that is never real (N - 1), or out of bounds (M*T), where a
    # gather fills in 0: attention and its gradient need no mask of their own.
    layout.rows[:], layout.inverse.first[:], layout.inverse.more[:] = n - 1, m * t, m * t
    for stream in range(s):
        tokens, positions, before, at, slots = (x[stream] for x in layout[:5])
        rows, (inverse, copies) = layout.rows[stream], (x[stream] for x in layout.inverse)
        end = start = row = entry = 0
        here_texts = texts[stream * p : (stream + 1) * p]
        for prompt, _ in filter(None, here_texts):
            here = slice(end, end + len(prompt))
            tokens[here], positions[here] = prompt, count[: len(prompt)]
            end = here.stop
        for slot, text in enumerate(here_texts):
            if text is None:
                continue
            prompt, responses = text
            length, copy = len(prompt), 0
            for j, (response, scored) in enumerate(responses):
                more = len(response)
                if not more:  # no row, so that a missing response costs nothing
                    continue
                here, first = slice(end, end + more), row * t
                tokens[here], positions[here] = response, count[length : length + more]
                rows[row, :length] = count[start : start + length]
                rows[row, length : length + more] = count[here]
                of_prompt = inverse if copy == 0 else copies[:, copy - 1]
                of_prompt[start : start + length] = count[first : first + length]
                inverse[here] = count[first + length : first + length + more]
                offsets = _scored_offsets(scored, length)
                entries = slice(entry, entry + len(offsets))
                at[entries], before[entries] = end + offsets, end + offsets - 1
                if len(offsets) and offsets[0] == 0:
                    # the token before a response in the stream is that of another one
                    before[entry] = start + length - 1
                slots[slot, j, : len(offsets)] = count[entries]
                mask[stream, slot, j, : len(offsets)] = True
                end, row, entry, copy = end + more, row + 1, entry + len(offsets), copy + 1
            start += length


def _write_padded(batch: Batch, texts: Sequence[_Text | None], shape: Shape) -> None:
    """One bin of rows: prompt and response, then nothing."""
    count = np.arange(shape.tokens, dtype=np.int32)
    layout = batch.layout
    for b, text in enumerate(texts):
        if text is None:
            continue
        prompt, responses = text
        length = len(prompt)
        for j, (response, scored) in enumerate(responses):
            row, end = b * shape.responses + j, length + len(response)
            if not len(response):
                continue
            layout.tokens[row, :length] = prompt
            layout.tokens[row, length:end] = response
            layout.positions[row, :end] = count[:end]
            offsets = _scored_offsets(scored, length)
            entries = slice(len(offsets))
            layout.at[row, entries] = length + offsets
            layout.before[row, entries] = length + offsets - 1
            layout.slots[row, 0, 0, entries] = count[entries]
            batch.mask[b, j, entries] = True


def _scored_offsets(scored: np.ndarray, prompt_len: int) -> np.ndarray:
    """Offsets of the scored tokens in their response."""
    offsets = np.flatnonzero(scored)
    if len(offsets) and offsets[0] == 0 and prompt_len == 0:
        raise ValueError(
            "the first token of a response to an empty prompt has nothing before it, "
            "so it cannot be scored"
        )
    return offsets
