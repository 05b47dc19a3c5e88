"""For tests that damage a checkpoint.

When one array cannot be read, Orbax abandons its reads of the others: coroutines that nobody awaits
and exceptions that nobody takes, in threads of their own. They are no fault of the test.
"""

import gc
import time

import pytest


@pytest.fixture
def abandoned_reads():
    """Lets them end here, not in the next test."""
    yield
    time.sleep(0.2)
    gc.collect()


def flip_a_bit(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x40
    path.write_bytes(raw)


def damages(test):
    """Marks a test that makes Orbax fail while it loads."""
    for ignored in (
        "ignore:coroutine .* was never awaited:RuntimeWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    ):
        test = pytest.mark.filterwarnings(ignored)(test)
    return pytest.mark.usefixtures("abandoned_reads")(test)
