"""What `jalign rollouts` shows where it has room and where it has none."""

import io

import numpy as np
import pytest
from rich.console import Console

from jalign.cli.rollouts import rollouts
from jalign.rollout import record
from jalign.rollout.types import Rollout

PROMPT = "Once upon a time there was a [bold]fox[/bold] who wanted to learn how to read a book"
ANSWER = "The fox asked the owl, and the owl said that he would teach him a letter every day."


def test_advantages_of_selected_responses_stand_at_these(tmp_path):
    rollout = Rollout.from_lists([np.array([9])], [[[1, 2], [3], [4, 5]]], finished=[[True] * 3])
    arrays = {"advantages": np.array([[[0.5, 0.25]]], np.float32), "take": np.array([[2]])}
    record.write(tmp_path / record.FOLDER, 1, 0, [PROMPT], [["a", "b", "c"]], rollout, arrays)
    shown = record.read(tmp_path / record.FOLDER)
    assert [row["advantage"] for row in shown] == [0.0, 0.0, 0.375]


@pytest.mark.parametrize(("width", "stacked"), [(80, True), (160, False)])
def test_texts_keep_their_lines_in_a_narrow_terminal(tmp_path, width, stacked):
    rollout = Rollout.from_lists([np.array([9])], [[[1, 2], [3]]], finished=[[True, False]])
    scores = {"scores": np.array([[0.5, 0.75]], np.float32)}
    record.write(tmp_path / record.FOLDER, 3, 0, [PROMPT], [[ANSWER, "no"]], rollout, scores)
    out = io.StringIO()
    rollouts([str(tmp_path)], Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert any("[bold]fox[/bold] who wanted to learn" in line for line in lines) == stacked
    assert any(line.startswith("rollout 3: reward 0.75, tokens 1, ended no") for line in lines) == (
        stacked
    )
    assert lines[-1] == "2 responses, mean reward 0.625, mean length 1.5 tokens"
