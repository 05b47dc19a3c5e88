"""`jalign label`, `revise` and `prompts`, with judges behind a server and in the process."""

import json

import pytest

pytest.importorskip("openai")

from jalign.data import sources
from tests._cli import call
from tests.judge_server import prefers_longer, serve
from tests.tiny_run import write_model


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("feedback") / "model")


@pytest.fixture
def candidates(tmp_path):
    rows = [{"prompt": f"p{i}", "responses": ["a" * (i + 1), "bb"]} for i in range(5)]
    path = tmp_path / "candidates.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options(**given):
    return [text for name, value in given.items() for text in (f"--{name}", value)]


def of_server(url, who="judge"):
    return options(**{f"{who}.server": url, f"{who}.model": "m"})


def test_label_writes_soft_preferences_and_says_what_it_left_out(candidates, tmp_path, capsys):
    out = tmp_path / "labels.jsonl"
    with serve(prefers_longer) as (url, _):
        files = options(file=candidates, out=out, batch_size=2)
        code, said = call(["label", *files, *of_server(url)], capsys)
    rows = sources.read(out)
    assert code == 0 and len(rows) == 4  # in the second both are as long, and the first loses twice
    assert [row["chosen"] for row in rows] == ["bb", "aaa", "aaaa", "aaaaa"]
    assert all(row["chosen_prob"] == pytest.approx(0.9, abs=1e-4) for row in rows)
    for words in (
        "dropped: 1 times the judge prefers neither response",
        "4 pairs written to",
        "judge/position_bias 0.2",
        "judge/requests 10",
    ):
        assert words in said.out, words


def test_label_asks_for_points_several_times_and_writes_rated_lists(candidates, tmp_path, capsys):
    def points(prompt):
        return ("Good. Score: 4" if "\naaa" in prompt else "Score: 2"), []

    out = tmp_path / "labels.jsonl"
    with serve(points) as (url, asked):
        files = options(file=candidates, out=out, limit=3)
        args = [*files, *of_server(url), *options(ask="points", **{"options.samples": 2})]
        code, said = call(["label", *args], capsys)
    assert code == 0 and len(asked) == 12
    assert sources.read(out) == [{"prompt": "p2", "responses": ["aaa", "bb"], "ratings": [4, 2]}]
    assert "dropped: 2 times all responses are rated alike" in said.out


def test_a_label_of_which_nothing_comes_is_an_error_that_counts_why(candidates, tmp_path, capsys):
    with serve(lambda prompt: ("no idea", [])) as (url, _):
        files = options(file=candidates, out=tmp_path / "labels.jsonl", ask="points")
        code, said = call(["label", *files, *of_server(url)], capsys)
    assert code == 3 and "no row came of 5" in said.err
    assert "30 times: a judgment names no points" in said.err


def test_what_the_server_said_stands_with_what_it_cost(candidates, tmp_path, capsys):
    files = options(file=candidates, out=tmp_path / "labels.jsonl", ask="score")
    with serve(lambda prompt: ("no idea", [])) as (url, _):
        code, said = call(["label", *files, *of_server(url)], capsys)
        assert code == 3 and " questions got no answer of the server, the last:" in said.err
        assert "no log-probabilities with 'no idea'" in said.err
    (tmp_path / "labels.jsonl.part").unlink(missing_ok=True)


def test_a_judge_that_always_names_the_same_slot_is_warned_of(candidates, tmp_path, capsys):
    def slot(prompt):
        sure = -0.05 if "\nbb\n\nResponse 2" in prompt else -0.1
        return "1", [["1", sure, {"2": -4.0}]]

    files = options(file=candidates, out=tmp_path / "labels.jsonl")
    with serve(slot) as (url, _):
        code, said = call(["label", *files, *of_server(url)], capsys)
    assert code == 0 and "warning: judge/position_bias: in nearly all pairs" in said.out


def test_label_by_principles_works_with_a_model_in_the_process(model, candidates, tmp_path, capsys):
    files = options(file=candidates, out=tmp_path / "labels.jsonl", ask="principles")
    code, _ = call(["label", *files, "--judge.model", model], capsys)
    assert code == 0
    assert all(0.5 < row["chosen_prob"] <= 1 for row in sources.read(tmp_path / "labels.jsonl"))


def test_revise_writes_every_revision_as_a_record_to_train_on(candidates, tmp_path, capsys):
    candidates.write_text('{"prompt": "p", "completion": " rude"}\n')

    def write(prompt):
        return ("too rude" if prompt.endswith("Critique:") else "  kinder "), []

    out = tmp_path / "revisions.jsonl"
    with serve(write) as (url, asked):
        files = options(file=candidates, out=out, rounds=2)
        code, _ = call(["revise", *files, *of_server(url, "writer")], capsys)
        assert code == 0 and len(asked) == 4
        rows = sources.read(out)
        assert [(r["prompt"], r["completion"], r["round"]) for r in rows] == [
            ("p", " kinder", 1),  # it goes on with the prompt as the first answer did
            ("p", " kinder", 2),
        ]
        assert rows[0]["critique"] == "too rude" and rows[0]["principle"] != rows[1]["principle"]
        code, _ = call(["revise", *files, *of_server(url, "writer"), "--keep", "last"], capsys)
    assert [row["round"] for row in sources.read(out)] == [2]


def test_prompts_are_made_until_there_are_enough(candidates, tmp_path, capsys):
    seeds = [{"prompt": f"seed number {word}"} for word in "abcdefghij"]
    candidates.write_text("".join(json.dumps(row) + "\n" for row in seeds))
    count = iter(range(100))
    out = tmp_path / "prompts.jsonl"
    with serve(lambda prompt: (f"w{next(count) // 2} " * 4, [])) as (url, asked):
        files = options(file=candidates, out=out, count=3, batch_size=2)
        code, said = call(["prompts", *files, *of_server(url, "writer")], capsys)
    assert code == 0 and len(sources.read(out)) == 3 and len(asked) <= 12
    assert "times a prompt is too like one that is there" in said.out
    assert "3 prompts written to" in said.out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("label --file f --out o.jsonl --judge.modl m", "no option 'judge.modl'; did you mean"),
        ("label --file f --out o.jsonl", "set judge.model"),
        ("label --file f --out o.txt --judge.model m", "out must end in .jsonl"),
        (
            "label --file f --out o.jsonl --judge.model m --options.reason x",
            "options: no option 'reason'; did you mean 'reasons'?",
        ),
        (
            "label --file f --out o.jsonl --judge.model m --principles p.json",
            "principles does not apply to ask: preference",
        ),
        ("label --file f --out o.jsonl --judge.model m --judge.cache c", "set server"),
        ("revise --file f --out o.jsonl --writer.model m --rounds 0", "rounds must be >= 1, got 0"),
        (
            "revise --file f --out o.jsonl --writer.model m --principles p.json",
            "no file of principles p.json",
        ),
        (
            "prompts --file f --out o.jsonl --writer.model m --count 1 --options.shot 4",
            "no option 'shot'; did you mean 'shots'?",
        ),
    ],
)
def test_bad_options_exit_with_2_and_name_the_key(line, message, capsys):
    code, said = call(line.split(), capsys)
    assert code == 2 and message in said.err, said.err
