"""The tables as Markdown and as a page, from values written down by hand."""

import json
import re
from dataclasses import replace

from jalign.eval.metrics import Estimate
from jalign.leaderboard.board import Leaderboard, Sample
from jalign.leaderboard.claims import Claim
from jalign.leaderboard.columns import markdown, tables_of
from jalign.leaderboard.page import html
from jalign.leaderboard.table import Row


def row(name, true, *, low, high, mib=181.6):
    wins = Estimate(0.75, 0.5, 0.9)
    return Row(
        name=name, rate=3e-4, seeds=3, true=Estimate(true, low, high), win=wins, lc_win=None,
        style_win=wins, elo=Estimate(1104.6, 1050.2, 1199.5), p_value=0.0004,
        at_kl=(0.1, 0.2, 0.3, 0.4),
                area=0.31, at_seconds=0.22, accuracy=wins, ece=0.071, kl=7.26, length_ratio=1.04,
        distinct_2=0.91, self_bleu=0.42, nll_change=0.0512, seconds=7.44, tokens_per_second=2911.4,
        models=2, step_mib=mib, worst_rate=0.11, best_rate=0.26,
    )  # fmt: skip


CLAIMS = [
    Claim("A over B", "open", None, None, ("a", "b"), "2305.18290", "not run: b"),
    Claim("B over A", "refuted", Estimate(-0.2, -0.3, -0.1), 0.012, ("a", "b"), "2305.18290"),
]
BOARD = Leaderboard(
    rows=[row("dpo", 0.61, low=0.5, high=0.75), row("rloo", 0.3, low=0.25, high=0.5, mib=None)],
    variants=[], claims=CLAIMS,
    kinds={"dpo": ("pair", *"abcde"), "rloo": ("score", *"abcde")},
    samples=[Sample("Once <b>upon</b>", {"start": (" a time", -0.1), "dpo": (" a joy", 0.9)})],
    seconds=6.2, cells=6, cpu_hours=0.071, hashes={"data": ["abcdefghijklmn"], "code": ["1", "2"]},
)  # fmt: skip


def test_markdown_has_a_line_per_row_and_leaves_unknown_values_empty():
    quality, cost, *_ = tables_of(BOARD)
    cells = {c.head: c.text(BOARD.rows[0]) for c in (*quality.columns, *cost.columns)}
    assert cells["true reward"] == "0.610 [0.500, 0.750]" and cells["p"] == "<0.001"
    assert cells["Elo"] == "1105 [1050, 1200]" and cells["at equal length"] == ""
    assert (cells["rate"], cells["seeds"], cells["models"], cells["MiB"]) == (
        "0.0003",
        "3",
        "2",
        "182",
    )
    assert cells["NLL"] == "+0.051" and cells["rates"] == "0.11 to 0.26"
    text = markdown(BOARD)
    assert "| A over B | open (not run: b) |  |  | 2305.18290 |" in text
    assert "| B over A | refuted | -0.200 [-0.300, -0.100] | 0.012 | 2305.18290 |" in text
    assert text.endswith("Equal seconds are 6.2. SHA-256: data abcdefghijkl; code 1, 2.\n")
    tables = [block.splitlines() for block in text.split("\n\n")[:-1]]
    assert [len(lines) - 2 for lines in tables] == [2, 2, 2, 2]
    assert all(len({line.count("|") for line in lines}) == 1 for lines in tables)


def test_the_page_sorts_by_numbers_draws_intervals_and_escapes_texts():
    text = html(BOARD)
    assert text.count("<table") == 4 and "Variants" not in text
    assert 'data-v="0.61">0.610 [0.500, 0.750]' in text
    assert 'data-v="">' in text  # an unknown number is sorted last
    # 0.25 to 0.75 are the ends of the column: 0.5 to 0.75 is its right half, 0.61 at 72 %
    assert '<path d="M50.0 4H100.0"/><path class="dot" d="M72.0 0V8"/>' in text
    assert "Once &lt;b&gt;upon&lt;/b&gt;" in text and "dpo · 0.90" in text
    links = re.findall(r'href="#([^"]+)"', text)
    assert links[-1] == "samples" and all(f'id="{link}"' in text for link in links)
    assert not re.search(r'(?:src|href)="https?:', text)


def test_values_that_json_has_not_become_null():
    board = replace(BOARD, seconds=float("nan")).to_json()
    assert json.loads(json.dumps(board, allow_nan=False))["seconds"] is None
    assert board["rows"][0]["true"] == {"value": 0.61, "low": 0.5, "high": 0.75}
