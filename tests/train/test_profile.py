"""Traces of chosen steps, and what was in memory when it ran out."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from jalign.run.session import Session
from jalign.train.hooks.profile import Profile, memory_profile_on_failure, parse_steps
from jalign.train.loop import StepInfo

STATE = SimpleNamespace(params=jnp.zeros(3))


@pytest.mark.parametrize("text, steps", [("12", range(12, 13)), ("3-5", range(3, 6))])
def test_steps_are_one_or_the_first_and_last_of_several(text, steps):
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["", "0", "5-3", "1:2", "ten", "-1"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"a step such as 12, or steps such as 12-14, got"):
        parse_steps(text)


def test_steps_that_the_session_does_not_take_are_refused():
    session = SimpleNamespace(start=3, steps=8, log=SimpleNamespace(folder=None))
    for steps in (range(1, 4), range(9, 10)):
        with pytest.raises(ValueError, match="this session takes steps 4 to 8"):
            Session._profile(session, steps)
    assert Session._profile(session, range(2, 5)) is None  # no process writes here


def traced(monkeypatch, steps, start, last):
    """The calls of the profiler during steps start + 1 to last, between their numbers."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append("begin"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("end"))
    profile = Profile(None, steps)
    profile.begin(start, STATE)
    for step in range(start + 1, last + 1):
        calls.append(step)
        profile(StepInfo(step, step == last, STATE, None, {}))
    return calls


def test_the_trace_is_of_these_steps_alone(monkeypatch):
    assert traced(monkeypatch, range(2, 4), 0, 5) == [1, "begin", 2, 3, "end", 4, 5]
    assert traced(monkeypatch, range(1, 2), 0, 2) == ["begin", 1, "end", 2]
    # after a resume, and where the run ends earlier
    assert traced(monkeypatch, range(2, 9), 3, 5) == ["begin", 4, 5, "end"]


def test_out_of_memory_names_a_file_with_what_was_in_it(tmp_path):
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED") as caught:  # noqa: SIM117
        with memory_profile_on_failure(tmp_path):
            jnp.zeros((1 << 46,), jnp.float32).block_until_ready()
    note = next(note for note in caught.value.__notes__ if "memory.prof" in note)
    assert f"{tmp_path}/memory.prof (" in note and "jalign plan" in note
    assert (tmp_path / "memory.prof").stat().st_size > 0


def test_other_errors_write_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), memory_profile_on_failure(tmp_path):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
