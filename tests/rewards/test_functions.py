"""Reward functions: weights, columns, options, and failures that are counted."""

import asyncio
import functools
import json
import math
import sys
import time

import numpy as np
import pytest

from jalign.config import RewardConfig
from jalign.rewards.chat_client import FatalStatus
from jalign.rewards.functions import RewardFunctions
from jalign.rewards.resolve import find
from jalign.rewards.rules import exact_match

PROMPTS, RESPONSES = ["p", "q", "r"], ["one", "one two", "one two three"]


def words(prompts, responses):
    return [len(text.split()) for text in responses]


def of(weights, callables=None, columns=None, **more):
    return RewardFunctions(weights, callables=callables, **more)(PROMPTS, RESPONSES, columns)


def test_the_total_is_the_weighted_sum_and_each_part_is_there():
    found = of({"words": 2.0, "length_target": -1.0}, {"words": words},
               options={"length_target": {"target": 2}})  # fmt: skip
    np.testing.assert_array_equal(found.each["words"], [1, 2, 3])
    np.testing.assert_array_equal(found.each["length_target"], [-0.5, 0, -0.5])
    np.testing.assert_array_equal(found.total, [2.5, 4, 6.5])
    assert found.failed == {"words": 0, "length_target": 0} and found.errors == {}


def test_no_responses_have_no_rewards():
    found = RewardFunctions({"sentiment_reward": 1.0})([], [])
    assert found.total.shape == (0,) and found.failed == {"sentiment_reward": 0}
    assert math.isnan(found.metrics()["rewards/sentiment_reward/mean"])


def broken(prompts, responses):
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    "bad, error",
    [
        (broken, "RuntimeError: out of order"),
        (lambda p, r: [1.0, 2.0], "returned 2 values for 3 responses"),
        (lambda p, r: None, "returned None, not a number for each response"),
        (lambda p, r: 1.0, "returned 1.0, not a number"),
        (lambda p, r: "123", "returned '123', not a number"),
        (lambda p, r: {0: 1.0, 1: 1.0, 2: 1.0}, "not a number"),
    ],
)
def test_a_call_that_fails_gives_no_response_a_reward(bad, error):
    found = of({"bad": 0.5, "words": 1.0}, {"bad": bad, "words": words})
    assert np.isnan(found.total).all() and np.isnan(found.each["bad"]).all()
    assert found.failed == {"bad": 3, "words": 0}
    assert list(found.errors) == ["bad"] and error in found.errors["bad"]
    np.testing.assert_array_equal(found.each["words"], [1, 2, 3])


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "1", [1.0], np.ones(1), object(), 1j, 1e300, -1e39]
)
def test_a_reward_that_is_no_finite_number_is_missing_and_counted_never_zero(value):
    found = of({"some": 1.0}, {"some": lambda p, r: [1.0, value, True]})
    np.testing.assert_array_equal(found.total, [1.0, math.nan, 1.0])
    assert found.failed == {"some": 1} and found.errors["some"].startswith("response 1 got ")


def test_a_function_that_returns_none_does_not_apply_and_the_others_decide():
    none, nan = None, math.nan
    parts = {
        "a": (2.0, [1.0, none, none]),
        "b": (-0.5, [3.0, 5.0, none]),
        "seen": (0.0, [7.0, none, 9.0]),  # at weight 0 it decides nothing
    }
    weights = {name: weight for name, (weight, _) in parts.items()}
    callables = {name: lambda p, r, x=x: x for name, (_, x) in parts.items()}
    found = of(weights, callables)
    np.testing.assert_array_equal(found.total, [2 * 1 - 0.5 * 3, -0.5 * 5, nan])
    np.testing.assert_array_equal(found.applies, [True, True, False])
    assert found.absent == {"a": 2, "b": 1, "seen": 1}
    assert found.failed == dict.fromkeys(parts, 0) and found.errors == {}
    callables["b"] = lambda p, r: [3.0, nan, none]  # what fails is not what does not apply
    found = of(weights, callables)
    np.testing.assert_array_equal(found.total, [0.5, nan, nan])
    assert found.failed["b"] == found.absent["b"] == 1
    assert found.errors == {"b": "response 1 got nan"}


def leaves(prompts, responses):
    sys.exit(0)


def leaves_while_it_is_read(prompts, responses):
    yield 1.0
    raise SystemExit(3)


async def leaves_later(prompts, responses):
    raise SystemExit("later")


@pytest.mark.parametrize("bad", [leaves, leaves_while_it_is_read, leaves_later])
def test_a_function_that_leaves_the_process_has_failed_and_nothing_else(bad):
    async def good(prompts, responses):
        await asyncio.sleep(0.01)
        return [1, 2, 3]

    found = of({"bad": 0.0, "good": 1.0}, {"bad": bad, "good": good})
    np.testing.assert_array_equal(found.total, [1, 2, 3])
    assert found.failed == {"bad": 3, "good": 0} and "SystemExit" in found.errors["bad"]


def test_ctrl_c_in_a_reward_function_ends_the_run():
    def interrupted(prompts, responses):
        raise KeyboardInterrupt

    async def later(prompts, responses):
        raise KeyboardInterrupt

    for fn in (interrupted, later):
        with pytest.raises(KeyboardInterrupt):
            of({"fn": 1.0}, {"fn": fn})


def test_where_a_function_raised_is_kept_without_our_own_frames():
    found = of({"bad": 1.0, "words": 1.0}, {"bad": broken, "words": words})
    (text,) = found.tracebacks.values()
    assert text.startswith("Traceback") and text.endswith("RuntimeError: out of order")
    assert "in broken" in text and text.count("File ") == 1
    assert type(found).of_record(json.loads(json.dumps(found.record()))).tracebacks == {"bad": text}


def test_what_fails_at_weight_zero_is_counted_and_does_not_spoil_the_total():
    found = of({"words": 1.0, "bad": 0.0}, {"words": words, "bad": broken})
    np.testing.assert_array_equal(found.total, [1, 2, 3])
    assert found.failed["bad"] == 3
    np.testing.assert_array_equal(of({"words": 0.0}, {"words": words}).total, [0, 0, 0])


def test_metrics_are_of_the_responses_that_have_a_reward():
    found = of({"some": 1.0}, {"some": lambda p, r: [1.0, None, 4.0]}).metrics()
    expected = {"mean": 2.5, "std": 1.5, "failed": 0.0, "absent": 1.0}
    assert found == {f"rewards/some/{name}": x for name, x in expected.items()}
    assert math.isnan(of({"b": 1.0}, {"b": broken}).metrics()["rewards/b/std"])


def test_a_function_gets_the_columns_it_names_and_one_with_double_stars_gets_all():
    seen = {}

    def some(prompts, responses, *, answer, hint=None, missing=None, n=3, **rest):
        seen.update(answer=answer, hint=hint, missing=missing, n=n, rest=rest)
        return [0.0] * 3

    def few(prompts, responses, answer):
        seen.update(few=answer)
        return [0.0] * 3

    columns = {"answer": [1, 2, 3], "hint": list("abc"), "n": [7, 8, 9], "other": [4, 5, 6]}
    of({"some": 1.0, "few": 1.0}, {"some": some, "few": few}, columns)
    assert seen["answer"] == seen["few"] == [1, 2, 3] and seen["hint"] == list("abc")
    assert seen["missing"] is None and seen["rest"] == {"other": [4, 5, 6]}
    assert seen["n"] == 3  # an option is never taken from the data, whatever a column is called


def test_a_column_called_like_an_option_of_a_rule_is_not_taken_for_it():
    found = of({"length_target": 1.0}, columns={"target": ["cat", "dog", "cow"]})
    assert found.failed == {"length_target": 0}


def test_an_option_that_is_set_hides_the_column_of_its_name():
    def hinted(prompts, responses, *, hint=None):
        return [len(hint)] * 3

    columns = {"hint": ["a"] * 3}
    assert of({"h": 1.0}, {"h": hinted}, columns).total[0] == 3
    assert of({"h": 1.0}, {"h": hinted}, columns, options={"h": {"hint": "four"}}).total[0] == 4


def test_a_missing_column_and_columns_of_another_length_are_errors():
    with pytest.raises(ValueError, match=r"exact_match needs the column 'answer'.*mean 'answers'"):
        of({"exact_match": 1.0}, columns={"answers": ["a"] * 3})
    with pytest.raises(ValueError, match="3 responses, but 2 entries of answer"):
        of({"exact_match": 1.0}, columns={"answer": ["a"] * 2})
    with pytest.raises(ValueError, match="3 responses, but 1 entries of prompts"):
        RewardFunctions({"sentiment_reward": 1.0})(["p"], RESPONSES)


# ---- async


def test_async_functions_run_at_the_same_time():
    met = []

    async def slow(prompts, responses):
        met.append(len(met))
        for _ in range(1000):  # until the other one has begun, too
            if len(met) == 2:
                return [1.0, 2.0, None]
            await asyncio.sleep(0.01)
        raise TimeoutError

    parts = {"a": slow, "b": functools.partial(slow), "words": words}
    found = of(dict.fromkeys(parts, 1.0), parts)
    np.testing.assert_array_equal(found.total, [3.0, 6.0, 3.0])
    assert found.absent == {"a": 1, "b": 1, "words": 0}


def test_an_async_function_that_raises_fails_alone_also_inside_a_running_loop():
    async def bad(prompts, responses):
        raise KeyError("lost")

    async def good(prompts, responses):
        return [1, 2, 3]

    async def notebook():
        return of({"bad": 0.0, "good": 1.0}, {"bad": bad, "good": good})

    found = asyncio.run(notebook())
    np.testing.assert_array_equal(found.total, [1, 2, 3])
    assert found.failed == {"bad": 3, "good": 0} and found.errors["bad"] == "KeyError: 'lost'"


def test_what_was_asked_elsewhere_is_not_asked_again():
    def judge(prompts, responses):
        raise AssertionError

    functions = RewardFunctions(
        {"judge": 2.0, "words": 1.0}, callables={"judge": judge, "words": words}
    )
    found = functions(PROMPTS, RESPONSES, results={"judge": [1, math.nan, 3]})
    np.testing.assert_array_equal(found.total, [3, math.nan, 9])
    assert found.failed == {"judge": 1, "words": 0}


# ---- by name


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file, a module and a package of somebody's own reward functions."""
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Setting:\n    by: int = 2\n"
        "def doubled(prompts, responses, *, by=Setting().by):\n"
        "    return [by * len(text.split()) for text in responses]\n"
        "LIST = [1]\n"
    )
    package = tmp_path / "package_of_rewards"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def f(prompts, responses): return [1.0] * len(responses)\n")
    (package / "lacking.py").write_text("import package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith(("package_of_rewards", "_user_mine"))]:
        del sys.modules[name]


def test_functions_may_be_given_as_they_are():
    scaled = functools.partial(lambda prompts, responses, *, by=1: [by * len(r) for r in responses])
    found = of({words: 1.0, scaled: 0.5}, options={scaled: {"by": 2}})
    np.testing.assert_array_equal(found.each["words"], [1, 2, 3])
    np.testing.assert_array_equal(found.each["partial"], [6, 14, 26])

    def other(prompts, responses):
        return [0.0] * 3

    other.__name__ = "words"
    c = RewardConfig(functions={words: 1.0, other: 2.0, "exact_match": 1.0})  # type: ignore[dict-item]
    first, second, rule = c.functions
    assert find(first) is words and find(second) is other and rule == "exact_match"
    assert json.loads(json.dumps(c.functions)) == {first: 1.0, second: 2.0, "exact_match": 1.0}
    with pytest.raises(ValueError, match=r"gone is a function that another process was given"):
        find("here:gone")


def test_functions_are_found_by_name_in_a_file_and_in_a_package(own):
    name = f"{own / 'mine.py'}:doubled"
    found = of({name: 1.0, "package_of_rewards.inner:f": 1.0}, options={name: {"by": 3}})
    np.testing.assert_array_equal(found.each["doubled"], [3, 6, 9])
    np.testing.assert_array_equal(found.each["f"], [1, 1, 1])
    assert find("exact_match") is exact_match
    assert find(name) is find(name)  # the file is read once
    time.sleep(0.01)
    (own / "mine.py").write_text("def doubled(prompts, responses): return [0.0] * 3\n")
    assert find(name)([], []) == [0.0] * 3  # unless it changed


def test_two_functions_of_one_name_keep_the_places_they_are_from(own):
    (own / "other.py").write_text("def f(prompts, responses): return [2.0] * len(responses)\n")
    names = [f"{own / 'other.py'}:f", "package_of_rewards.inner:f"]
    assert RewardFunctions(dict.fromkeys(names, 1.0)).names == tuple(names)


@pytest.mark.parametrize(
    "name, error",
    [
        ("exact_mach", r"no reward function 'exact_mach'; did you mean 'exact_match'\?"),
        ("{own}/mine.py:doublet", "has no function 'doublet'; did you mean 'doubled'"),
        ("{own}/mind.py:doubled", "no file .*mind.py; did you mean 'mine.py'"),
        ("package_of_rewards.iner:f", "no module 'package_of_rewards.iner'; did you mean 'inner'"),
        ("package_of_reward:f", "no module 'package_of_reward'; did you mean 'package_of_rewards'"),
        ("package_of_rewards.inner.deep:f", "no module 'package_of_rewards.inner.deep'"),
        ("package_of_rewards.inner:g", "has no function 'g'; did you mean|there is: f"),
    ],
)
def test_a_name_that_names_nothing_is_an_error_with_the_nearest(own, name, error):
    with pytest.raises(ValueError, match=error):
        find(name.format(own=own))


def test_what_a_users_module_lacks_is_not_blamed_on_its_name(own):
    with pytest.raises(ModuleNotFoundError, match="package_that_is_not_there"):
        find("package_of_rewards.lacking:f")


@pytest.mark.parametrize(
    "fn, error",
    [
        (lambda responses: [], r"must take \(prompts, responses\), it takes \(responses\)"),
        (lambda completions, answer: [], "must take"),  # not ours: the prompts would land there
        (lambda prompts: [], "must take"),
        (eval("lambda p, r, x, /: []"), "columns are given by name"),
    ],
)
def test_a_function_of_another_signature_is_refused(fn, error):
    with pytest.raises(TypeError, match=error):
        RewardFunctions({"fn": 1.0}, callables={"fn": fn})


def test_a_file_that_ends_the_process_while_it_is_read_is_an_error(own):
    (own / "program.py").write_text("import sys\ndef f(prompts, responses): ...\nsys.exit(0)\n")
    with pytest.raises(ValueError, match=r"program.py ends the process while it is read"):
        find(f"{own}/program.py:f")


def test_what_is_no_function_is_refused(own):
    with pytest.raises(TypeError, match=r"must be a function, it is \[1\]"):
        find(f"{own / 'mine.py'}:LIST")


@pytest.mark.parametrize(
    "weights, more, error",
    [
        ({}, {}, "there must be at least one reward function"),
        ({"repetition": math.nan}, {}, "the weight of repetition must be finite"),
        ({"repetition": 1.0}, {"options": {"repetitio": {}}}, "has no weight; did you mean"),
        ({"repetition": 1.0}, {"options": {"repetition": {"m": 3}}}, "has no option 'm'.*: n"),
        ({"repetition": 1.0}, {"options": {"repetition": {"n": 0}}}, "n must be at least 1"),
        ({"exact_match": 1.0}, {"options": {"exact_match": {"answer": "a"}}}, "no option 'answer'"),
        ({"repetition": 1.0}, {"callables": {"f": words}}, "callables of 'f', which has no weight"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_asked(weights, more, error):
    with pytest.raises(ValueError, match=error):
        RewardFunctions(weights, **more)


def test_a_server_that_refuses_ends_it_all():
    def refused(prompts, responses):
        raise FatalStatus("status 401")

    with pytest.raises(FatalStatus, match="401"):
        of({"refused": 1.0}, {"refused": refused})


def test_what_breaks_while_it_is_read_is_counted():
    def breaks(prompts, responses):
        yield 1.0
        raise ZeroDivisionError("second")

    for fn in (breaks, lambda p, r: np.array(1.0)):
        found = of({"f": 1.0}, {"f": fn})
        assert found.failed == {"f": 3} and np.isnan(found.total).all()
    huge = of({"f": 1.0}, {"f": lambda p, r: [1.0, 10**400, 3.0]})
    assert huge.failed == {"f": 1} and huge.total[2] == 3


def test_columns_named_like_prompts_and_responses_are_not_passed():
    def everything(prompts, responses, **columns):
        assert set(columns) == {"level"}
        return [1.0] * len(responses)

    columns = {"responses": [1, 2, 3], "prompts": [4, 5, 6], "level": [7, 8, 9]}
    assert of({"f": 1.0}, {"f": everything}, columns).failed == {"f": 0}
