"""What is said at the end of a run."""

import io

from rich.console import Console

from jalign import store
from jalign.log import RunLog
from jalign.log.display import Display
from jalign.run import summary


def test_the_shown_texts_say_something_and_empty_ones_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    console = Console(file=io.StringIO(), width=80)
    log = RunLog(store.as_path(str(tmp_path)), steps=3, start=0, display=Display(console))
    prompts = ["one", "two", "three", "four", "five"]
    for step, texts in ((0, "abcde"), (3, ["[b]A", "", "C", "D", "E"])):
        rows = [{"prompt": p, "continuation": t} for p, t in zip(prompts, texts, strict=True)]
        log.text(step, "generations", rows)
    summary.conclude(log, store.as_path(str(tmp_path)), 0, 3, 1.0, None)
    log.close()
    said = console.file.getvalue()
    assert "[b]A" in said and "three" in said and "four" in said
    assert "two" not in said and "five" not in said
    assert "of 5 continuations 0 were empty before and 1 after" in said
    assert f"jalign eval {tmp_path}" in said.replace("\n", "")
    assert "bin/activate" in said or "source" not in said  # where there is a virtual environment
