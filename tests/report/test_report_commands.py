"""The commands print tables and the path of a page, and refuse what is no run."""

import io

import pytest
from rich.console import Console

from jalign.cli.compare import compare
from jalign.cli.report import report
from jalign.cli.runs import runs
from jalign.run.summary import tensorboard_command
from tests.report._records import rows, write


def printed(command, *args):
    console = Console(file=io.StringIO(), width=200)
    command([str(arg) for arg in args], console)
    return console.file.getvalue()


@pytest.fixture
def two(tmp_path):
    for i, name in enumerate("ab"):
        config = {"algorithm": {"name": "dpo", "beta": 0.1 + i}, "model": {"path": "org/m"}}
        held = rows("eval", [0, 2], loss=[0.75, 0.5 + i])
        write(tmp_path / name, held, config=config | {"steps": 2})
    return tmp_path


def test_runs_are_listed_with_their_state_and_last_metric(two):
    text = printed(runs, two)
    assert f"{two}/a" in text and "dpo on m" in text and "2/2" in text
    assert "finished" in text and "held-out loss 0.5" in text and "held-out loss 1.5" in text
    (two / "none").mkdir()
    assert printed(runs, two / "none") == f"no run of jalign train in {two}/none\n"


def test_a_comparison_is_two_tables_and_perhaps_a_page(two):
    text = printed(compare, two / "a", two / "b", "--out", two / "page.html")
    assert "algorithm.beta" in text and "beta 0.1" in text and "held-out loss" in text
    assert "<svg" in (two / "page.html").read_text() and f"{two}/page.html" in text
    with pytest.raises(ValueError, match="needs at least two runs"):
        compare([str(two / "a")], Console(quiet=True))


def test_a_report_is_a_page_in_the_folder_of_the_run(two):
    assert printed(report, two / "a") == f"{two}/a/report.html\n"
    assert "<svg" in (two / "a" / "report.html").read_text()
    with pytest.raises(ValueError, match="is no folder of a run"):
        report([str(two)], Console(quiet=True))


def test_tensorboard_shows_a_run_under_its_name(two):
    assert tensorboard_command(two / "a") == f"tensorboard --logdir {two}"
    (two / "other").mkdir()  # a folder that is no run: TensorBoard is not sent to search it
    assert tensorboard_command(two / "a") == f"tensorboard --logdir_spec a:{two}/a"
