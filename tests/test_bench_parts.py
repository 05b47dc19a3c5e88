"""Commands within a time budget: what is recorded, what a later call does, what the table shows."""

import json
import sys
import time
from pathlib import Path

import pytest

from jalign.bench import parts as parts_module
from jalign.bench.parts import Part, figures, run
from tests._cli import call

GOOD = """print('{"tokens_per_second": 12345.6, "mfu": 0.41, "median_s": 1.25,'
' "device_peak_mib": 2560, "loading_device_peak_mib": 1024}')"""


def part(name, code, limit_s=60.0):
    return Part(name, limit_s, (sys.executable, "-c", code))


def results(folder):
    return json.loads((folder / "check.json").read_text())["parts"]


def test_a_part_that_fails_is_recorded_with_its_last_lines_and_the_rest_goes_on(tmp_path):
    bad = part("bad", "print('a figure'); raise SystemExit('out of memory')")
    parts = [bad, part("good", GOOD), Part("absent", 60.0, ("no-such-program",))]
    ended = {p.name: r["status"] for p, r in run(parts, tmp_path, 60)}
    assert ended == {"bad": "failed", "good": "ok", "absent": "failed"}
    kept = results(tmp_path)
    assert kept["bad"]["exit_code"] == 1 and "out of memory" in kept["bad"]["error"]
    assert kept["good"]["figures"]["mfu"] == 0.41 and kept["good"]["error"] == ""
    assert "no-such-program" in kept["absent"]["error"]
    assert "a figure" in (tmp_path / "check.log").read_text()


def test_a_later_call_runs_what_is_missing_first_then_what_failed_and_leaves_the_rest(tmp_path):
    once = tmp_path / "ran"
    counted = part("counted", f"open({str(once)!r}, 'a').write('x')")
    bad = part("bad", "raise SystemExit(3)")
    list(run([counted, bad], tmp_path, 60))
    added = part("added", GOOD)
    assert [p.name for p, _ in run([counted, bad, added], tmp_path, 60)] == ["added", "bad"]
    assert once.read_text() == "x"
    other = Part("counted", 60.0, (sys.executable, "-c", "pass"))  # another command of that name
    assert [p.name for p, _ in run([other, added], tmp_path, 60)] == ["counted"]


def test_a_part_beyond_its_limit_is_stopped_with_its_children(tmp_path):
    slow = Part("slow", 2.0, ("sh", "-c", "sleep 600 & echo $!; wait"))
    ((_, result),) = run([slow], tmp_path, 60)
    assert result["status"] == "timeout" and result["exit_code"] is None
    state = Path("/proc", result["error"].strip(), "stat")
    for _ in range(100):  # killed at once, removed a little later
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child still runs")


def test_what_does_not_fit_into_the_time_is_left_for_the_next_call(tmp_path, monkeypatch):
    monkeypatch.setattr(parts_module, "SHORTEST_S", 0.5)
    parts = [Part("slow", 60.0, ("sleep", "600")), part("second", GOOD)]
    assert list(run(parts, tmp_path, 0)) == []
    ((slow, result),) = run(parts, tmp_path, 1)
    assert (slow.name, result["status"]) == ("slow", "timeout")
    assert "| `second` | not reached |" in (tmp_path / "check.md").read_text()
    assert next(run(parts, tmp_path, 60))[0].name == "second"


def test_the_table_has_the_figures_the_peak_and_what_was_planned_for_it(tmp_path):
    plan = """print('words'); print('{\\n "gib_peak": 2.25,\\n "programs": [\\n {}\\n ]\\n}')"""
    list(run([part("row", GOOD), part("plan_row", plan)], tmp_path, 60))
    table = (tmp_path / "check.md").read_text().splitlines()
    cells = [cell.strip() for cell in table[-1].strip("|").split("|")]
    assert cells[:2] == ["`row`", "ok"]
    assert cells[3:] == ["1.250", "12,346", "41.0%", "", "2.50", "2.25"]
    assert len(table) == 3  # a plan has no row of its own


def test_the_last_object_that_begins_a_line_is_read():
    assert figures('{"a": 1}\nwords {"b": 2}\n{"c":\n {"d": 3}\n}\nmore words\n{not json') == {
        "c": {"d": 3}
    }
    assert figures("words") == {}


def test_the_command_says_by_its_exit_code_whether_every_part_has_ended_well(tmp_path, capsys):
    line = f"works 60 {sys.executable} -c pass"
    fails = f"fails 60 {sys.executable} -c 'raise SystemExit(2)'"
    code, said = call(["bench", "parts", "--out", tmp_path, line, fails], capsys)
    assert code == 1 and "fails: failed" in said.out and "not ended well: fails" in said.out
    code, said = call(["bench", "parts", "--out", tmp_path, line], capsys)
    assert code == 0 and "works: ok" not in said.out
    for wrong in ("works", "works soon true", "works 5"):
        code, said = call(["bench", "parts", "--out", tmp_path, wrong], capsys)
        assert code == 3 and "NAME SECONDS COMMAND" in said.err
    with pytest.raises(ValueError, match="name of its own"):
        list(run([part("a", ""), part("a", "")], tmp_path, 60))
    (tmp_path / "check.json").write_text("{")
    code, said = call(["bench", "parts", "--out", tmp_path, line], capsys)
    assert code == 3 and "check.json is damaged" in said.err
