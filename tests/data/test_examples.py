import numpy as np
import pytest

from jalign.data.examples import Example, Examples


def example(prompt, *responses, **extras):
    ids = tuple(np.array(r, np.int32) for r in responses)
    masks = tuple(np.ones(len(r), bool) for r in responses)
    return Example(
        np.array(prompt, np.int32), ids, masks, {k: np.asarray(v) for k, v in extras.items()}
    )


TWO = [
    example([1, 5, 6], [7, 2], [8, 9, 2], margin=0.5),
    example([], [3, 2], [4, 2], margin=1.5)._replace(
        scored=(np.array([False, True]), np.array([False, True]))
    ),
]


def test_examples_come_back_as_they_went_in():
    stored = Examples.from_list(TWO)
    assert len(stored) == 2 and stored.k == 2
    for got, want in zip(stored, TWO, strict=True):
        np.testing.assert_array_equal(got.prompt, want.prompt)
        for a, b in zip(got.responses + got.scored, want.responses + want.scored, strict=True):
            np.testing.assert_array_equal(a, b)
        assert got.extras["margin"] == want.extras["margin"]
    np.testing.assert_array_equal(stored[-1].responses[0], [3, 2])
    with pytest.raises(IndexError):
        stored[2]


def test_lengths_count_prompt_response_and_scored_tokens():
    prompt_len, response_lens, scored_lens = Examples.from_list(TWO).lengths
    np.testing.assert_array_equal(prompt_len, [3, 0])
    np.testing.assert_array_equal(response_lens, [[2, 3], [2, 2]])
    np.testing.assert_array_equal(scored_lens, [[2, 3], [1, 1]])


def test_ragged_lists_have_no_k_and_empty_places_of_length_zero():
    ragged = Examples.from_list(
        [example([1], [2], [3, 4], ratings=[1.0, 2.0]), example([1], [2], ratings=[1.0])]
    )
    assert ragged.k is None
    np.testing.assert_array_equal(ragged.lengths.response_lens, [[1, 2], [1, 0]])
    np.testing.assert_array_equal(ragged[0].extras["ratings"], [1.0, 2.0])


def test_the_fingerprint_sees_every_token_mask_border_and_extra():
    base = Examples.from_list(TWO).fingerprint
    assert base == Examples.from_list(TWO).fingerprint and len(base) == 64
    a, b = TWO
    others = [
        [b, a],
        [a._replace(prompt=np.array([1, 5, 7], np.int32)), b],
        [a._replace(scored=(np.array([True, False]), a.scored[1])), b],
        [a._replace(extras={"margin": np.asarray(0.6)}), b],
        [a._replace(extras={}), b._replace(extras={})],
        [example([1, 5], [6, 7, 2], [8, 9, 2], margin=0.5), b],
    ]
    prints = {Examples.from_list(o).fingerprint for o in others}
    assert len(prints) == len(others) and base not in prints


def test_take_selects_in_the_order_given():
    stored = Examples.from_list(TWO).take([1, 0, 1])
    np.testing.assert_array_equal(stored.lengths.prompt_len, [0, 3, 0])


def test_extras_that_not_all_have_are_refused():
    with pytest.raises(ValueError, match="example 1 has the extras"):
        Examples.from_list([TWO[0], TWO[1]._replace(extras={})])


def test_no_examples_is_an_empty_sequence():
    empty = Examples.from_list([])
    assert len(empty) == 0 and empty.k is None and empty.lengths.response_lens.shape == (0, 0)
