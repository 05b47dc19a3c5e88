import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoTokenizer

from jalign import embedded
from jalign.algorithms import ALGORITHMS
from jalign.config import EMBEDDED, Config, DataConfig
from jalign.config.build import options_of
from jalign.models import hub
from jalign.run import data as build_data


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded.path())


def rows(find):
    def read(split):
        with gzip.open(find(split), "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    return {split: read(split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def pairs():
    return rows(embedded.pairs)


@pytest.fixture(scope="module")
def lists():
    return rows(embedded.lists)


@pytest.fixture(scope="module")
def steps():
    return rows(embedded.steps)


def test_what_travels_with_the_package_stays_small():
    assert sum(f.stat().st_size for f in embedded.path().iterdir()) < 3_200_000
    assert sum(embedded.pairs(s).stat().st_size for s in ("train", "test")) < 400_000
    more = [find(s) for find in (embedded.lists, embedded.steps) for s in ("train", "test")]
    assert sum(file.stat().st_size for file in more) < 200_000


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


def test_lists_are_four_different_continuations_rated_by_how_cheerful_they_sound(lists):
    rules = pytest.importorskip("jalign.rewards.rules")
    for row in lists["train"] + lists["test"]:
        assert set(row) == {"prompt", "responses", "ratings"}
        assert len(set(row["responses"])) == len(row["ratings"]) == 4
        assert max(row["ratings"]) - min(row["ratings"]) >= 0.4
    for row in lists["test"]:
        np.testing.assert_allclose(rules.sentiment(row["responses"]), row["ratings"], atol=1e-4)


def test_steps_are_sentences_of_both_labels(steps):
    rules = pytest.importorskip("jalign.rewards.rules")
    for row in steps["train"] + steps["test"]:
        assert set(row) == {"prompt", "completions", "labels"}
        assert len(row["completions"]) == len(row["labels"]) and set(row["labels"]) == {True, False}
        assert all(step == step.strip() and "\n" not in step for step in row["completions"])
    for row in steps["test"]:
        assert row["labels"] == [x >= 0 for x in rules.sentiment(row["completions"])]


def test_no_opening_is_in_a_training_and_a_test_split(pairs, lists, steps):
    def openings(split):
        return {row["prompt"].strip() for data in (pairs, lists, steps) for row in data[split]}

    assert not openings("train") & openings("test")
    assert not {r["prompt"] for r in lists["train"]} & {r["prompt"].strip() for r in steps["train"]}
    for data in (lists, steps):
        assert [len({r["prompt"] for r in data[s]}) for s in ("train", "test")] == [400, 60]


@pytest.mark.parametrize(
    ("name", "algorithm", "kind", "k", "extra"),
    [
        ("embedded-lists", "k_wise", "lists", 4, "ratings"),
        ("embedded-lists", "dpo", "pairs", 2, "margin"),
        ("embedded-lists", "kto", "binary", 1, "label"),
        ("embedded-steps", "prm", "stepwise", 1, "step_labels"),
    ],
)
def test_a_config_names_the_data_and_gets_their_own_test_split(
    tokenizer, name, algorithm, kind, k, extra
):
    if algorithm not in ALGORITHMS:
        pytest.skip(f"{algorithm} is not in the catalogue yet")
    config = options_of(Config(algorithm={"name": algorithm}, data=DataConfig(train=name)))
    train, held = build_data.examples_of(config, tokenizer)
    assert held is not None and train.report.kind == held.report.kind == kind
    assert (train.report.read, held.report.read) == (400, 60) and train.k == k
    assert extra in train.extras


def test_data_in_the_package_have_no_holdout_and_a_wrong_name_is_refused():
    for name in EMBEDDED:
        with pytest.raises(ValueError, match="there are held-out data already"):
            Config(algorithm={"name": "sft"}, data=DataConfig(train=name, holdout=0.1))
    with pytest.raises(ValueError, match="no data 'embedded-list'; did you mean 'embedded-lists'"):
        build_data.rows_of("embedded-list", "train")


@pytest.mark.parametrize("find", [embedded.pairs, embedded.lists, embedded.steps])
def test_an_unknown_split_is_refused(find):
    with pytest.raises(ValueError, match="one of train, test, got 'eval'"):
        find("eval")
