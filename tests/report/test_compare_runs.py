"""Runs are compared by the settings that differ; seeds of the same settings are one group."""

import pytest

from jalign.report import compare
from jalign.report.svg import Line
from tests.report._records import record, rows, session


def run(name, beta, seed, loss, accuracy=(0.5, 0.75), steps=(0, 8), **config):
    held = rows("eval", steps, loss=loss, **{"rewards/accuracies": list(accuracy)})
    config = {"algorithm": {"name": "dpo", "beta": beta}, "seed": seed, "out": name} | config
    events = [session(1.0, data={"examples": 9, "held out": 64})]
    return record(held, config=config, events=events, name=name)


RUNS = [
    run("a", 0.1, 0, [0.7, 0.25]),
    run("b", 0.1, 1, [0.7, 0.75], log_every=5),
    run("c", 0.2, 0, [0.7, 0.5]),
]


def test_groups_are_settings_and_their_labels_what_differs():
    groups = compare.groups_of(RUNS)
    assert [(g.label, [r.name for r in g.runs]) for g in groups] == [
        ("beta 0.1", ["a", "b"]),
        ("beta 0.2", ["c"]),
    ]
    assert compare.differing(RUNS) == {
        "algorithm.beta": ["0.1", "0.1", "0.2"],
        "log_every": ["", "5", ""],
    }


def test_seeds_are_a_band_of_their_mean_and_range():
    charts = compare.charts_of(compare.groups_of(RUNS))
    loss = next(chart for chart in charts if chart.title == "Loss")
    assert loss.lines == [
        Line(
            label="beta 0.1, held out", steps=[0, 8], values=[0.7, 0.5], held_out=True,
            low=[0.7, 0.25], high=[0.7, 0.75],
        ),
        Line(label="beta 0.2, held out", steps=[0, 8], values=[0.7, 0.5], held_out=True, color=1),
    ]  # fmt: skip


def test_final_metrics_have_intervals_over_seeds_or_examples():
    table = compare.finals(compare.groups_of(RUNS))
    seeds, single = table["held-out loss"]
    # t(0.975, 1) = 12.7062, standard error 0.25
    assert seeds.mean == 0.5 and seeds.interval == pytest.approx((-2.67655, 3.67655), abs=1e-4)
    assert (seeds.least, seeds.most, seeds.how) == (0.25, 0.75, "Student's t, 2 seeds")
    assert (single.mean, single.interval, single.how) == (0.5, None, "one run")
    _, accuracy = table["held-out rewards/accuracies"]
    # Wilson: p = 0.75, n = 64
    assert accuracy.interval == pytest.approx((0.6318, 0.8398), abs=1e-4)
    assert accuracy.how == "Wilson, 64 examples"


def test_seeds_are_compared_at_the_last_step_that_all_have():
    short = run("b", 0.1, 1, [0.7, 0.75, 0.8], (0.5, 0.6, 0.7), (0, 4, 6))
    long = run("a", 0.1, 0, [0.7, 0.25, 0.1], (0.5, 0.8, 0.9), (0, 4, 8))
    (estimate,) = compare.finals(compare.groups_of([long, short]))["held-out loss"]
    assert (estimate.least, estimate.most) == (0.25, 0.75)


def test_shares_keep_to_their_range():
    runs = [run(n, 0.1, i, [0.7, 0.5], (0.5, x)) for i, (n, x) in enumerate([("a", 0.8), ("b", 1)])]
    (estimate,) = compare.finals(compare.groups_of(runs))["held-out rewards/accuracies"]
    assert estimate.mean == pytest.approx(0.9) and estimate.interval == (0.0, 1.0)
