"""Bins: hand-written arrays, and what must hold for any lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.data.batch_spec import BatchSpec
from jalign.data.budget import choose, most_bins
from jalign.data.collate import collate, fields_of
from jalign.data.examples import Example, Examples
from jalign.data.lay_out import pack, padded_shape
from jalign.data.packing import Shape, assign, demands_of, fractions_of_stream


def example(prompt, *responses, scored=None, **extras):
    """An example of token ids; everything is scored unless `scored` says otherwise."""
    scored = scored or [[True] * len(r) for r in responses]
    return Example(
        np.array(prompt, np.int32),
        tuple(np.array(r, np.int32) for r in responses),
        tuple(np.array(s, bool) for s in scored),
        {name: np.asarray(value) for name, value in extras.items()},
    )


def collated(rows, responses, response_len, index=None, fields=None):
    """The extras of examples as arrays."""
    examples = Examples.from_list(rows)
    fields = fields or fields_of(examples, range(len(rows)))
    index = np.array(index or range(len(rows)))
    out = {
        name: np.zeros((len(index), *field.shape(responses, response_len)), field.dtype)
        for name, field in fields.items()
    }
    collate(examples, fields, out | {"index": index})
    return out


def random_examples(seed, count, k=2, prompt=12, response=9, score=0.8):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        p = rng.integers(0, prompt + 1)
        lens = rng.integers(1, response + 1, k)
        masks = [rng.random(n) < score for n in lens]
        for m in masks:
            m[0] &= p > 0
        found.append(
            example(
                rng.integers(1, 1000, p), *(rng.integers(1, 1000, n) for n in lens), scored=masks
            )
        )
    return found


def test_examples_that_are_all_alike_get_no_spare_room():
    rows = [example([i] * 20, [1] * 12, [2] * 12) for i in range(16)]
    lengths = Examples.from_list(rows).lengths
    spec = BatchSpec(batch_size=16, streams=2, max_tokens=128, multiple=16)
    (shape,) = choose(lengths, [lengths], spec).shapes
    # 2 of 44 tokens fit into 127, and into no more rows and scored tokens than they have
    assert (shape.tokens, shape.rows, shape.scored) == (96, 4, 48)


def test_a_prompt_stands_once_and_every_array_is_as_written_by_hand():
    first = example([5, 6], [7, 8, 9], [10])
    second = example([], [11, 12], [13, 14], scored=[[False, True], [False, True]])
    shape = Shape(
        streams=1, tokens=14, rows=5, row_len=6, scored=8, prompts=3, responses=2, response_len=4
    )
    [found] = pack(Examples.from_list([first, second]), [0, 1], shape)
    layout, o = found.layout, 30  # M*T = 30
    assert layout.tokens.tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0, 0, 0, 0]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 4, 2, 0, 1, 0, 1, 0, 0, 0, 0]]
    assert layout.at.tolist() == [[2, 3, 4, 5, 7, 9, 0, 0]]
    assert layout.before.tolist() == [[1, 2, 3, 1, 6, 8, 0, 0]]
    assert layout.rows.tolist() == [
        [
            [0, 1, 2, 3, 4, 13],
            [0, 1, 5, 13, 13, 13],
            [6, 7, 13, 13, 13, 13],
            [8, 9, 13, 13, 13, 13],
            [13, 13, 13, 13, 13, 13],
        ]
    ]
    assert layout.inverse.first.tolist() == [[0, 1, 2, 3, 4, 8, 12, 13, 18, 19, o, o, o, o]]
    assert layout.inverse.more.tolist() == [[[6], [7], *[[o]] * 12]]
    assert layout.slots.tolist() == [
        [
            [[0, 1, 2, 0], [3, 0, 0, 0]],
            [[4, 0, 0, 0], [5, 0, 0, 0]],
            [[0, 0, 0, 0], [0, 0, 0, 0]],
        ]
    ]
    assert found.mask.tolist() == [
        [[True, True, True, False], [True, False, False, False]],
        [[True, False, False, False], [True, False, False, False]],
        [[False] * 4, [False] * 4],
    ]
    assert found.extras["index"].tolist() == [0, 1, -1]


def test_prompts_come_before_all_responses_so_that_few_tokens_may_have_copies():
    first, second = example([5, 6], [7], [8, 9]), example([10], [11], [12])
    shape = Shape(1, 16, 4, 4, 8, 2, 2, 2, prompt_len=2)
    [found] = pack(Examples.from_list([first, second]), range(2), shape)
    layout, o = found.layout, 16
    assert layout.tokens[0].tolist()[:9] == [5, 6, 10, 7, 8, 9, 11, 12, 0]
    assert layout.rows[0].tolist() == [
        [0, 1, 3, 15], [0, 1, 4, 5], [2, 6, 15, 15], [2, 7, 15, 15]
    ]  # fmt: skip
    assert layout.before[0].tolist()[:5] == [1, 1, 4, 2, 2]
    assert layout.at[0].tolist()[:5] == [3, 4, 5, 6, 7]
    assert layout.inverse.first[0].tolist()[:8] == [0, 1, 8, 2, 6, 7, 9, 13]
    assert layout.inverse.more.tolist() == [[[4], [5], [12], *[[o]] * 5]]  # 8 of 16 tokens


def test_padded_rows_are_as_written_by_hand():
    one = example([5, 6], [7, 8, 9], [10, 11], scored=[[True, False, True], [True, True]])
    [found] = pack(
        Examples.from_list([one]), [0], padded_shape(2, responses=2, row_len=6, response_len=3)
    )
    layout = found.layout
    assert layout.tokens.tolist() == [
        [5, 6, 7, 8, 9, 0],
        [5, 6, 10, 11, 0, 0],
        [0] * 6,
        [0] * 6,
    ]
    assert layout.positions.tolist()[:2] == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 0, 0]]
    assert layout.at.tolist()[:2] == [[2, 4, 0], [2, 3, 0]]
    assert layout.before.tolist()[:2] == [[1, 3, 0], [1, 2, 0]]
    assert layout.slots.shape == (4, 1, 1, 3)
    assert layout.slots.reshape(2, 2, 3).tolist()[0] == [[0, 1, 0], [0, 1, 0]]
    assert found.mask[0].tolist() == [[True, True, False], [True, True, False]]
    assert not found.mask[1].any()
    assert layout.rows is None and layout.inverse is None
    assert found.extras["index"].tolist() == [0, -1]


def scored_triples(found, shape):
    """For each example and response of a bin, its scored (predecessor, token, position) triples."""
    layout, out = found.layout, {}
    s = layout.slots.shape[0]
    slots = layout.slots.reshape(found.mask.shape)
    stream_of = np.arange(s).repeat(len(found.mask) // s) if not shape.padded else None
    for b, index in enumerate(found.extras["index"]):
        for k in range(shape.responses):
            stream = b * shape.responses + k if shape.padded else stream_of[b]
            entry = slots[b, k][found.mask[b, k]]
            before, at = layout.before[stream, entry], layout.at[stream, entry]
            tokens, positions = layout.tokens[stream], layout.positions[stream]
            triples = np.stack([tokens[before], tokens[at], positions[before], positions[at]], 1)
            if index >= 0:
                assert (int(index), k) not in out
                out[int(index), k] = triples.tolist()
    return out


def expected_triples(examples):
    out = {}
    for i, e in enumerate(examples):
        for k, (response, scored) in enumerate(zip(e.responses, e.scored, strict=True)):
            row, p = np.concatenate([e.prompt, response]), len(e.prompt)
            at = p + np.flatnonzero(scored)
            out[i, k] = np.stack([row[at - 1], row[at], at - 1, at], 1).tolist()
    return out


@pytest.mark.parametrize("streams", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_every_scored_token_stands_once_with_its_target_and_predecessor_in_both_layouts(streams, k):
    examples = random_examples(k, 20, k)
    flat = Shape(streams, 96, 9, 21, 64, 6, k, 9)
    padded = padded_shape(4, k, 21, 9)
    for shape in (flat, padded):
        found = {}
        for part in pack(Examples.from_list(examples), range(20), shape):
            found |= scored_triples(part, shape)
        assert found == expected_triples(examples)


def test_rows_hold_prompt_and_response_and_inverse_leads_back():
    examples = random_examples(5, 12)
    shape = Shape(2, 128, 10, 24, 64, 6, 2, 9, prompt_len=12)
    seen = []
    for part in pack(Examples.from_list(examples), range(12), shape):
        layout = part.layout
        for s in range(2):
            flat = layout.rows[s].reshape(-1)
            real = flat != shape.tokens - 1
            for place in np.unique(flat[real]):
                back = layout.inverse.first[s, place : place + 1]
                if place < shape.shared:
                    back = np.append(back, layout.inverse.more[s, place])
                assert sorted(back[back < flat.size]) == np.flatnonzero(flat == place).tolist()
            never = np.setdiff1d(np.arange(shape.tokens), flat[real])
            assert (layout.inverse.first[s, never] == flat.size).all()
            for row in layout.rows[s]:
                row = row[row != shape.tokens - 1]
                assert layout.positions[s, row].tolist() == list(range(len(row)))
                seen.append(layout.tokens[s, row].tolist())
    rows = [np.concatenate([e.prompt, r]).tolist() for e in examples for r in e.responses]
    assert sorted(filter(len, seen)) == sorted(rows)


def test_streams_of_a_bin_are_filled_evenly():
    examples = [example([1] * 5, [2] * n, [3] * n) for n in (1, 2, 3, 4, 5, 6, 7, 8)]
    [found] = pack(Examples.from_list(examples), range(8), Shape(4, 64, 16, 16, 40, 8, 2, 8))
    tokens = (found.layout.tokens > 0).sum(1)
    assert tokens.tolist() == [28, 28, 28, 28]


def test_an_example_without_a_place_holds_zeros_and_index_minus_one():
    one = example(
        [1], [2, 3], [4], margin=0.5, ratings=[1.0, 2.0], old_logps=[[7.0, 8.0], [9.0, 0.0]]
    )
    [found] = pack(Examples.from_list([one]), [0], Shape(1, 16, 4, 8, 8, 2, 2, 3))
    extras = found.extras
    assert extras["index"].tolist() == [0, -1]
    assert extras["margin"].tolist() == [0.5, 0.0]
    assert extras["ratings"].tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert extras["old_logps"][0].tolist() == [[7.0, 8.0, 0.0], [9.0, 0.0, 0.0]]
    assert not extras["old_logps"][1].any()
    assert all(x.dtype in (np.int32, np.float32) for x in extras.values())


def test_one_response_may_give_its_token_values_without_the_axis_of_responses():
    rows = [example([1], [2], step=[5]), example([1], [2, 3], step=[6, 7])]
    assert collated(rows, 1, 3)["step"].tolist() == [[[5, 0, 0]], [[6, 7, 0]]]
    assert collated(rows[:1], 1, 3)["step"].tolist() == [[5]]


def test_labels_of_single_steps_are_token_values_like_those_of_several():
    rows = [example([1], [2], step_labels=[1.0])]
    assert collated(rows, 1, 3)["step_labels"].tolist() == [[[1, 0, 0]]]


def test_an_extra_may_have_an_axis_of_its_own_that_is_as_long_in_all_examples():
    examples = [
        example([1], [2, 3], attribute_ratings=[1.0, np.nan, 3.0]),
        example([1], [2], attribute_ratings=[4.0, 5.0, 6.0]),
    ]
    stored = Examples.from_list(examples)
    assert fields_of(stored, range(2))["attribute_ratings"] == ("A", np.float32, 3)
    np.testing.assert_array_equal(
        collated(examples, 1, 2, index=[0, 1, -1])["attribute_ratings"],
        [[1.0, np.nan, 3.0], [4.0, 5.0, 6.0], [0.0, 0.0, 0.0]],
    )
    for shape in (Shape(1, 16, 4, 8, 8, 4, 1, 2), padded_shape(2, 1, 8, 2)):
        found = pack(stored, [1, 0], shape)
        rows = np.concatenate([b.extras["attribute_ratings"] for b in found])
        index = np.concatenate([b.extras["index"] for b in found])
        np.testing.assert_array_equal(rows[index == 0], [[1.0, np.nan, 3.0]])
        np.testing.assert_array_equal(rows[index == 1], [[4.0, 5.0, 6.0]])
    shorter = [*examples, example([1], [2], attribute_ratings=[1.0])]
    with pytest.raises(ValueError, match=r"\(1,\) here and of the axes \[A\] of 3 elsewhere"):
        collated(shorter, 1, 2, fields=fields_of(stored, range(2)))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (example([1], [2], [3], name="text"), "extra 'name'"),
        (example([1], [2], [3], three=[1.0, 2.0, 3.0]), "one per response"),
    ],
)
def test_an_extra_that_is_not_one_number_per_example_response_or_token_is_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        fields_of(Examples.from_list([bad]), [0])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (example([1] * 9, [2]), "row of 10 tokens"),
        (example([], [2, 3]), "nothing before it"),
        (example([1], [2], [3], [4]), "3 responses"),
        (example([1], [2] * 5), "5 scored tokens"),
        (example([1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3], scored=[[False] * 4] * 2), "11 tokens"),
    ],
)
def test_what_a_bin_cannot_hold_is_refused_in_words(bad, words):
    with pytest.raises(ValueError, match=words):
        pack(Examples.from_list([bad]), [0], Shape(1, 11, 4, 8, 8, 2, 2, 4))


def test_a_missing_response_takes_no_row():
    [found] = pack(
        Examples.from_list([example([1, 2], [3], [])]), [0], Shape(1, 8, 1, 4, 4, 1, 2, 2)
    )
    assert found.layout.inverse.first[0].tolist()[:3] == [0, 1, 2]
    assert (found.layout.inverse.more == 4).all()
    assert found.mask[0].tolist() == [[True, False], [False, False]]


lens = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 15), st.integers(1, 15)), min_size=1, max_size=24
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(lens, st.integers(1, 3), st.integers(51, 120), st.integers(2, 8), st.integers(30, 60))
def test_first_fit_never_needs_more_bins_than_the_bound_and_never_overfills(
    found, streams, tokens, rows, scored
):
    examples = [
        example([1] * p, [2] * a, [3] * b, scored=[[False] * a, [p > 0] * b]) for p, a, b in found
    ]
    shape = Shape(streams, tokens, rows, 35, scored, rows // 2, 2, 15)
    demands = demands_of(Examples.from_list(examples).lengths)
    [bins] = assign(demands, [shape])
    assert sorted(i for b in bins for s in b for i in s) == list(range(len(found)))
    for streams_of_bin in bins:
        assert len(streams_of_bin) == streams
        for members in streams_of_bin:
            taken = np.array([demands.each[i] for i in members]).reshape(-1, 4).sum(0)
            assert (taken <= shape.capacity).all()
    assert len(bins) <= most_bins(
        np.array(fractions_of_stream(demands.each, shape)), len(found), streams
    )


def test_the_bound_is_met_where_examples_fill_streams_exactly():
    assert most_bins(np.full(10, 0.5), 6, 1) == 3
    assert most_bins(np.full(10, 0.5), 6, 2) == 2
    assert most_bins(np.full(3, 1.0), 6, 1) == 3
    assert most_bins(np.array([0.6, 0.1]), 4, 1, copies=2) == 2
