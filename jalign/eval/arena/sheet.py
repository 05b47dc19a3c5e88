"""A blind sheet: people compare answers without knowing whose they are.

Left and right are drawn for each row, rows of all pairs of models are shuffled, and which model
stands where is kept in a file apart, which is not handed out. The sheet is a CSV; a page (one HTML
file, which needs no network) shows the same rows and saves the same CSV.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from jalign import store
from jalign.eval.arena.answers import Answer
from jalign.eval.arena.judges import TIE, Verdict
from jalign.eval.arena.questions import Question
from jalign.eval.arena.verdicts import Battle, battle
from jalign.signatures import did_you_mean

SHEET, PAGE, KEY = "sheet.csv", "sheet.html", "key.json"
COLUMNS: tuple[str, ...] = ("id", "prompt", "left", "right", "verdict")
VERDICTS = {"left": 1.0, "1": 1.0, "right": 0.0, "2": 0.0, "tie": 0.5, "3": 0.5}
"""What may stand in the column `verdict` -> preference of the left answer."""

PAGE_SOURCE = Path(__file__).with_name("sheet.html")


class Entry(NamedTuple):
    """A row of the key.

    Attributes:
      a, b: the models. prompt_index: number of the prompt.
      a_is_left: whether the answer of a stands on the left.
      digest: of the texts of the row.
    """

    a: str
    b: str
    prompt_index: int
    a_is_left: bool
    digest: str


class Key(NamedTuple):
    """Whose answers a sheet shows: the models, and name of a row -> its entry."""

    models: list[str]
    rows: dict[str, Entry]


def write(
    out: Path,
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[Answer]],
    seed: int = 0,
) -> list[Path]:
    """Write sheet, page and key; equal answers are not asked about. Returns the files.

    Raises:
      ValueError: all answers are equal, or there is a sheet already.
    """
    files = [out / name for name in (SHEET, PAGE, KEY)]
    if (old := next((file for file in files if file.exists()), None)) is not None:
        # a new key would make a sheet that somebody works on unreadable
        raise ValueError(f"{old} exists: delete {SHEET}, {PAGE} and {KEY} to write a new sheet")
    rng = random.Random(seed)
    rows: list[dict[str, str]] = []
    key = Key(list(answers), {})
    for a, b in combinations(answers, 2):
        for question, x, y in zip(questions, answers[a], answers[b], strict=True):
            if x.response == y.response:
                continue
            a_is_left = rng.random() < 0.5
            left, right = (x, y) if a_is_left else (y, x)
            name = f"{rng.getrandbits(48):012x}"
            texts = (question.text, left.response, right.response)
            rows.append(dict(zip(COLUMNS, (name, *texts, ""), strict=True)))
            key.rows[name] = Entry(a, b, x.prompt_index, a_is_left, _digest(*texts))
    if not rows:
        raise ValueError("all answers are equal: there is nothing to compare")
    rng.shuffle(rows)
    contents = (_csv(rows), _page(rows), _json(key))
    for file, content in zip(files, contents, strict=True):
        store.write(file, lambda stream, content=content: stream.write(content.encode()))
    return files


def read(
    path: Path, key: Key, answers: Mapping[str, Sequence[Answer]]
) -> dict[tuple[str, str], list[Battle]]:
    """The verdicts of a completed sheet, the models put back by the key.

    Raises:
      ValueError: no such sheet, a row that is missing, doubled, altered or without a verdict, or
        answers that are not those of the sheet.
    """
    verdicts = _checked(_read_rows(path), key.rows, path)
    battles = {}
    for a, b in combinations(answers, 2):
        of_pair = {e.prompt_index: name for name, e in key.rows.items() if (e.a, e.b) == (a, b)}
        rows = []
        for x, y in zip(answers[a], answers[b], strict=True):
            name = of_pair.pop(x.prompt_index, None)
            if (name is None) != (x.response == y.response):
                raise ValueError(f"{path} was written for other answers of {a} and {b}")
            rows.append(
                battle(x, y, TIE if name is None else _of_a(key.rows[name], x, y, verdicts[name]))
            )
        if of_pair:
            raise ValueError(f"{path} was written for more answers of {a} and {b}")
        battles[a, b] = rows
    return battles


def _of_a(entry: Entry, a: Answer, b: Answer, left: float) -> Verdict:
    """The verdict on the answers of the entry's models, from the preference of the left one."""
    ordered = (a.response, b.response) if entry.a_is_left else (b.response, a.response)
    if entry.digest != _digest(a.prompt, *ordered):
        raise ValueError(f"the sheet was written for other answers of {entry.a} and {entry.b}")
    p = left if entry.a_is_left else 1 - left
    return Verdict(p, p)


def _checked(
    rows: Sequence[Mapping[str, str]], key: Mapping[str, Entry], path: Path
) -> dict[str, float]:
    """Row -> preference of its left answer, if the sheet is complete and unaltered."""
    verdicts: dict[str, float] = {}
    for line, row in enumerate(rows, 2):
        name, where = row["id"].strip(), f"{path}, row {line}"
        if name not in key:
            raise ValueError(f"{where}: the key has no row {name!r}")
        if name in verdicts:
            raise ValueError(f"{where}: row {name} is there twice")
        if key[name].digest != _digest(row["prompt"], row["left"], row["right"]):
            raise ValueError(f"{where}: prompt or answers of row {name} were altered")
        word = row["verdict"].strip().lower()
        if word not in VERDICTS:
            hint = did_you_mean(word, VERDICTS) if word else "; write left, right or tie"
            raise ValueError(f"{where}: row {name} has the verdict {word!r}{hint}")
        verdicts[name] = VERDICTS[word]
    if missing := [name for name in key if name not in verdicts]:
        raise ValueError(f"{path} lacks {len(missing)} of {len(key)} rows, the first: {missing[0]}")
    return verdicts


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"there is no sheet {path}")
    # spreadsheets write a byte order mark
    text = path.read_text("utf-8-sig")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {reader.line_num}: a row of another number of columns")
        rows.append(row)
    return rows


def read_key(out: Path) -> Key:
    """The key of the sheet that was written to a folder.

    Raises:
      ValueError: there is none.
    """
    path = out / KEY
    if not path.is_file():
        raise ValueError(f"there is no {path}: --out must be the folder that --human wrote to")
    key = json.loads(path.read_text("utf-8"))
    return Key(key["models"], {name: Entry(**entry) for name, entry in key["rows"].items()})


def _digest(*texts: str) -> str:
    """Of texts whose line ends and outer blanks a spreadsheet may have changed."""
    plain = [text.replace("\r\n", "\n").replace("\r", "\n").strip() for text in texts]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(COLUMNS))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _page(rows: Sequence[Mapping[str, str]]) -> str:
    # "</script>" in an answer would end the element that holds the rows
    data = json.dumps(rows).replace("<", "\\u003c")
    return PAGE_SOURCE.read_text("utf-8").replace("ROWS_OF_THE_SHEET", data)


def _json(key: Key) -> str:
    rows = {name: entry._asdict() for name, entry in key.rows.items()}
    return json.dumps({"models": key.models, "rows": rows}, indent=1) + "\n"
