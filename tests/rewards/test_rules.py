import pytest

pytest.importorskip("vaderSentiment")

from jalign.rewards.rules import sentiment


def test_sentiment_is_vaders_compound_score():
    # "good" has valence 1.9 in the lexicon, and compound = s / sqrt(s^2 + 15)
    assert sentiment(["good"]) == [pytest.approx(1.9 / (1.9**2 + 15) ** 0.5, abs=1e-4)]


def test_sentiment_orders_texts_and_an_empty_one_is_neutral():
    sad, empty, happy = sentiment(["She was sad and cried.", "", "She loved her happy friend."])
    assert -1 <= sad < empty == 0.0 < happy <= 1


def test_sentiment_of_no_texts_is_no_scores():
    assert sentiment([]) == []
