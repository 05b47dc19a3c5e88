"""Which cell is next, and which rate is selected."""

import pytest

from jalign.leaderboard.cells import Cell, next_cell, selected_rate, start_cell
from jalign.leaderboard.spec import Spec


def spec(**more):
    methods = {"dpo": {}, "ipo": {"rates": [0.5]}, "beta": {"algorithm": "dpo", "like": "dpo"}}
    methods |= {"then": {"algorithm": "dpo", "after": "dpo", "like": "dpo"}}
    facts = {"start": "embedded", "rates": [0.1, 0.3], "tokens": 70, "seeds": 2}
    return Spec.from_dict(facts | {"methods": methods} | more)


def ended(true, kl=1.0):
    return {"curve": [{"true": 9.0, "kl": 0.0}, {"true": true, "kl": kl}]}


def order_of(given):
    """The cells in the order in which they run; the larger rate is better."""
    results, order = {}, []
    while (cell := next_cell(given, results, range(given.seeds))[0]) is not None:
        order.append(f"{cell.method} {cell.rate} {cell.seed}")
        results[cell] = ended(cell.rate)
    return order


def test_every_grid_runs_at_seed_0_then_other_seeds_at_the_selected_rate():
    assert order_of(spec()) == [
        *("dpo 0.1 0", "dpo 0.3 0", "ipo 0.5 0", "beta 0.3 0", "then 0.3 0"),
        *("dpo 0.3 1", "ipo 0.5 1", "beta 0.3 1", "then 0.3 1"),
    ]


def test_cells_that_are_left_are_counted_before_their_rate_is_known():
    given, done = spec(), Cell("dpo", 0.1, 0, 70)
    assert next_cell(given, {}, [0, 1])[1] == 9
    assert next_cell(given, {done: ended(0.2)}, [0, 1]) == (Cell("dpo", 0.3, 0, 70), 8)


def test_a_rate_beyond_the_kl_limit_is_selected_only_if_all_are():
    given = spec(kl_limit=5.0)
    method = given.methods["dpo"]
    near, far = Cell("dpo", 0.1, 0, 70), Cell("dpo", 0.3, 0, 70)
    assert selected_rate(given, method, 70, {near: ended(0.2)}) is None
    both = {near: ended(0.2, 4.0), far: ended(0.8, 6.0)}
    assert selected_rate(given, method, 70, both) == 0.1
    assert selected_rate(spec(), method, 70, both) == 0.3
    assert selected_rate(given, method, 70, both | {near: ended(0.2, 7.0)}) == 0.3


def test_a_method_starts_from_the_result_of_another_with_its_seed():
    given = spec()
    first, second = Cell("dpo", 0.1, 0, 70), Cell("dpo", 0.3, 0, 70)
    results = {first: ended(0.9), second: ended(0.2)}
    assert start_cell(given, Cell("then", 0.1, 0, 70), results) == first
    assert start_cell(given, first, results) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": {"dop": {}}}, "no algorithm 'dop'; did you mean"),
        ({"rate": [0.1]}, "no key rate.*did you mean 'rates'"),
        ({"proxy": {"step": 3}}, "no key proxy.step"),
        ({"methods": {"dpo": {"like": "ipo"}}}, "methods.dpo.like: no method 'ipo'"),
        ({"methods": {"dpo": {"noise": "uniform"}}}, "noise and noise_share go together"),
        ({"methods": {"dpo": {"noise": "clear", "noise_share": 0.1}}}, "must be none, uniform"),
        ({"methods": {"dpo": {"hyper": {"bta": 1.0}}}}, "no hyper-parameter 'bta'"),
        ({"marks": 0}, "marks must be >= 1"),
    ],
)
def test_a_bad_key_is_named_with_the_nearest_before_anything_runs(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        spec(**change)


def test_a_part_of_the_methods_brings_those_that_it_refers_to():
    assert list(spec().only(["then"]).methods) == ["dpo", "then"]
    with pytest.raises(ValueError, match=r"no method 'thn'.*did you mean 'then'"):
        spec().only(["thn"])
