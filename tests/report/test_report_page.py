"""The page of a run stands alone, shows what the record has, and runs in a browser."""

import html as entities
import json
import re
import shutil
import subprocess

import pytest
from markupsafe import escape

from jalign import report
from jalign.report import scale
from jalign.report.diff import word_diff
from tests.report._records import event, record, response, rows, session

EVIL = "<script>alert('x')</script>"
STEPS = list(range(1, 13))


def generations(step, *texts):
    rows_ = [{"prompt": f"p{i} {EVIL}", "continuation": text} for i, text in enumerate(texts)]
    return [{"step": step, "kind": "generations", "rows": rows_}]


@pytest.fixture(scope="module")
def grpo():
    train = rows("train", STEPS, loss=[1 / s for s in STEPS], reward=[0.1 * s for s in STEPS])
    held = rows("eval", [0, 6, 12], reward=[0.05, 0.5, 1.0])
    events = [
        session(1000.0, steps=12, versions={"jax": "0.10"}, command=f"jalign train {EVIL}.yaml",
                resident_bytes={"optimizer": 2**20}, identity={"data": "abc123"}),
        event("phase", 1004.0, name="evaluating", seconds=2.0),
        event("memory", 1004.0, bytes={"arguments": 2**20, "temporary": 3 * 2**20}),
        event("message", 1005.0, text=EVIL),
        session(1020.0, 6, steps=12),
        event("end", 1030.0, 12, code=0, meaning="done", host_peak_bytes=2**30),
    ]  # fmt: skip
    responses = [response(n, float(k) / n, EVIL, tokens=k) for n in range(1, 11) for k in (1, 2, 3)]
    return record(
        train, held, generations(0, "a sad cat", EVIL), generations(12, "a happy cat", "b"),
        config={"algorithm": {"name": "grpo", "kl": 0.5}, "steps": 12, "data": {"train": EVIL}},
        events=events, responses=responses, name=f"run {EVIL}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(grpo):
    return report.html([grpo])


def test_text_from_data_cannot_become_markup(page):
    assert EVIL not in page and str(escape(EVIL)) in page
    assert page.count("<script>") == 1


def test_a_run_of_python_objects_is_not_said_to_be_that_of_its_config():
    events = [session(1.0, command="train.py", from_python=["train", "optimizer"])]
    options = {"algorithm": {"name": "dpo"}, "optim": {"name": "adamw", "learning_rate": 1e-6}}
    text = report.html([record(rows("train", [1], loss=[1.0]), config=options, events=events)])
    assert "an object given from Python" in text and "learning rate 1e-06" not in text
    assert "does not hold: train, optimizer" in text and "jalign train" not in text
    plain = report.html([record(rows("train", [1], loss=[1.0]), config=options)])
    assert "learning rate 1e-06" in plain and "jalign train" in plain


def test_nothing_is_loaded_from_elsewhere(page):
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page)
    assert "default-src 'none'" in page


def test_it_shows_what_the_record_has(page):
    for part in ("curves", "samples", "rollouts", "time", "memory", "repeat"):
        assert f'id="{part}"' in page, part
    assert "a<del> sad</del> cat" in page and "a<ins> happy</ins> cat" in page
    assert 'class="state finished"' in page and "after step 6" in page
    assert page.count('class="restart"') == page.count('class="eval"') / 3 > 0
    assert "4 MiB" in page and "1 GiB" in page and "abc123" in page and "jax 0.10" in page


def test_a_run_with_an_empty_record_still_has_a_page():
    text = report.html([record(config={"algorithm": {"name": "dpo"}})])
    assert "How to repeat it" in text and "<svg" not in text
    assert 'id="curves"' not in text


def test_a_page_is_written_from_folders_and_several_runs_are_compared(tmp_path):
    from tests.report._records import write
    from tests.report._rollouts import write_rollout

    for i, name in enumerate("ab"):
        config = {"algorithm": {"name": "dpo", "beta": 0.1 + i}}
        write(tmp_path / name, rows("train", [1, 2], loss=[0.7, 0.5 + i]), config=config)
    write_rollout(tmp_path / "a", 3, ["one", "two"], [0.25, float("nan")])
    path = report.write([str(tmp_path / "a")])
    assert path == str(tmp_path / "a" / "report.html")
    text = (tmp_path / "a" / "report.html").read_text()
    assert "the prompt" in text and 'data-v="0.25"' in text and 'data-v=""' in text
    out = tmp_path / "both.html"
    report.write([str(tmp_path / "a"), str(tmp_path / "b")], str(out))
    assert "Settings that differ" in out.read_text() and "beta 1.1" in out.read_text()


def test_words_that_differ_are_marked_and_a_lone_common_word_is_not_a_match():
    assert word_diff("a cat sat", "a cat sat") == ("a cat sat", "a cat sat")
    assert word_diff("", "new <b>") == ("", "<ins>new &lt;b&gt;</ins>")
    left, right = word_diff("one and two", "three and four")
    assert (left, right) == ("<del>one and two</del>", "<ins>three and four</ins>")


def test_axes_end_at_round_numbers():
    assert scale.axis([0.13, 0.88]).ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    constant = scale.axis([2.0, 2.0])
    assert constant.low < 2 < constant.high
    log = scale.axis([0.002, 30.0], log=True)
    assert log.ticks == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100]) and log.at(1.0) == 0.6
    assert scale.axis([0.0]).low < 0 < scale.axis([0.0]).high
    assert scale.steps_axis(1).ticks == [0, 1]


def test_a_long_line_keeps_its_spikes():
    values = [0.0] * 10_000
    values[4321] = 9.0
    steps, kept = scale.thinned(range(10_000), values, most=100)
    assert len(steps) <= 100 and dict(zip(steps, kept, strict=True))[4321] == 9.0


def test_numbers_are_short():
    texts = [scale.compact(x) for x in (0.69314, 12345.6, -2e-5, 1234567, 0, 64.0, None)]
    assert texts == ["0.693", "12.3k", "-2e-05", "1.23M", "0", "64", "–"]  # noqa: RUF001
    assert [scale.duration(s) for s in (0.42, 75, 7325, 2e5)] == [
        "0.42 s", "1 min 15 s", "2 h 2 min", "2 d 7 h",
    ]  # fmt: skip


PROBE = """<script>
const probe = {errors, svgs: document.querySelectorAll("svg[data-chart] .line").length};
const svg = document.querySelector("svg[data-chart]"), box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right - 4, clientY: box.top + 9}));
probe.tip = document.getElementById("tip").innerText;
const table = document.querySelector("table.sortable");
const column = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent);
table.querySelectorAll("th button")[1].click(); probe.down = column();
table.querySelectorAll("th button")[1].click(); probe.up = column();
probe.wide = document.documentElement.scrollWidth > innerWidth;
document.body.replaceChildren(Object.assign(document.createElement("pre"), {textContent: JSON.stringify(probe)}));
</script></body>"""  # noqa: E501


def test_in_a_browser_curves_answer_the_pointer_tables_sort_and_nothing_fails(page, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("no browser")
    listen = "<head><script>const errors = []; onerror = (text) => errors.push(text);</script>"
    file = tmp_path / "page.html"
    file.write_text(page.replace("<head>", listen, 1).replace("</body>", PROBE, 1))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    options += ["--window-size=500,900", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [browser, *options, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    shown = re.search(r"<pre>(.*?)</pre>", done.stdout, re.S)
    probe = json.loads(entities.unescape(shown[1]))
    assert probe["errors"] == [] and "CONSOLE" not in done.stderr
    assert probe["svgs"] >= 2 and not probe["wide"]
    assert probe["tip"].split("\n")[0] == "step 12" and "0.083333" in probe["tip"]
    down = [float(x) for x in probe["down"]]
    assert down == sorted(down, reverse=True) and len(down) == 12
    assert [float(x) for x in probe["up"]] == sorted(down)
