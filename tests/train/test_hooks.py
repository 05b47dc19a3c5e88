"""The hooks write to any Logger, and what a preemption cuts short is not recorded."""

from contextlib import nullcontext
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from jalign.core import Frozen, Mean
from jalign.train.hooks import Evaluate, Evaluations, Generations, Metrics
from jalign.train.loop import StepInfo, StopTraining

FROZEN = Frozen(None, None)


class ListLogger:
    """A `Logger` of a user's own."""

    aside_s = 0.0

    def __init__(self):
        self.written, self.texts = [], []

    def write(self, step, metrics, kind="train"):
        self.written.append((step, kind, dict(metrics)))

    def text(self, step, name, rows):
        self.texts.append((step, name, rows))

    def tick(self, step): ...

    def phase(self, name, total=None):
        return nullcontext(lambda n: None)


class Source:
    tokens = 10

    def epoch(self, step):
        return step / 2

    def metrics(self):
        return {"replayed": 0.25}


STATE = SimpleNamespace(params=jnp.zeros(2), carry={}, ref=None, last=None)


def info(step, *, last=False, loss=1.0, bad=0):
    metrics = {"loss": loss, "grad_norm": 1.0, "skipped": bad, "skipped_in_a_row": bad}
    metrics = {name: jnp.asarray(x) for name, x in metrics.items()}
    return StepInfo(step, last, STATE, FROZEN, metrics)


def test_metrics_are_means_since_the_last_line_and_reach_any_logger():
    log = ListLogger()
    hook = Metrics(log, Source(), lambda step: 0.5, every=2, steps=4, max_bad_steps=3)
    for step, loss in ((1, 1.0), (2, 3.0), (3, 7.0)):
        hook(info(step, loss=loss))
    ((step, kind, metrics),) = log.written
    assert (step, kind) == (2, "train")
    assert metrics["loss"] == 2.0 and metrics["replayed"] == 0.25 and metrics["epoch"] == 1.0
    assert [row["loss"] for row in hook.pending()] == [7.0]


def test_a_run_of_skipped_steps_ends_training():
    hook = Metrics(ListLogger(), Source(), lambda step: 0.5, every=1, steps=4, max_bad_steps=2)
    hook(info(1, bad=1))
    with pytest.raises(StopTraining, match=r"2 steps in a row .* not finite, the last at step 2"):
        hook(info(2, bad=2))


def test_each_score_of_the_continuations_is_a_metric_of_its_own():
    log = ListLogger()
    rows = [{"prompt": "a", "continuation": "bb"}, {"prompt": "a", "continuation": "dddd"}]
    scores = {"length": lambda texts: map(len, texts), "first": lambda texts: [1.0, 0.0]}
    scores = {n: lambda texts, fn=fn: list(fn(texts)) for n, fn in scores.items()}
    hook = Generations(log, lambda state, frozen: rows, scores, every=2)
    hook(info(1))
    assert not log.texts
    hook(info(2))
    assert log.texts == [(2, "generations", rows)]
    assert log.written == [(2, "samples", {"samples/length/mean": 3.0, "samples/first/mean": 0.5})]


def test_an_evaluation_that_is_cut_short_is_not_recorded():
    log, asked = ListLogger(), iter([False, True, False, False])
    evaluations = Evaluations(log)
    hook = Evaluate(
        evaluations,
        lambda params, frozen, carry, data: {"loss": Mean(jnp.float32(data), jnp.float32(1))},
        lambda: iter([1.0, 3.0]),
        every=1,
        stop=lambda: next(asked),
    )
    hook(info(1))
    assert hook.interrupted and not log.written
    hook(info(2))
    assert not hook.interrupted and log.written == [(2, "eval", {"loss": 2.0})]
    assert evaluations.has(2)
