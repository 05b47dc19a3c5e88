"""The record of a rollout: padded once, and everything that is taken from it by hand."""

import numpy as np
import pytest

from jalign.data.examples import Example, Examples
from jalign.rollout.types import Rollout
from jalign.train.scoring import examples_of

PROMPTS = [np.array([9, 8], np.int32), np.array([7], np.int32)]
TOKENS = [[[1, 2, 3], [4]], [[5], [6, 7]]]


def rollout():
    logps = [[[-0.1, -0.2, -0.3], [-0.4]], [[-0.5], [-0.6, -0.7]]]
    return Rollout.from_lists(PROMPTS, TOKENS, token_logps=logps, finished=[[True, False]] * 2)


def test_responses_of_any_lengths_are_padded_once_and_come_back_as_they_were():
    r = rollout()
    assert r.tokens.tolist() == [[[1, 2, 3], [4, 0, 0]], [[5, 0, 0], [6, 7, 0]]]
    assert r.lengths.tolist() == [[3, 1], [1, 2]] and r.finished.tolist() == [[True, False]] * 2
    assert [ids.tolist() for ids in r.responses()] == [[1, 2, 3], [4], [5], [6, 7]]
    assert r.response(1, 1).tolist() == [6, 7]
    np.testing.assert_allclose(r.token_logps[1, 1], [-0.6, -0.7, 0.0])


def test_a_record_is_widened_cut_and_joined_without_losing_a_token():
    r = rollout()
    assert r.padded_to(3) is r
    assert r.padded_to(5).tokens.shape == (2, 2, 5) and not r.padded_to(5).mask[..., 3:].any()
    short = r.cut(np.array([[2, 1], [1, 0]]))
    assert short.lengths.tolist() == [[2, 1], [1, 0]] and short.tokens[0, 0].tolist() == [1, 2, 0]
    assert short.token_logps[0, 0, 2] == 0
    assert short.padded_to(2).tokens.shape == (2, 2, 2)
    with pytest.raises(ValueError, match="a response has 3 tokens, more than the 2"):
        r.padded_to(2)
    beside = r.beside(Rollout.from_lists(PROMPTS, [[[11, 12, 13, 14]], [[15]]]))
    assert beside.tokens.shape == (2, 3, 4) and beside.response(0, 2).tolist() == [11, 12, 13, 14]
    assert beside.finished.tolist() == [[True, False, True]] * 2


def test_responses_and_prompts_are_taken_by_index():
    r = rollout()
    taken = r.take(np.array([[1], [0]]))
    assert [ids.tolist() for ids in taken.responses()] == [[4], [5]]
    assert taken.finished.tolist() == [[False], [True]]
    last = r.select(np.array([1]))
    assert last.prompts[0] is r.prompts[1] and last.response(0, 1).tolist() == [6, 7]
    both = Rollout.concatenate([r, last])
    assert both.tokens.shape == (3, 2, 3) and both.response(2, 0).tolist() == [5]


def test_prompts_need_the_same_number_of_responses():
    with pytest.raises(ValueError, match=r"got 2 lists of \[1, 2\]"):
        Rollout.from_lists(PROMPTS, [[[1], [2]], [[3]]])


def test_the_examples_of_a_rollout_are_those_of_its_lists_bit_for_bit():
    learned = np.array([[True, False], [True, True]])
    fields = {"advantages": np.arange(12.0).reshape(2, 2, 3), "win_prob": np.eye(2)}
    lists = Examples.from_list(
        Example(
            prompt,
            tuple(np.array(ids, np.int32) for ids in row),
            tuple(np.full(len(ids), bool(ok)) for ids, ok in zip(row, oks, strict=True)),
            {name: np.float32(x[b]) for name, x in fields.items()},
        )
        for b, (prompt, row, oks) in enumerate(zip(PROMPTS, TOKENS, learned, strict=True))
    )
    assert examples_of(rollout(), learned, fields).fingerprint == lists.fingerprint
