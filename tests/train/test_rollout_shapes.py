"""Micro-batches of a rollout are as large as what was sampled, in a handful of static shapes."""

import jax
import numpy as np

from jalign.data.examples import Example, Examples
from jalign.data.packing import demands_of
from jalign.parallel.mesh import make_mesh
from jalign.train.micro_batches import MicroBatchPacker

K, PROMPT, RESPONSE = 2, 40, 100


def examples_of(prompts, responses):
    """Examples with prompts and K responses of these lengths; every token is its own number."""
    count = iter(range(1, 1_000_000))

    def tokens(n):
        return np.array([next(count) for _ in range(n)], np.int32)

    return Examples.from_list(
        Example(tokens(p), tuple(map(tokens, r)), tuple(np.ones(n, bool) for n in r), {})
        for p, r in zip(prompts, responses, strict=True)
    )


def packer(devices=1):
    mesh = make_mesh(fsdp=devices, devices=jax.devices()[:devices])
    return MicroBatchPacker(mesh, PROMPT, RESPONSE, max_tokens=600, multiple=16)


def shape_of(found, examples, streams=1):
    demands = demands_of(examples.lengths)
    return found.packing(demands, K, len(examples), streams)[:2]


def test_short_responses_take_fewer_and_smaller_micro_batches():
    found = packer()
    long, long_parts = shape_of(found, examples_of([PROMPT] * 8, [(RESPONSE, RESPONSE)] * 8))
    short, short_parts = shape_of(found, examples_of([9] * 8, [(20, 24)] * 8))
    assert (long.tokens, long_parts, long.row_len) == (496, 4, 144)
    assert (short.tokens, short_parts, short.row_len) == (576, 1, 80)  # one for four


def test_each_process_gets_its_streams_of_every_micro_batch():
    demands = demands_of(examples_of([PROMPT] * 8, [(RESPONSE, 20)] * 8).lengths)
    packing = packer().packing(demands, K, 8, streams=4)
    first, second = packing.share(0, 2), packing.share(1, 2)
    assert first.shape == second.shape == packing.shape._replace(streams=2)
    assert first.bins != second.bins and first.room == packing.room
    both = zip(first.bins, second.bins, strict=True)
    assert [a + b for a, b in both] == packing.bins


def test_one_long_response_among_short_ones_has_its_room():
    examples = examples_of([9] * 8, [(20, 24)] * 7 + [(RESPONSE, 20)])
    shape, parts = shape_of(packer(), examples)
    assert shape.row_len == 144 and shape.slots * parts < 4 * 496


def test_every_token_is_in_the_batch_once_whatever_the_lengths_and_shapes_are_few():
    rng, shapes = np.random.default_rng(0), set()
    for streams in (1, 2):
        found = packer(streams)
        for _ in range(40):
            most = rng.integers(2, RESPONSE + 1)
            lengths = rng.integers(1, most, (6, K))
            examples = examples_of(rng.integers(1, PROMPT + 1, 6), lengths.tolist())
            shapes.add((streams, *shape_of(found, examples, streams)))
            [part] = found.pack(examples, range(6), K, 6)
            layout = jax.tree.map(np.asarray, part.batch.layout)
            there = layout.tokens[layout.tokens > 0]
            assert len(there) == len(examples.tokens)
            assert set(there) == set(examples.tokens.tolist())
            assert part.batch.mask.sum() == lengths.sum()
            index = np.asarray(part.batch.extras["index"])
            assert sorted(index[index >= 0]) == list(range(6))
    assert len(shapes) <= 2 * 8
