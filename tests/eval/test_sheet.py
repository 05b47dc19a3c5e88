"""The blind sheet: nobody can tell whose answers it shows, and only a complete one is read back."""

import csv
import html
import io
import json
import re
import shutil
import subprocess

import pytest

from jalign.eval.arena import sheet
from jalign.eval.arena.answers import Answer
from jalign.eval.arena.questions import Question

TEXTS = {
    "mine": ["fine, thanks", "a \"quoted\"\nline", "same", "</script><b>", "=1+1"],
    "yours": ["bad", "two\nlines, with a comma", "same", "plain", "six"],
}  # fmt: skip
QUESTIONS = [Question(f"prompt {i}", None, {}) for i in range(5)]


def answers_of(texts):
    return {
        name: [Answer(i, f"prompt {i}", text, 3, True) for i, text in enumerate(rows)]
        for name, rows in texts.items()
    }


ANSWERS = answers_of(TEXTS)


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))


def save(path, rows, **options):
    with path.open("w", encoding=options.get("encoding", "utf-8"), newline="") as file:
        writer = csv.DictWriter(file, options.get("columns", sheet.COLUMNS), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def prefers_mine(row):
    """left or right, wherever the answer of `mine` stands."""
    return "left" if row["left"] in TEXTS["mine"] else "right"


@pytest.fixture
def written(tmp_path):
    files = sheet.write(tmp_path, QUESTIONS, ANSWERS, seed=1)
    assert [file.name for file in files] == ["sheet.csv", "sheet.html", "key.json"]
    return tmp_path, rows_of(tmp_path / "sheet.csv")


def read(folder, rows=None, path="done.csv", **options):
    path = folder / path if rows is None else save(folder / path, rows, **options)
    return sheet.read(path, sheet.read_key(folder), ANSWERS)


def test_the_sheet_and_its_page_show_the_same_rows_and_no_model(written):
    folder, rows = written
    page = (folder / "sheet.html").read_text("utf-8")
    data = page.split('<script type="application/json" id="rows">')[1].split("</script>")[0]
    assert json.loads(data) == rows
    assert "http" not in page.replace("http-equiv", "")  # nothing is loaded from anywhere
    assert len(rows) == 4 and not {"same"} & {row["left"] for row in rows}  # a tie is no question
    assert {row["verdict"] for row in rows} == {""}
    for name in TEXTS:
        assert name not in page and name not in (folder / "sheet.csv").read_text("utf-8")


def test_answers_stand_on_both_sides(tmp_path):
    many = {"mine": [f"m{i}" for i in range(40)], "yours": [f"o{i}" for i in range(40)]}
    questions = [Question(f"prompt {i}", None, {}) for i in range(40)]
    sheet.write(tmp_path, questions, answers_of(many))
    left = sum(row["left"][0] == "m" for row in rows_of(tmp_path / "sheet.csv"))
    assert 10 < left < 30
    prompts = [row["prompt"] for row in rows_of(tmp_path / "sheet.csv")]
    assert prompts != sorted(prompts, key=lambda text: int(text.split()[1]))


@pytest.mark.parametrize("words", [{}, {"left": "1", "right": "2"}, {"left": " Left "}])
def test_a_completed_sheet_is_read_with_the_models_put_back(written, words):
    folder, rows = written
    for row in rows:
        word = prefers_mine(row)
        row["verdict"] = "tie" if row["prompt"] == "prompt 3" else words.get(word, word)
    battles = read(folder, rows)
    # mine is preferred everywhere, but for prompt 3 and the equal answers to prompt 2
    assert [x.first for x in battles["mine", "yours"]] == [1.0, 1.0, 0.5, 0.5, 1.0]
    assert [x.second for x in battles["mine", "yours"]] == [1.0, 1.0, 0.5, 0.5, 1.0]
    assert [x.chars_a for x in battles["mine", "yours"]] == [len(x) for x in TEXTS["mine"]]


def test_what_a_spreadsheet_changes_in_saving_does_not_matter(written):
    folder, rows = written
    for row in reversed(rows):
        row["verdict"] = "right" if prefers_mine(row) == "left" else "left"
        row |= {name: row[name].replace("\n", "\r\n") for name in ("left", "right")}
        row["remark"] = "hm"
    battles = read(folder, rows, encoding="utf-8-sig", columns=[*reversed(sheet.COLUMNS), "remark"])
    assert [x.first for x in battles["mine", "yours"]] == [0.0, 0.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: rows[:-1], "lacks 1 of 4 rows"),
        (lambda rows: [*rows, rows[0]], "is there twice"),
        (lambda rows: [rows[0] | {"left": "better"}, *rows[1:]], "were altered"),
        (lambda rows: [rows[0] | {"prompt": "?"}, *rows[1:]], "were altered"),
        (lambda rows: [rows[0] | {"verdict": ""}, *rows[1:]], "write left, right or tie"),
        (lambda rows: [rows[0] | {"verdict": "lefft"}, *rows[1:]], "did you mean 'left'"),
        (lambda rows: [rows[0] | {"id": "nobody"}, *rows[1:]], "has no row 'nobody'"),
    ],
)
def test_a_sheet_that_is_incomplete_or_altered_is_refused(written, damage, message):
    folder, rows = written
    rows = [row | {"verdict": "tie"} for row in rows]
    with pytest.raises(ValueError, match=message):
        read(folder, damage(rows))


def test_a_sheet_of_other_answers_is_refused(written):
    folder, rows = written
    path = save(folder / "done.csv", [row | {"verdict": "tie"} for row in rows])
    key = sheet.read_key(folder)
    changed = answers_of({**TEXTS, "yours": ["bad", "new", "same", "plain", "six"]})
    with pytest.raises(ValueError, match="other answers of mine and yours"):
        sheet.read(path, key, changed)
    fewer = {name: rows[:3] for name, rows in ANSWERS.items()}
    with pytest.raises(ValueError, match="more answers of mine and yours"):
        sheet.read(path, key, fewer)


def test_a_sheet_is_not_overwritten_and_needs_its_key(written, tmp_path_factory):
    folder, _ = written
    with pytest.raises(ValueError, match="exists: delete"):
        sheet.write(folder, QUESTIONS, ANSWERS, seed=2)
    with pytest.raises(ValueError, match="must be the folder that --human wrote to"):
        sheet.read_key(tmp_path_factory.mktemp("empty"))
    with pytest.raises(ValueError, match="all answers are equal"):
        same = answers_of({"a": ["x"], "b": ["x"]})
        sheet.write(tmp_path_factory.mktemp("same"), QUESTIONS[:1], same)


def test_a_file_that_is_no_sheet_is_refused(written):
    folder, _ = written
    (folder / "other.csv").write_text("id,verdict\n1,left\n")
    with pytest.raises(ValueError, match="lacks the columns prompt, left, right"):
        read(folder, path="other.csv")
    with pytest.raises(ValueError, match="there is no sheet"):
        read(folder, path="nothing.csv")


DRIVER = """<script>
let saved = "";
URL.createObjectURL = (blob) => { blob.text().then((text) => {
  const pre = document.createElement("pre");
  pre.id = "saved";
  pre.textContent = JSON.stringify(text);
  document.body.append(pre);
}); return "#"; };
const press = (key) => dispatchEvent(new KeyboardEvent("keydown", { key }));
for (let i = 0; i < rows.length; i++) press(rows[i].left === WANTED[rows[i].prompt] ? "1" : "2");
press("ArrowLeft"); press("3");  // the row before the last one is a tie after all
document.getElementById("save").click();
</script>"""


def test_the_page_takes_keys_and_saves_a_sheet_that_is_read_back(written):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium is installed")
    folder, rows = written
    wanted = {f"prompt {i}": text for i, text in enumerate(TEXTS["mine"])}
    page = (folder / "sheet.html").read_text("utf-8")
    driver = DRIVER.replace("WANTED", json.dumps(wanted).replace("<", "\\u003c"))
    (folder / "driven.html").write_text(page.replace("</body>", driver + "</body>"), "utf-8")
    profile = [
        "--no-sandbox",
        "--headless",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
    ]
    command = [browser, *profile, "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run(
        [*command, (folder / "driven.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    saved = re.search(r'<pre id="saved">(.*?)</pre>', done.stdout, re.S)
    assert saved, done.stderr
    (folder / "verdicts.csv").write_text(json.loads(html.unescape(saved[1])), "utf-8", newline="")
    battles = read(folder, path="verdicts.csv")["mine", "yours"]
    tie = int(rows[2]["prompt"].split()[1])
    assert [x.first for x in battles] == [0.5 if i in (2, tie) else 1.0 for i in range(5)]
