"""Where the time of a run went, from its events, or estimated from its metrics."""

from itertools import pairwise

import pytest

from jalign.report.timeline import Segment, merged, sessions_of
from tests.report._records import event, record, rows, session


def spans(one):
    begin = one.segments[0].begin
    return [(s.category, s.begin - begin, s.end - begin) for s in one.segments]


def test_phases_lie_between_steps_and_waiting_is_a_part_of_them():
    events = [
        session(1000.0),  # 2 s of loading before it
        event("phase", 1003.0, name="evaluating", seconds=3.0),
        event("phase", 1008.0, name="compiling the training step", seconds=5.0),
        event("phase", 1020.0, name="waiting for data", seconds=1.5),
        event("phase", 1024.0, name="saving", seconds=1.0),
        event("end", 1025.0, code=0),
    ]
    (one,) = sessions_of(record(events=events))
    assert spans(one) == [
        ("loading", 0, 2), ("evaluating", 2, 5), ("compiling", 5, 10), ("stepping", 10, 25),
        ("saving", 25, 26), ("stepping", 26, 27),
    ]  # fmt: skip
    assert one.totals() == {
        "loading": 2, "compiling": 5, "stepping": 14.5, "evaluating": 3, "saving": 1,
        "waiting for data": 1.5,
    }  # fmt: skip
    assert sum(one.totals().values()) == one.seconds == 27


def test_phases_within_phases_count_once_and_unknown_ones_are_other():
    events = [
        session(1000.0, loading_s=0.0),
        event("phase", 1004.0, name="evaluating", seconds=1.0),
        event("phase", 1006.0, name="dancing", seconds=5.0),
        event("end", 1006.0, code=0),
    ]
    (one,) = sessions_of(record(events=events))
    assert spans(one) == [("stepping", 0, 1), ("other", 1, 6)]


def test_every_session_has_its_own_time():
    events = [
        session(1000.0), event("phase", 1004.0, name="saving", seconds=1.0),
        session(1100.0, 4), event("end", 1110.0, code=0),
    ]  # fmt: skip
    first, second = sessions_of(record(events=events))
    assert (first.start, first.seconds, second.start, second.seconds) == (0, 6, 4, 12)


def test_without_events_steps_are_known_and_the_rest_is_other():
    lines = rows("eval", [0], loss=[0.7]) + rows("train", [10, 20], step_time=[0.5, 1.0])
    (one,) = sessions_of(record(lines))
    assert spans(one) == [("other", 0, 5), ("stepping", 5, 10), ("stepping", 10, 20)]
    assert sessions_of(record()) == []


@pytest.mark.parametrize("least_s, count", [(0.0, 5), (2.0, 2), (5.0, 1)])
def test_segments_too_short_to_be_seen_join_their_neighbors(least_s, count):
    lengths = [("stepping", 4), ("saving", 1), ("stepping", 4), ("evaluating", 3), ("stepping", 1)]
    segments, at = [], 0
    for category, seconds in lengths:
        segments.append(Segment(category, at, at + seconds))
        at += seconds
    joined = merged(segments, least_s)
    assert len(joined) == count and joined[-1].end == 13
    assert all(a.end == b.begin for a, b in pairwise(joined))
