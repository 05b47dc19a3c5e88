"""Batches by example number: the same on any number of hosts and after any restart."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.data.batch_spec import BatchSpec
from jalign.data.examples import Example, Examples
from jalign.data.pipeline import Batches


def data(n=50, k=2, seed=0, prompts=None, longest=40):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        p = rng.integers(1, longest)
        lens = rng.integers(1, longest // 2, k)
        prompt = np.full(3, prompts[i]) if prompts is not None else rng.integers(1, 99, p)
        found.append(
            Example(
                prompt.astype(np.int32),
                tuple(rng.integers(1, 99, x).astype(np.int32) for x in lens),
                tuple(np.ones(x, bool) for x in lens),
                {"margin": np.float32(i)},
            )
        )
    return Examples.from_list(found)


def make(examples, **changes):
    options = {"batch_size": 8, "max_tokens": 512, "multiple": 16} | changes
    return Batches(examples, BatchSpec(**options))


def filled(parts):
    """The filled bins of a step, as dicts of arrays."""
    for part in parts:
        for a in range(int(part.count)):
            batch = part.batch
            yield {
                **{f: getattr(batch.layout, f)[a] for f in ("tokens", "at", "before", "slots")},
                "mask": batch.mask[a],
                **{name: x[a] for name, x in batch.extras.items()},
            }


def numbers(parts):
    found = np.concatenate([b["index"] for b in filled(parts)])
    return sorted(found[found >= 0].tolist())


def equal(a, b):
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b)


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("group", [0, 3])
def test_every_epoch_holds_every_example_once_in_a_new_order(layout, group):
    examples = data()
    batches = make(examples, layout=layout, group_by_length=group)
    order = np.concatenate([batches.order[s] for s in range(25)])
    epochs = order[:200].reshape(4, 50)
    assert (np.sort(epochs) == np.arange(50)).all()
    assert len(np.unique(epochs, axis=0)) == 4
    seen = [numbers(batches.batch(s)) for s in range(3)]
    assert seen == [sorted(batches.order[s].tolist()) for s in range(3)]


def test_without_shuffle_the_order_of_the_data_set_repeats():
    batches = make(data(20), shuffle=False)
    assert batches.order[2].tolist() == [16, 17, 18, 19, 0, 1, 2, 3]


def test_batches_of_like_length_hold_less_spread_than_random_ones():
    examples = data(200)
    longest = (lambda x: x.prompt_len + x.response_lens.max(1))(examples.lengths)
    random, alike = make(examples), make(examples, group_by_length=8)
    spread = [np.mean([np.ptp(longest[b.order[s]]) for s in range(25)]) for b in (random, alike)]
    assert spread[1] < spread[0] / 3


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_shapes_do_not_change_from_step_to_step_and_all_tokens_arrive(layout):
    examples = data()
    batches = make(examples, layout=layout)
    shapes = set()
    for step in range(8):
        parts = batches.batch(step)
        shapes.add(
            tuple(
                (
                    part.batch.mask.shape,
                    *(x.shape for x in jax.tree.leaves(part.batch.layout)),
                )
                for part in parts
            )
        )
        for b in filled(parts):
            for place in np.flatnonzero(b["index"] >= 0):
                e = examples[int(b["index"][place])]
                assert b["margin"][place] == b["index"][place]
                slots = b["slots"].reshape(b["mask"].shape)
                for k, response in enumerate(e.responses):
                    entry = slots[place, k][b["mask"][place, k]]
                    per = len(b["index"]) / len(b["tokens"])
                    stream = place * 2 + k if layout == "padded" else int(place // per)
                    assert b["tokens"][stream, b["at"][stream, entry]].tolist() == response.tolist()
    assert len(shapes) == 1


@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_hold_contiguous_parts_of_the_same_bins(layout, count):
    examples = data()
    whole = make(examples, layout=layout, streams=4)
    parts = [
        make(examples, layout=layout, streams=4, process_index=i, process_count=count)
        for i in range(count)
    ]
    for step in (0, 7):
        together = whole.batch(step)
        for c, part in enumerate(together):
            pieces = [p.batch(step)[c] for p in parts]
            assert all(p.count == part.count for p in pieces)
            filled = slice(int(part.count))

            def join(get, pieces=pieces, filled=filled):
                each = [get(p.batch) for p in pieces]
                return jax.tree.map(lambda *x: np.concatenate([a[filled] for a in x], 1), *each)

            batch = part.batch
            expected = jax.tree.map(lambda x, filled=filled: x[filled], batch.layout)
            jax.tree.map(np.testing.assert_array_equal, join(lambda b: b.layout), expected)
            assert np.array_equal(join(lambda b: b.mask), batch.mask[filled])
            assert np.array_equal(join(lambda b: b.extras["index"]), batch.extras["index"][filled])


def test_a_restart_continues_the_sequence_and_prefetching_changes_nothing():
    examples = data()
    straight = [make(examples, group_by_length=2).batch(s) for s in range(9)]
    again = make(examples, group_by_length=2)
    resumed = list(itertools.islice(again.prefetch(4), 5))
    assert all(equal(a, b) for a, b in zip(straight[4:], resumed, strict=True))


def test_a_position_is_refused_when_data_seed_or_batch_size_changed():
    batches = make(data(), seed=3)
    position = batches.position(5)
    assert position["examples_seen"] == 40 and position["epoch"] == pytest.approx(0.8)
    make(data(), seed=3).check(position)
    with pytest.raises(ValueError, match="seed was 3 and is 4"):
        make(data(), seed=4).check(position)
    with pytest.raises(ValueError, match="fingerprint"):
        make(data(seed=1), seed=3).check(position)
    with pytest.raises(ValueError, match="batch_size was 8 and is 4"):
        make(data(), seed=3, batch_size=4).check(position)


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_an_evaluation_sees_every_example_once_in_order(layout):
    batches = make(data(21), layout=layout)
    passes = list(batches.eval_batches())
    assert [numbers(p) for p in passes] == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 21)),
    ]
    assert len({p[0].batch.layout.tokens.shape for p in passes}) == 1


def test_a_data_set_smaller_than_a_batch_can_be_evaluated_but_not_trained_on():
    batches = make(data(5))
    assert [numbers(p) for p in batches.eval_batches()] == [[0, 1, 2, 3, 4]]
    with pytest.raises(ValueError, match="more than the 5 examples"):
        batches.batch(0)


def responses_of(parts):
    out = {}
    for b in filled(parts):
        streams = len(b["tokens"])
        slots = b["slots"].reshape(b["mask"].shape)
        for place in np.flatnonzero(b["index"] >= 0):
            stream = place // (len(b["index"]) // streams)
            out[int(b["index"][place])] = [
                b["tokens"][stream, b["at"][stream, slots[place, k][m]]].tolist()
                for k, m in enumerate(b["mask"][place])
            ]
    return out


def test_a_mismatched_response_is_the_next_one_to_another_prompt():
    prompts = [1, 1, 2, 2, 3, 1, 1, 1]
    examples = data(8, k=1, prompts=prompts, longest=12)
    # One example's response is the longest, so that every row holds any response.
    batches = make(examples, mismatch=True, shuffle=False)
    found = responses_of(batches.batch(0))
    expected = [2, 2, 4, 4, 5, 2, 2, 2]
    for i, mate in enumerate(expected):
        assert found[i] == [examples[i].responses[0].tolist(), examples[mate].responses[0].tolist()]


def test_without_another_prompt_the_mismatched_response_is_empty():
    examples = data(8, k=1, prompts=[1] * 8)
    [b] = filled(make(examples, mismatch=True, shuffle=False).batch(0))
    present = b["index"] >= 0
    assert b["mask"][present, 0].any(1).all() and not b["mask"][:, 1].any()


def test_a_mismatched_response_to_an_empty_prompt_is_scored_from_its_second_token():
    whole = Example(
        np.array([1, 2], np.int32), (np.array([5, 6, 7], np.int32),), (np.ones(3, bool),), {}
    )
    bare = Example(np.zeros(0, np.int32), (np.array([8, 9], np.int32),), (np.arange(2) > 0,), {})
    batches = make(Examples.from_list([whole, bare]), mismatch=True, shuffle=False, batch_size=2)
    assert responses_of(batches.batch(0)) == {0: [[5, 6, 7], [9]], 1: [[9], [6, 7]]}


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_mismatched_batches_never_exceed_their_bounds(layout):
    batches = make(data(60, k=1), mismatch=True, layout=layout)
    for step in range(15):
        for part in batches.batch(step):
            assert part.count <= len(part.batch.mask)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 12),
    st.sampled_from(["flat", "padded"]),
)
def test_bounds_hold_and_nothing_is_lost_on_any_lengths(seed, streams, batch_size, layout):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(40):
        p, *r = (1 + rng.pareto(1.0, 3) * 8).astype(int).clip(1, 60)
        found.append(
            Example(
                np.ones(p, np.int32),
                tuple(np.ones(x, np.int32) for x in r),
                tuple(np.ones(x, bool) for x in r),
                {},
            )
        )
    batches = make(Examples.from_list(found), batch_size=batch_size, layout=layout, streams=streams)
    assert min(batches.shapes.bounds) >= 1
    longest_first = np.argsort([-len(e.prompt) - sum(map(len, e.responses)) for e in found])
    worst = (
        np.repeat(longest_first, 2)[:batch_size] if 40 % batch_size else longest_first[:batch_size]
    )
    for indices in [batches.order[s] for s in range(4)] + [worst]:
        parts = batches._build(indices)
        for part in parts:
            assert part.count <= len(part.batch.mask)
        assert numbers(parts) == sorted(indices.tolist())


def test_statistics_count_unshared_tokens_and_slots():
    batches = make(data(), row_classes=(64,))
    parts, figures = batches.batch(0), batches.statistics(0)
    lengths = batches.examples.lengths
    i = batches.order[0]
    tokens = (2 * lengths.prompt_len[i] + lengths.response_lens[i].sum(1)).sum()
    slots = sum(int(p.count) * p.batch.layout.tokens[0].size for p in parts)
    assert figures["num_tokens"] == tokens
    assert figures["slots_per_token"] == pytest.approx(slots / tokens)


def test_the_same_data_and_options_give_the_same_shapes():
    one, other = make(data(), streams=2).shapes, make(data(), streams=2).shapes
    assert one == other


def test_shapes_are_described_in_words():
    lines = make(data()).shapes.describe()
    assert lines[0].startswith("rows up to") and "token slots" in lines[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layout": "ragged"}, "'flat' or 'padded'"),
        ({"batch_size": 0}, "batch_size"),
        ({"streams": 3, "process_count": 2}, "multiple of process_count"),
        ({"group_by_length": 4, "shuffle": False}, "shuffle=False forbids"),
        ({"max_tokens": 48}, "max_tokens"),
        ({"max_tokens": 48, "layout": "padded"}, "max_tokens"),
        ({"row_classes": (32,)}, "row_classes must ascend"),
        ({"mismatch": True}, "several already"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(changes, words):
    with pytest.raises(ValueError, match=words):
        make(data(), **changes)


def test_extras_per_response_are_refused_with_mismatched_responses():
    rows = [e._replace(extras={"ratings": np.ones(1, np.float32)}) for e in data(8, k=1)]
    with pytest.raises(ValueError, match="ratings"):
        make(Examples.from_list(rows), mismatch=True)


def test_prompts_without_responses_are_refused():
    rows = [e._replace(responses=(), scored=()) for e in data(8)]
    with pytest.raises(ValueError, match="without responses"):
        make(Examples.from_list(rows))
