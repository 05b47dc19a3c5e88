"""A whole leaderboard on the small model: killed, continued by the same command, and read back."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import yaml

from jalign.leaderboard import Spec, read_leaderboard, run_cells
from tests._xla import QUICK

SPEC = {
    "start": "embedded", "validation": 4, "test_limit": 6, "marks": 1, "tokens": 60, "seeds": 2,
    "responses_per_step": 4, "rates": [1e-3], "max_new_tokens": 6, "max_prompt_len": 20,
    "proxy": {"pairs": 8, "steps": 2, "batch_size": 4, "learning_rate": 1e-3},
    "methods": {
        "dpo": {},
        "twin": {"algorithm": "dpo", "like": "dpo", "group": "claim"},
        "rloo": {"options": {"responses": 2}},
    },
}  # fmt: skip


def results(out):
    """What finished cells measured, by name, without what it cost."""
    texts = {f.parent.name: json.loads(f.read_text()) for f in out.glob("cells/*/result.json")}
    for result in texts.values():
        for point in result["curve"]:
            point.pop("seconds")
    return {name: (r["curve"], r["margins"], r["nll"]) for name, r in texts.items()}


def start(out):
    """The command, in a process of its own with one device, as a user has."""
    command = [sys.executable, "-m", "jalign", "leaderboard", str(out.parent / "spec.yaml")]
    env = os.environ | {"XLA_FLAGS": QUICK}
    return subprocess.Popen(
        [*command, "--out", str(out)], env=env, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_leaderboard_continues_and_gives_what_it_would_have_given(tmp_path):
    out, spec = tmp_path / "out", Spec.from_dict(SPEC)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    process, second = start(out), out / "cells" / "twin-0.001-0-60" / "metrics.jsonl"
    try:
        while not second.exists():
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert set(results(out)) == {"dpo-0.001-0-60"}  # a cell is finished once it has a result
    first = (out / "cells" / "dpo-0.001-0-60" / "result.json").stat().st_mtime_ns

    process = start(out)
    said, _ = process.communicate()
    assert process.returncode == 0 and "5 cells finished, 0 left" in said
    assert (out / "cells" / "dpo-0.001-0-60" / "result.json").stat().st_mtime_ns == first
    ended = results(out)
    # the cell that was killed does what a cell does that was not
    for seed in (0, 1):
        assert ended[f"twin-0.001-{seed}-60"] == ended[f"dpo-0.001-{seed}-60"]
    assert ended["dpo-0.001-0-60"] != ended["dpo-0.001-1-60"]

    assert "| RLOO with 4 responses over 2 | open (not run: rloo_2) |" in said
    board = read_leaderboard(spec, out, samples=50)
    assert {row.name for row in board.rows} == {"dpo", "rloo"} and board.cells == 6
    assert [row.name for row in board.variants] == ["twin"]
    assert all(row.seeds == 2 and row.seconds > 0 for row in board.rows)
    assert {row.name: row.models for row in board.rows} == {"dpo": 2, "rloo": 3}
    assert json.loads((out / "leaderboard.json").read_text())["cells"] == 6
    assert (out / "leaderboard.html").read_text().count("<table") == 6
    samples = pq.read_table(out / "samples.parquet")
    assert samples.num_rows == 6 * 7  # six prompts; six cells and the start
    assert set(samples["p_first"].to_pylist()) <= {0.0, 0.5, 1.0}

    assert run_cells(spec, out, methods=["rloo"]) == (0, 0)
    other = Spec.from_dict(SPEC | {"max_new_tokens": 7})
    with pytest.raises(ValueError, match="another leaderboard: max_new_tokens differ"):
        run_cells(other, out)
    changed = Spec.from_dict(SPEC | {"methods": SPEC["methods"] | {"dpo": {"lora": 4}}})
    with pytest.raises(ValueError, match=r"methods\.dpo was another when dpo-0.001-0-60 ran"):
        run_cells(changed, out)
