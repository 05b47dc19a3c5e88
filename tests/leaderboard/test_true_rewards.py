"""What ranks the methods: rules, functions and reward models."""

import numpy as np
import pytest

from jalign.leaderboard import Method, Proxy, Spec
from jalign.leaderboard.setting import Setting
from jalign.leaderboard.true_rewards import cheerful_story

METHODS = {"dpo": Method(name="dpo")}


def test_cheerful_words_count_only_as_far_as_they_read_like_a_story():
    texts = [
        "One day, Lily was happy.",  # sentiment 0.5719, and all pairs of neighbors are known
        "One day, Lily was happy zebra.",  # of five windows, the last two have an unknown pair
        "happy happy happy happy day",
        "Lily was",  # shorter than a window
        "",
    ]
    scores = cheerful_story([""] * 5, texts)
    assert scores[0] == pytest.approx((1 + 0.5719) / 2)
    assert scores[1] == pytest.approx((1 + 0.5719) / 2 * 3 / 5)
    assert scores[2:] == [0.0, 0.0, 0.0]


def test_a_reward_model_can_be_the_true_reward(tmp_path):
    proxy = Proxy(pairs=8, steps=2, batch_size=4, learning_rate=1e-3)
    first = Setting(Spec(start="embedded", methods=METHODS, validation=4, proxy=proxy), tmp_path)
    learned = first.proxy
    name = str(tmp_path / "proxy")
    second = Setting(Spec(start="embedded", methods=METHODS, true_reward=name), tmp_path)
    prompts, responses = ["Once upon a time", "Tom had a cat."], [" she was happy.", ""]
    values = second.judged(prompts, responses)
    np.testing.assert_array_equal(values, learned.of_sampled(prompts, responses))
    assert values[0] != values[1]


def test_a_misspelled_rule_is_answered_with_the_nearest(tmp_path):
    setting = Setting(
        Spec(start="embedded", methods=METHODS, true_reward="sentiment_rewrd"), tmp_path
    )
    with pytest.raises(ValueError, match=r"'sentiment_rewrd'.*'sentiment_reward'"):
        setting.judged(["a"], ["b"])


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("sentiment_reward", False),
        ("jalign.leaderboard.true_rewards:cheerful_story", False),
        ("gs://bucket/runs/rm", True),
        ("org/reward-model", True),
    ],
)
def test_a_name_is_a_function_or_a_reward_model(name, model, tmp_path, monkeypatch):
    monkeypatch.setattr("jalign.leaderboard.setting.load_reward_model", lambda name: name)
    setting = Setting(Spec(start="embedded", methods=METHODS, true_reward=name), tmp_path)
    assert (setting.true_reward == name) == model
