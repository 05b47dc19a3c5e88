import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoTokenizer

from jalign import embedded
from jalign.models import hub


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded.path())


def rows(split):
    with gzip.open(embedded.pairs(split), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def pairs():
    return {split: rows(split) for split in ("train", "test")}


def test_what_travels_with_the_package_stays_small():
    assert sum(f.stat().st_size for f in embedded.path().iterdir()) < 3_200_000
    assert sum(embedded.pairs(s).stat().st_size for s in ("train", "test")) < 400_000


def test_the_tokenizer_has_its_own_pad_bos_and_eos_and_adds_a_bos_by_default(tokenizer):
    special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert special == (0, 1, 2)
    ids = tokenizer("Once upon a time.")["input_ids"]
    assert ids[0] == 1 and 2 not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Once upon a time."


def test_the_model_writes_stories_and_not_noise(tokenizer):
    model = hub.load(embedded.path())
    assert model.spec.vocab_size == len(tokenizer)
    story = (
        "Once upon a time, there was a little girl named Lily. She loved to play with her toys. "
        "One day, she went to the park with her mom."
    )

    def bits_per_token(ids):
        ids = jnp.array([ids])
        hidden, _ = model(ids, jnp.arange(ids.shape[1])[None])
        logps = jax.nn.log_softmax(model.logits(hidden))[0, :-1]
        return -jnp.take_along_axis(logps, ids[0, 1:, None], 1).mean() / np.log(2)

    ids = tokenizer(story)["input_ids"]
    backwards = [1, *ids[:0:-1]]
    assert bits_per_token(ids) < 4 < 8 < bits_per_token(backwards)


def test_a_chosen_story_sounds_better_than_the_rejected_one_by_its_margin(pairs):
    rules = pytest.importorskip("jalign.rewards.rules")
    for row in pairs["test"]:
        chosen, rejected = rules.sentiment([row["chosen"], row["rejected"]])
        assert row["margin"] >= 0.4
        np.testing.assert_allclose(chosen - rejected, row["margin"], atol=1e-4)


def test_every_pair_is_a_text_and_two_different_continuations_of_it(pairs):
    for row in pairs["train"] + pairs["test"]:
        assert set(row) == {"prompt", "chosen", "rejected", "margin"}
        assert row["chosen"] != row["rejected"]
        assert row["prompt"] and row["prompt"] == row["prompt"].strip()


def test_there_are_enough_pairs_and_no_opening_is_in_both_splits(pairs):
    train, test = ([row["prompt"] for row in pairs[split]] for split in ("train", "test"))
    assert len(train) >= 2000 and len(test) >= 200
    assert len(set(train)) == len(train) and not set(train) & set(test)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="one of train, test, got 'eval'"):
        embedded.pairs("eval")
