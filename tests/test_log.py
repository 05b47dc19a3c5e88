"""The record of a run: complete lines, and after a restart no step twice."""

import json
import resource
from contextlib import contextmanager

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
    assert list(tmp_path.glob("events.out*"))


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
    assert log.dropped == 5
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


@contextmanager
def room(size):
    """Meanwhile no file of this process may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_no_line_of_the_record_once_there_is_room_again(tmp_path, caplog):
    log = RunLog(tmp_path, steps=9, start=0)
    log.write(1, {"loss": 0.5})
    with room((tmp_path / "metrics.jsonl").stat().st_size + 30):  # half a line
        log.write(2, {"loss": 0.25})
        log.text(2, "generations", [{"prompt": "ä", "continuation": "b"}])
    assert [row["step"] for row in log.rows("train")] == [1, 2]
    log.write(3, {"loss": 0.125})
    log.close()
    assert [x["step"] for x in lines(tmp_path / "metrics.jsonl")] == [1, 2, 2, 3]
    said = [r.getMessage() for r in caplog.records if "metrics.jsonl" in r.getMessage()]
    assert (
        "cannot be written, training continues without it" in said[0]
        and "File too large" in said[0]
    )
    assert "is written again, nothing is missing" in said[1] and len(said) == 2


def test_a_full_disk_ends_tensorboard_and_not_the_run(tmp_path, caplog, capsys):
    log = RunLog(tmp_path, steps=99, start=0)
    with room(0):
        for step in range(1, 40):  # more than its queue holds
            log.write(step, {"loss": 0.5, "grad_norm": 1.0})
        log.close()
    assert "TensorBoard's events are no longer written" in caplog.text
    assert "the last 39 lines of" in caplog.text
    assert "Traceback" not in capsys.readouterr().err  # as of a thread that has died


def test_lines_that_are_no_records_are_dropped_counted_and_the_others_kept(tmp_path, caplog):
    log = RunLog(tmp_path, steps=9, start=0)
    for step in range(1, 4):
        log.write(step, {"loss": 0.5})
    log.close()
    path = tmp_path / "metrics.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    odd = b'12\n[]\nnull\n{"step": "2"}\n{"step": 2}\n\x00\xff\n"x"\n\n'
    path.write_bytes(first + odd + b"".join(others) + b'{"step": 3, "ki')
    log = RunLog(tmp_path, steps=9, start=3)
    assert [row["step"] for row in log.rows("train")] == [1, 2, 3]
    log.close()
    assert "metrics.jsonl: 8 damaged lines are dropped" in caplog.text


def test_a_record_without_a_checkpoint_is_dropped_and_known(tmp_path):
    log = RunLog(tmp_path, steps=9, start=0)
    assert log.dropped == 0
    log.write(7, {"loss": 0.5})
    log.close()
    log = RunLog(tmp_path, steps=9, start=0)
    assert log.dropped == 7 and log.rows("train") == []
    log.close()
