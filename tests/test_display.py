"""What people see: bars in a terminal, few lines in a pipe and in a notebook."""

import io
import re

import pytest
from rich.console import Console

from jalign.log.display import Display


@pytest.fixture(autouse=True)
def _no_notebook(monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def terminal(width=80):
    return Console(force_terminal=True, width=width, file=io.StringIO())


def text(console):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


MANY = {
    "loss": 0.689123, "reward": 1.25, "rewards/accuracies": 0.5, "rewards/margins": 0.009221,
    "objective/kl": 0.0123, "completions/mean_length": 31.5, "grad_norm": 1.9391,
    "learning_rate": 0.0008536, "tokens_per_second": 1203.4, "eta_s": 75.0,
}  # fmt: skip


def test_a_terminal_of_80_columns_shows_step_bar_eta_and_speed():
    console = terminal()
    display = Display(console)
    display.training(0, 12)
    display.training(4, 12)
    display.metrics("train", 4, 12, MANY)
    display.close()
    shown = text(console).replace("\r", "\n").split("\n")
    assert any(re.search(r"train 4/12 ━+.* 1,203 tok/s", line) for line in shown)
    (line,) = [line for line in shown if line.startswith("train 4/12  ")]
    assert line.rstrip() == (
        "train 4/12  loss 0.6891  reward 1.25  accuracy 0.5  margin 0.009221  KL 0.0123"
    )
    assert max(map(len, shown)) <= 80


def test_metrics_of_an_online_run_and_of_its_evaluations_are_a_line_each():
    console = Console(file=io.StringIO(), width=200)
    display = Display(console)
    online = {"loss": 1.5e-7, "reward": 0.25, "objective/kl": 0.5, "completions/mean_length": 12.0}
    display.metrics("train", 2, 3, online | {"skipped": 1.0})
    display.metrics("eval", 3, 3, {"reward": -0.5, "completions/mean_length": 11.0, "other": 3.0})
    display.metrics("eval", 3, 3, {"nothing/known": 1.0})
    assert console.file.getvalue() == (
        "train 2/3  loss 1.5e-07  skipped 1  reward 0.25  KL 0.5  length 12\n"
        "eval 3/3  reward -0.5  length 11\n"
    )


def test_a_phase_is_one_line_in_a_pipe_however_often_it_comes():
    console = Console(file=io.StringIO(), width=80)
    display = Display(console)
    display.training(0, 3)
    for _ in range(3):
        with display.phase("evaluating", total=2) as advance:
            advance(1)
            advance(1)
    assert console.file.getvalue() == "evaluating ...\n"


def test_a_phase_stands_below_the_bar_of_the_run_and_goes_with_its_end():
    console = terminal()
    display = Display(console)
    display.training(1, 3)
    with pytest.raises(RuntimeError), display.phase("evaluating", total=4) as advance:
        advance(3)
        display._bars.refresh()
        raise RuntimeError
    assert "3/4" in text(console)
    assert [task.description for task in display._bars.tasks] == ["train"]
    display.close()


@pytest.mark.parametrize(
    ("variable", "value"), [("JPY_PARENT_PID", "7"), ("COLAB_RELEASE_TAG", "x"), ("TERM", "dumb")]
)
def test_a_notebook_gets_lines_although_its_commands_have_a_terminal(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    console = terminal()
    display = Display(console)
    display.training(0, 100)
    for step in range(100):
        display.training(step, 100)
    with display.phase("evaluating"):
        pass
    display.close()
    assert text(console) == "evaluating ...\n"


def test_without_a_console_nothing_is_shown_and_phases_work():
    display = Display()
    with display.phase("evaluating", total=1) as advance:
        advance(1)
    display.training(1, 2)
    display.metrics("train", 1, 2, MANY)
    display.say("a line")
    display.close()


def test_large_transfers_are_counted_in_gb_and_small_ones_are_not(monkeypatch):
    console = terminal()
    display = Display(console)
    with display.transfer("loading the model") as report:
        report(5 * 10**6, 10**7)
        report(12 * 10**9, 141 * 10**9)
        display.close()  # draws the last state
    shown = text(console)
    assert "loading the model (GB) 12/141" in shown and "10000000" not in shown
    pipe = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr("jalign.log.display._QUIET_S", 0.0)
    with Display(pipe).transfer("loading the model") as report:
        report(5 * 10**6, 10**7)
        report(12_340_000_000, 141 * 10**9)
        report(141 * 10**9, 141 * 10**9)
    expected = "loading the model ...\nloading the model: 12.3 of 141.0 GB\n"
    assert pipe.file.getvalue() == expected
