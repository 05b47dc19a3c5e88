"""Models answer the same prompts and a judge compares them: answers, verdicts and what they say."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import jalign
from jalign.eval.arena import PairJudge, ScoreJudge, Verdict, arena
from jalign.eval.arena.answers import Answer
from jalign.eval.arena.entrants import short_names
from jalign.eval.arena.questions import Question, questions_of
from jalign.eval.arena.summary import elo, pair_summary, summary_of
from jalign.eval.arena.verdicts import Battle, battles_of, compare
from tests._cli import call
from tests.judge_server import prefers_longer, serve
from tests.tiny_run import write_model

PROMPTS = ["hello you", "the quick", "brown fox the", "how are"]


def question(text, **columns):
    return Question(text, None, columns)


def answers(*texts):
    return [Answer(i, f"p{i}", text, len(text), True) for i, text in enumerate(texts)]


def battles(*sides, chars=(10, 10)):
    return [Battle(i, p, q, None, None, *chars) for i, (p, q) in enumerate(sides)]


# judges


def test_a_judge_of_pairs_is_asked_in_both_orders_at_once():
    asked = []

    def prefer(prompts, first, second):
        asked.append(list(zip(prompts, first, second, strict=True)))
        return [0.9, None, 0.2, 0.6]

    verdicts = PairJudge(prefer)([question("p"), question("q")], ["a", "b"], ["x", "y"])
    assert asked == [[("p", "a", "x"), ("q", "b", "y"), ("p", "x", "a"), ("q", "y", "b")]]
    assert verdicts[0] == Verdict(0.9, pytest.approx(0.8))  # shown second, A wins with 1 - 0.2
    assert verdicts[1] == Verdict(None, pytest.approx(0.4))


@pytest.mark.parametrize(
    ("scores", "soft", "p"),
    [
        ((2.0, 1.0), False, 1.0),
        ((1.0, 2.0), False, 0.0),
        ((2.0, 2.0), False, 0.5),
        ((2.0, 1.0), True, 0.7310585786300049),
        ((1.0, 3.0), True, 0.11920292202211755),
        ((float("-inf"), float("-inf")), True, 0.5),
        ((float("-inf"), 1.0), True, 0.0),
        ((1.0, float("-inf")), True, 1.0),
    ],
)
def test_a_judge_of_single_answers_prefers_the_higher_score(scores, soft, p):
    judge = ScoreJudge(lambda questions, texts: scores, soft=soft)
    (verdict,) = judge([question("p")], ["a"], ["b"])
    assert verdict == Verdict(pytest.approx(p), pytest.approx(p), *scores)


def test_an_answer_without_a_score_has_no_verdict():
    judge = ScoreJudge(lambda questions, texts: [None, 1.0])
    assert judge([question("p")], ["a"], ["b"]) == [Verdict(None, None, None, 1.0)]


def test_equal_answers_tie_and_the_judge_is_not_asked_about_them():
    asked = []

    def judge(questions, a, b):
        asked.append([question.text for question in questions])
        return [Verdict(0.7, 0.6)]

    rows = compare(judge, [question("p"), question("q")], answers("x", "yy"), answers("x", "z"))
    assert asked == [["q"]]
    assert [(x.first, x.second) for x in rows] == [(0.5, 0.5), (0.7, 0.6)]
    assert [(x.chars_a, x.chars_b) for x in rows] == [(1, 1), (2, 1)]


# what verdicts say


def test_a_pair_by_hand():
    rows = battles((1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.8, 0.6), (None, 1.0), chars=(30, 20))
    pair = pair_summary(rows)
    assert (pair["prompts"], pair["judged"]) == (5, 4)
    assert pair["win_rate"]["value"] == pytest.approx((1 + 0.5 + 0 + 0.7) / 4)
    assert (pair["wins"], pair["ties"], pair["losses"]) == (2, 1, 1)
    assert pair["position_consistency"]["value"] == 3 / 4
    assert pair["length_ratio"] == 1.5
    assert pair["length_controlled"] is None  # all differences of length are equal
    assert pair_summary(rows, ordered=False)["position_consistency"] is None


def test_without_any_verdict_there_is_no_win_rate():
    pair = pair_summary(battles((None, 0.3)))
    assert (pair["prompts"], pair["judged"], pair["win_rate"]) == (1, 0, None)


def test_a_win_rate_that_comes_from_length_shrinks_at_equal_length():
    sizes = [(40, 10), (35, 10), (10, 30), (50, 10), (60, 20), (20, 25), (45, 15), (33, 30)] * 3
    # the longer answer wins, but for the last of each eight
    wins = [float((a > b) != (i % 8 == 7)) for i, (a, b) in enumerate(sizes)]
    rows = [
        Battle(i, p, p, None, None, a, b)
        for i, (p, (a, b)) in enumerate(zip(wins, sizes, strict=True))
    ]
    pair = pair_summary(rows)
    assert pair["win_rate"]["value"] == 5 / 8
    assert pair["length_controlled"]["value"] < 0.5


def test_three_models_get_elo_and_two_do_not():
    three = {name: answers("x") for name in ("a", "b", "c")}
    games = {
        ("a", "b"): battles((1, 1), (1, 1), (0, 0)),
        ("a", "c"): battles((1, 0), (1, 1), (0, 0)),
        ("b", "c"): battles((0, 0), (1, 1), (0.5, 0.5)),
    }
    ratings = elo(list(three), games)
    rated = ratings["ratings"]
    assert rated["a"]["elo"] == 1000 > rated["b"]["elo"] and ratings["prior"] == 0
    assert all(x["low"] <= x["elo"] <= x["high"] for x in rated.values())
    assert summary_of(three, games, ordered=True)["elo"] == ratings
    # c loses everything: without a prior it would have no finite rating
    beaten = games | {("a", "c"): battles((1, 1)), ("b", "c"): battles((1, 1))}
    bounded = elo(list(three), beaten)
    assert bounded["prior"] > 0 and bounded["ratings"]["c"]["elo"] < rated["b"]["elo"]
    two = {name: three[name] for name in ("a", "b")}
    assert summary_of(two, {("a", "b"): games["a", "b"]}, ordered=True)["elo"] is None


# names and prompts


def test_models_are_named_by_as_little_of_their_path_as_tells_them_apart():
    assert short_names(["runs/dpo", "embedded"]) == {"dpo": "runs/dpo", "embedded": "embedded"}
    assert list(short_names(["x/a/dpo", "x/b/dpo", "x/b/dpo@best"])) == [
        "a-dpo",
        "b-dpo",
        "dpo@best",
    ]
    with pytest.raises(ValueError, match="named twice"):
        short_names(["a", "a"])


def test_a_prompt_is_asked_once_however_many_rows_have_it():
    pairs = [("p", "a", "b"), ("p", "c", "d"), ("q", "e", "f")]
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in pairs]
    assert [x.text for x in questions_of(rows)] == ["p", "q"]
    assert [x.text for x in questions_of(["hi", "ho", "hu"], limit=2)] == ["hi", "ho"]
    chat = [[{"role": "user", "content": "hi"}]]
    assert questions_of(chat)[0].text == "hi"


# the command


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small random model, and the same with other weights as an adapter on it."""
    folder = tmp_path_factory.mktemp("arena")
    base = write_model(folder / "base")
    policy = jalign.load(str(base), lora=2, seed=3)
    import jax
    from flax import nnx

    from jalign.models.adapters.lora import trainable_filter

    state = nnx.state(policy.decoder, trainable_filter(policy.decoder))
    nnx.update(policy.decoder, jax.tree.map(lambda x: x + 0.2, state))
    policy.save(folder / "adapter", adapter=True)
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": p, "least": i}) + "\n" for i, p in enumerate(PROMPTS))
    )
    (folder / "judge.py").write_text(
        "def longer(prompts, responses, least):\n"
        "    return [max(len(r), n) for r, n in zip(responses, least)]\n"
    )
    return folder


def arguments(models, out, *more):
    names = [models / "base", models / "adapter", "--prompts", models / "prompts.jsonl"]
    return ["eval", *names, "--out", out, "--max_new_tokens", 6, "--batch_size", 2, *more]


def test_a_command_compares_an_adapter_with_its_base_and_keeps_everything(
    models, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "arena"
    args = arguments(models, out, "--judge", f"{models / 'judge.py'}:longer")
    code, output = call([*args, "--json"], capsys)
    assert code == 0, output.err
    summary = json.loads(output.out)
    (pair,) = summary["pairs"]
    assert (summary["judge"], pair["a"], pair["b"]) == ("longer", "base", "adapter")
    assert pair["judged"] == 4 and summary["elo"] is None and pair["position_consistency"] is None
    rows = {
        n: pq.read_table(out / "answers" / f"{n}.parquet").to_pylist() for n in ("base", "adapter")
    }
    assert [row["prompt"] for row in rows["base"]] == PROMPTS
    assert rows["base"] != rows["adapter"]
    kept = pq.read_table(out / "verdicts" / "longer" / "base__adapter.parquet").to_pylist()
    expected = [
        0.5
        + 0.5 * ((x := max(len(a["response"]), i)) > (y := max(len(b["response"]), i)))
        - 0.5 * (x < y)
        for i, (a, b) in enumerate(zip(rows["base"], rows["adapter"], strict=True))
    ]
    assert [row["first"] for row in kept] == expected
    assert pair["win_rate"]["value"] == sum(expected) / 4

    # again: nothing is sampled or judged anew, and the table has the same
    monkeypatch.setattr("jalign.eval.load.load", None)
    monkeypatch.setenv("COLUMNS", "200")
    code, output = call(args, capsys)
    assert code == 0 and "win rate of A, judge: longer" in output.out
    assert f"{pair['win_rate']['value']:.2f}".removeprefix("0") in output.out
    code, output = call([*args, "--seed", 1], capsys)
    assert code != 0 and "seed: 0 then, 1 now" in output.err

    # people decide on a sheet as the judge did
    code, output = call(arguments(models, out, "--human"), capsys)
    assert code == 0 and f"jalign eval --out {out} --verdicts FILE.csv" in output.out
    key = json.loads((out / "key.json").read_text())["rows"]
    rows = list(csv.DictReader((out / "sheet.csv").read_text().splitlines(keepends=True)))
    for row in rows:
        p = kept[key[row["id"]]["prompt_index"]]["first"]
        left = p if key[row["id"]]["a_is_left"] else 1 - p
        row["verdict"] = {1.0: "left", 0.5: "tie", 0.0: "right"}[left]
    with (out / "done.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    code, output = call(["eval", "--out", out, "--verdicts", out / "done.csv", "--json"], capsys)
    assert code == 0, output.err
    by_people = json.loads(output.out)
    assert by_people["pairs"][0] == pair and by_people["judge"] == "human"
    assert by_people["agreement"]["longer"]["rate"]["value"] == 1.0
    assert by_people["agreement"]["longer"]["verdicts"] == 4


def test_an_arena_needs_two_models_and_one_kind_of_judge(models, tmp_path, capsys):
    by = ["--judge", "repetition", "--out", tmp_path]
    for args, message in [
        (["eval", "embedded", *by, "--prompts", "embedded"], "two or more models"),
        (arguments(models, tmp_path, "--judge", "embedded", "--human"), "--judge and --human"),
        (["eval", "embedded", models / "base", *by], "give --prompts FILE"),
        (arguments(models, tmp_path, "--judge", "repetitoin"), "repetitoin"),
    ]:
        code, output = call(args, capsys)
        assert code != 0 and message in output.err


def test_a_server_judges_in_both_orders(models, tmp_path, capsys):
    pytest.importorskip("openai")
    with serve(prefers_longer) as (url, asked):
        by = ["--judge", "m", "--judge.server", url, "--json"]
        code, output = call(arguments(models, tmp_path, *by), capsys)
    assert code == 0, output.err
    (pair,) = json.loads(output.out)["pairs"]
    rows = pq.read_table(tmp_path / "verdicts" / "m" / "base__adapter.parquet").to_pylist()
    differ = [row for row in rows if (row["first"], row["second"]) != (0.5, 0.5)]
    assert len(asked) == 2 * len(differ) > 0 and pair["judged"] == 4
    for row in differ:
        longer = pytest.approx(0.9 if row["chars_a"] > row["chars_b"] else 0.1, abs=1e-4)
        assert row["chars_a"] == row["chars_b"] or row["first"] == row["second"] == longer


def test_python_compares_models_in_memory_by_a_function(models, tmp_path):
    base = jalign.load(str(models / "base"))
    calls = []

    def prefer(prompts, first, second):
        calls.append(len(prompts))
        return [float(a > b) for a, b in zip(first, second, strict=True)]

    both = {"base": base, "tuned": str(models / "adapter")}
    result = arena(both, PROMPTS, PairJudge(prefer, "order"), out=str(tmp_path), max_new_tokens=6)
    (rows,) = result.battles.values()
    differ = sum(a.response != b.response for a, b in zip(*result.answers.values(), strict=True))
    assert calls == [2 * differ]
    assert [x.first == x.second for x in rows] == [True] * 4  # the order of texts, not of slots
    assert result.summary["pairs"][0]["position_consistency"]["value"] == 1.0


KILLED = """
import os, signal, sys
from pathlib import Path
from jalign.eval.arena.judges import ScoreJudge
from jalign.eval.arena.verdicts import battles_of
from tests.eval.test_arena import answers, question

lots = []
def score(questions, texts):
    if len(lots) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    lots.append(1)
    return [len(text) for text in texts]

sides = answers("a", "bb", "c", "dd", "e", "ff"), answers("xx", "y", "zz", "v", "ww", "u")
battles_of(ScoreJudge(score), [question(f"p{i}") for i in range(6)], *sides, Path(sys.argv[1]),
           size=2, say=print, advance=lambda n: None)
"""


def test_verdicts_continue_where_a_killed_process_stopped(tmp_path):
    path = tmp_path / "a__b.parquet"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED, path], env=env, timeout=120)
    assert done.returncode == -signal.SIGKILL and not path.exists()
    scored = []

    def score(questions, texts):
        scored.extend(texts)
        return [len(text) for text in texts]

    sides = answers("a", "bb", "c", "dd", "e", "ff"), answers("xx", "y", "zz", "v", "ww", "u")
    questions = [question(f"p{i}") for i in range(6)]
    options = {"size": 2, "say": print, "advance": lambda count: None}
    rows = battles_of(ScoreJudge(score), questions, *sides, path, **options)
    assert scored == ["e", "ff", "ww", "u"]  # the third lot alone
    assert [x.first for x in rows] == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert path.exists() and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="made otherwise"):
        battles_of(ScoreJudge(score), questions, sides[1], sides[0], path, **options)
