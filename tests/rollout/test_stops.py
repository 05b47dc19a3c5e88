"""Stop strings, with a real byte-level tokenizer."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from jalign.rollout import stops
from jalign.rollout.stops import first_stop, stop_at
from jalign.rollout.types import Rollout
from tests.data.tiny_tokenizers import byte_level


def test_a_response_ends_with_the_token_that_completes_its_first_stop_string():
    tokenizer = byte_level()
    ids = [np.array(tokenizer(t)["input_ids"]) for t in ("hello world. how are you.", "the fox")]
    logps = [np.arange(len(x), dtype=np.float32) for x in ids]
    rollout = Rollout.from_lists(
        [np.array([9])], [ids], token_logps=[logps], finished=[[False, False]]
    )
    found = stop_at(rollout, tokenizer, [". h", "you."])
    kept = found.response(0, 0)
    assert ". h" in tokenizer.decode(kept) and ". h" not in tokenizer.decode(kept[:-1])
    np.testing.assert_array_equal(found.token_logps[0, 0, : len(kept)], logps[0][: len(kept)])
    assert not found.token_logps[0, 0, len(kept) :].any() and found.lengths[0, 0] == len(kept)
    np.testing.assert_array_equal(found.response(0, 1), ids[1])
    assert found.finished.tolist() == [[True, False]]
    assert not rollout.finished.any()


@pytest.mark.parametrize("name", ["mistral_v1", "qwen2_5", "gpt2"])
def test_a_stop_string_with_a_leading_space_is_seen_at_the_start_of_a_response(name):
    folder = Path(__file__).parents[3] / "shared/assets/tokenizers" / name
    if not folder.is_dir():
        pytest.skip("no tokenizers here")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = np.array(tokenizer(" and more and", add_special_tokens=False)["input_ids"])
    bare = np.array(tokenizer("Hello and more", add_special_tokens=False)["input_ids"])[1:]
    assert first_stop(tokenizer, bare, [" and"]) == 1
    assert first_stop(tokenizer, ids, ["more"]) is not None
    assert first_stop(tokenizer, bare, ["Hello"]) is None


def test_nothing_stops_without_stop_strings_and_an_empty_one_is_refused():
    tokenizer = byte_level()
    assert first_stop(tokenizer, np.array([5, 6]), []) is None
    rollout = Rollout.from_lists([np.array([9])], [[[5, 6]]], finished=[[False]])
    assert stop_at(rollout, tokenizer, []) is rollout
    with pytest.raises(ValueError, match="empty stop string"):
        stop_at(rollout, tokenizer, ["a", ""])


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(stops).failed == 0
