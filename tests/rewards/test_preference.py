"""Preferences: both orders, scores as preferences, all pairs of a group."""

import math

import numpy as np
import pytest

from jalign.rewards.preference import BothOrders, preference_matrix


def table(**p):
    """P(first) by the two texts, as `ab`; None where nothing is given."""

    def prefer(prompts, first, second):
        return [p.get(a + b) for a, b in zip(first, second, strict=True)]

    return prefer


def test_a_label_is_the_mean_of_both_orders():
    labels = BothOrders(table(ab=0.9, ba=0.3, cd=0.2, dc=0.6)).label([""] * 2, "ac", "bd")
    assert labels.probs == pytest.approx([(0.9 + 0.7) / 2, (0.2 + 0.4) / 2])
    assert labels.failed == 0


def test_position_bias_is_the_share_in_which_one_slot_wins_both_times():
    prefer = table(ab=0.9, ba=0.8, cd=0.1, dc=0.4, ef=0.9, fe=0.2, gh=0.5, hg=0.9, ij=0.9)
    both = BothOrders(prefer)
    labels = both.label([""] * 5, "acegi", "bdfhj")
    assert labels.position_bias == 2 / 4 and labels.failed == 1 and labels.probs[4] is None
    assert both([""], "e", "f") == pytest.approx([0.85])
    assert both.metrics() == {"judge/position_bias": 2 / 5, "judge/failed": 1 / 6}


def test_without_a_label_there_is_no_bias():
    labels = BothOrders(table()).label([""], "a", "b")
    assert labels.probs == [None] and math.isnan(labels.position_bias)
    assert math.isnan(BothOrders(table()).metrics()["judge/failed"])
    assert BothOrders(table()).label([], [], []).probs == []


def test_both_orders_are_asked_in_one_call():
    calls = []

    def prefer(prompts, first, second):
        calls.append((list(prompts), list(first), list(second)))
        return [0.5] * len(prompts)

    BothOrders(prefer).label(["p", "q"], ("a", "b"), ("c", "d"))
    assert calls == [(["p", "q", "p", "q"], ["a", "b", "c", "d"], ["c", "d", "a", "b"])]


def test_the_matrix_asks_each_pair_once_and_is_complementary():
    asked = []
    p = {"ab": 0.9, "ac": 0.3, "bc": None, "de": 0.6, "df": 0.2, "ef": 1.0}

    def prefer(prompts, first, second):
        asked.extend(zip(prompts, first, second, strict=True))
        return [p[a + b] for a, b in zip(first, second, strict=True)]

    found = preference_matrix(prefer, ["p", "q"], [["a", "b", "c"], ["d", "e", "f"]])
    nan = math.nan
    np.testing.assert_allclose(found[0], [[0.5, 0.9, 0.3], [0.1, 0.5, nan], [0.7, nan, 0.5]], 1e-6)
    np.testing.assert_allclose(found[1], [[0.5, 0.6, 0.2], [0.4, 0.5, 1.0], [0.8, 0.0, 0.5]], 1e-6)
    assert asked == [(q, a, b) for q, (x, y, z) in (("p", "abc"), ("q", "def"))
                     for a, b in ((x, y), (x, z), (y, z))]  # fmt: skip


def test_equal_texts_are_a_tie_that_nobody_is_asked_about():
    found = preference_matrix(table(ab=0.75), ["p"], [["a", "b", "a"]])
    np.testing.assert_allclose(found[0, 0], [0.5, 0.75, 0.5])
    found = preference_matrix(table(), ["p"], [["a", "a"]])
    np.testing.assert_array_equal(found, np.full((1, 2, 2), 0.5))
    assert preference_matrix(table(), [], []).shape == (0, 0, 0)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda: BothOrders(table()).label(["p"], "ab", "cd"), "1 prompts, 2 first and 2 second"),
        (lambda: preference_matrix(table(), ["p"], []), r"\[1\]\[K\], got 0 lists"),
        (lambda: preference_matrix(table(), ["p", "q"], ["ab", "a"]), r"lengths \[1, 2\]"),
    ],
)
def test_lengths_and_numbers_that_cannot_be_are_errors(call, error):
    with pytest.raises(ValueError, match=error):
        call()
