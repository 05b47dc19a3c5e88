import ctypes
import os
import signal
import threading

import pytest

from jalign.train.preemption import ExitCode, Preemption

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_for_an_orderly_stop(number):
    with Preemption() as preemption:
        assert not preemption.reached(1)
        send(number)
        assert preemption.reached(2)
        assert preemption.reached(3)


def test_the_second_interrupt_stops_at_once_and_a_second_sigterm_does_not():
    with Preemption() as preemption:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert preemption.reached(1)


def test_the_old_handlers_come_back_also_after_an_error():
    before = [signal.getsignal(s) for s in SIGNALS]
    with pytest.raises(ZeroDivisionError), Preemption():
        assert [signal.getsignal(s) for s in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_the_self_test_notices_a_handler_that_somebody_else_installed():
    with Preemption() as preemption:
        preemption.check()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with pytest.raises(RuntimeError, match=r"SIGTERM goes to .*SIG_IGN"):
            preemption.check()


def test_exit_codes_are_those_that_launchers_know():
    assert {c.name: int(c) for c in ExitCode} == {
        "OK": 0,
        "BAD_CONFIG": 2,
        "BAD_INPUT": 3,
        "DIVERGED": 4,
        "CHECKPOINT_FAILED": 5,
        "NOTHING_LEARNED": 6,
        "PREEMPTED": 42,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGINT, "Ctrl-C again aborts"), (signal.SIGTERM, "told by SIGTERM")],
)
def test_a_signal_is_acknowledged_at_once_and_only_once(number, how):
    """Also while a program compiles, when no handler of Python's runs."""
    words, sleep = [], ctypes.CDLL(None).usleep
    with Preemption(words.append) as preemption:
        timer = threading.Timer(0.05, send, [number])
        timer.start()
        sleep(400_000)  # one call into C: a handler can only run after it
        assert preemption.reached(1)
        timer.join()
        if number == signal.SIGTERM:
            send(number)
    assert words == [f"stopping after this step and saving ({how})"]


def test_aborting_is_said_as_well():
    words = []
    with Preemption(words.append), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
        send(signal.SIGINT)
    assert words[-1] == "aborting"
