"""The record of a run: complete lines, and after a restart no step twice."""

import json

from rich.console import Console

from jalign.log import Display, RunLog


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_go_to_jsonl_and_tensorboard(tmp_path):
    log = RunLog(tmp_path, steps=2, start=0)
    log.write(1, {"loss": 0.5, "grad_norm": float("nan")})
    log.write(1, {"loss": 0.25}, "eval")
    log.text(2, "generations", [{"prompt": "a", "continuation": "b"}])
    log.close()
    first, second, third = lines(tmp_path / "metrics.jsonl")
    assert first["loss"] == 0.5 and first["grad_norm"] is None and first["kind"] == "train"
    assert second["kind"] == "eval" and third["rows"] == [{"prompt": "a", "continuation": "b"}]
    assert list(tmp_path.glob("events*"))


def test_going_on_drops_what_was_written_after_the_checkpoint_and_half_a_line(tmp_path):
    log = RunLog(tmp_path, steps=9, start=0)
    for step in range(1, 6):
        log.write(step, {"loss": 1.0 / step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    log = RunLog(tmp_path, steps=9, start=3)
    log.write(4, {"loss": 0.1})
    log.close()
    assert [(x["step"], x["loss"]) for x in lines(tmp_path / "metrics.jsonl")][-2:] == [
        (3, 1 / 3),
        (4, 0.1),
    ]


def test_without_a_terminal_there_are_plain_lines(tmp_path, capsys):
    log = RunLog(
        tmp_path, steps=2, start=0, display=Display(Console(force_terminal=False, width=200))
    )
    log.write(1, {"loss": 0.5, "rewards/margins": 0.25, "tokens_per_second": 100.0, "eta_s": 3.0})
    log.close()
    assert capsys.readouterr().out == "train 1/2  loss 0.5  margin 0.25  tok/s 100  ETA 3s\n"
