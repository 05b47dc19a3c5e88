"""A file that grows item by item is the same however often the command that makes it is killed."""

import json

import pytest

from jalign.data import sources
from jalign.data.journal import Made, make_file

ITEMS = [f"item {i}" for i in range(7)]


class Killed(Exception):
    pass


def make(calls, dies_at=None):
    """Two rows of every item but the third, which is dropped; the first lot says what it saw."""

    def made(items, first, rows):
        if first == dies_at:
            raise Killed
        calls.append(first)
        return [
            Made([], ["bad luck"])
            if item == "item 2"
            else Made([{"text": item, "before": len(rows)}, {"text": "more", "before": 0}], [])
            for item in items
        ]

    return made


def write(path, calls, *, dies_at=None, items=ITEMS, said=None, **more):
    options = {"identity": {"judge.model": "a"}, "size": 2} | more
    say = (said if said is not None else []).append
    return make_file(path, items, make(calls, dies_at), say=say, **options)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_killed_file_goes_on_with_the_next_lot_and_is_the_same_in_the_end(tmp_path, name):
    whole = write(tmp_path / "whole" / name, [])
    path, calls, said = tmp_path / name, [], []
    for dies_at in (4, 6):
        with pytest.raises(Killed):
            write(path, calls, dies_at=dies_at, said=said)
        assert not path.exists()
    assert write(path, calls, said=said) == whole
    assert calls == [0, 2, 4, 6]
    assert said == ["resuming after 4 of 7", "resuming after 6 of 7"]
    assert path.read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [name]
    rows, dropped = whole
    assert sources.read(path) == rows and len(rows) == 12 and dropped == {"bad luck": 1}


def test_half_a_line_counts_as_none(tmp_path):
    path, calls = tmp_path / "rows.jsonl", []
    with pytest.raises(Killed):
        write(path, calls, dies_at=4)
    journal = tmp_path / "rows.jsonl.part"
    journal.write_bytes(journal.read_bytes()[:-3])  # the second lot's line
    rows, _ = write(path, calls)
    assert calls == [0, 2, 2, 4, 6] and rows == write(tmp_path / "whole.jsonl", [])[0]
    journal.write_text('{"judge.mo')  # not even the first line is whole
    assert write(path, [])[0] == rows


def test_a_file_that_was_begun_otherwise_is_refused_by_name(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(Killed):
        write(path, [], dies_at=2)
    with pytest.raises(ValueError, match=r"judge.model: 'a' then, 'b' now.*delete it"):
        write(path, [], identity={"judge.model": "b"})
    with pytest.raises(ValueError, match="items: "):
        write(path, [], items=ITEMS[:3])
    assert len(json.loads((tmp_path / "rows.jsonl.part").read_text().splitlines()[1])) == 2


def test_items_of_which_no_row_comes_are_an_error_that_says_why(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="no row came of 2; 2 times: bad luck"):
        write(path, [], items=["item 2", "item 2"])
    assert list(tmp_path.iterdir()) == []


def test_no_further_lot_is_made_once_there_are_rows_enough(tmp_path):
    calls = []
    rows, _ = write(tmp_path / "rows.jsonl", calls, most=5)
    assert len(rows) == 5 and calls == [0, 2]


@pytest.mark.parametrize("damage", [b"12", b"{}", b'[["half', b"\x00\xff", b'[{"rows": 1}]'])
def test_what_stands_in_and_below_a_damaged_line_is_made_again_and_said(tmp_path, damage):
    path, calls, said = tmp_path / "rows.jsonl", [], []
    with pytest.raises(Killed):
        write(path, calls, dies_at=6)
    journal = tmp_path / "rows.jsonl.part"
    lines = journal.read_bytes().split(b"\n")
    lines[2] = damage
    journal.write_bytes(b"\n".join(lines))
    rows, _ = write(path, calls, said=said)
    assert rows == write(tmp_path / "whole.jsonl", [])[0]
    assert calls == [0, 2, 4, 2, 4, 6]
    assert said[0].endswith("rows.jsonl.part: line 3 is damaged; what stands there and below is "
                            "made again")  # fmt: skip


def test_a_journal_whose_first_line_is_damaged_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(Killed):
        write(path, [], dies_at=4)
    journal = tmp_path / "rows.jsonl.part"
    journal.write_bytes(b"\x00" + journal.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"rows\.jsonl\.part is damaged: its first line.*delete"):
        write(path, [])


def test_a_second_process_that_writes_the_same_file_is_refused_and_the_first_unharmed(tmp_path):
    path = tmp_path / "rows.jsonl"
    refused = []

    def meddle(items, first, rows):
        with pytest.raises(ValueError, match=r"another command is writing .*rows\.jsonl") as e:
            write(path, [])
        refused.append(e)
        return make([])(items, first, rows)

    rows, _ = make_file(path, ITEMS, meddle, identity={"judge.model": "a"}, size=2)
    assert len(refused) == 4 and rows == write(tmp_path / "whole.jsonl", [])[0]
    assert write(path, [])[0] == rows  # and later it is free
