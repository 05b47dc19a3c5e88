"""A judge behind a real server: a process on loopback, the openai client, every way to fail."""

import json
import math
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("openai")

from jalign.rewards import chat_client
from jalign.rewards.cache import DiskCache
from jalign.rewards.rating import additive_ratings, direct_score
from jalign.rewards.rlaif import labeler
from jalign.rewards.server import ServerJudge
from tests.rewards._server import LATER_S, SLOW_S

SERVER = Path(__file__).parent / "_server.py"
PATIENT = {"retries": 3}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries without the waits of production."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(chat_client, "MALFORMED_WAIT_S", 0.01)


@pytest.fixture
def url():
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


def told(url):
    """What the server saw."""
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def wish(text="", **more):
    return json.dumps({"text": text, **more})


def ask(judge, *prompts, temperature=0.0):
    return judge.complete(prompts, max_tokens=7, temperature=temperature)


def test_a_prompt_is_one_user_turn_and_its_answer_the_text_of_the_message(url):
    with ServerJudge(url, "m", system="be fair", seed=3, extra={"top_k": 5}) as judge:
        assert ask(judge, "abc", wish("yes"), temperature=0.5) == ["3", "yes"]
        seen = sorted(told(url)["seen"], key=lambda s: len(str(s)))
        assert seen[0]["path"] == "/v1/chat/completions"
        assert seen[0]["body"] == {
            "model": "m",
            "messages": [
                {"role": "system", "content": "be fair"},
                {"role": "user", "content": "abc"},
            ],
            "max_tokens": 7,
            "temperature": 0.5,
            "top_k": 5,
            "seed": 3,
        }


def test_the_limit_of_tokens_has_the_name_that_the_server_wants(url):
    with ServerJudge(url, "m", token_limit="max_completion_tokens") as judge:
        ask(judge, "abc")
    body = told(url)["seen"][0]["body"]
    assert body["max_completion_tokens"] == 7 and "max_tokens" not in body


def test_the_key_comes_from_the_environment_variable_that_is_named_and_no_other(url, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of somebody else")
    monkeypatch.setenv("MY_KEY", "mine")
    for given in ({"key_env": "MY_KEY"}, {}):
        with ServerJudge(url, "m", **given) as judge:
            ask(judge, "abc")
    assert [s["key"] for s in told(url)["seen"]] == ["mine", "none"]


@pytest.mark.parametrize("failure", [500, 503, 408, 409, "garbled", "other", "empty", "cut"])
def test_what_can_pass_is_tried_again(url, failure):
    with ServerJudge(url, "m", **PATIENT) as judge:
        assert ask(judge, wish("yes", fail=[failure, failure])) == ["yes"]
        assert judge.counts.requests == 3 and judge.counts.failed == 0
        assert judge.counts.error == ""


def test_an_answer_that_takes_too_long_is_asked_for_again(url):
    with ServerJudge(url, "m", timeout_s=SLOW_S / 6, **PATIENT) as judge:
        assert ask(judge, wish("yes", fail=["slow"])) == ["yes"]
        assert judge.counts.requests == 2


@pytest.mark.parametrize("how", ["later", "date"])
def test_retry_after_is_waited_for(url, how):
    with ServerJudge(url, "m", **PATIENT) as judge:
        assert ask(judge, wish("yes", fail=[how])) == ["yes"]
    first, second = (s["at"] for s in told(url)["seen"])
    assert second - first >= LATER_S  # a date has whole seconds, and stands for one more


def test_what_stays_without_an_answer_is_none_and_counted_and_the_others_are_there(url):
    with ServerJudge(url, "m", **PATIENT | {"retries": 1}) as judge:
        prompts = [wish("a"), wish("b", fail=[500] * 9), wish("c")]
        assert ask(judge, *prompts) == ["a", None, "c"]
        assert judge.counts.failed == 1 and judge.counts.requests == 4
        assert "status 500" in judge.counts.error and "no: 500" in judge.counts.error


def test_what_the_server_refuses_of_one_prompt_is_not_asked_again(url):
    with ServerJudge(url, "m", **PATIENT) as judge:
        assert ask(judge, wish("a", fail=[400])) == [None]
        assert judge.counts.requests == 1 and "status 400" in judge.counts.error


@pytest.mark.parametrize("status, key", [(401, "no key"), (403, "the key in $MY_KEY"), (404, "")])
def test_what_the_server_would_refuse_of_every_prompt_is_an_error(url, status, key, monkeypatch):
    if "$" in key:
        monkeypatch.setenv("MY_KEY", "secret")
    with ServerJudge(url, "wizard", key_env="MY_KEY", **PATIENT) as judge:
        with pytest.raises(ValueError, match=f"status {status}") as error:
            ask(judge, wish("a", fail=[status]))
        assert "'wizard'" in str(error.value) and key in str(error.value)
        assert "secret" not in str(error.value)
        assert judge.counts.requests == 1


def test_a_server_that_is_not_there_is_a_failure_not_an_exception():
    with ServerJudge("http://127.0.0.1:9/v1", "m", retries=1) as judge:
        assert ask(judge, "a") == [None]
        assert judge.counts.requests == 2 and "APIConnectionError" in judge.counts.error


def test_no_more_requests_than_allowed_are_under_way_at_once(url):
    prompts = [wish(str(i), takes=0.15) for i in range(8)]
    with ServerJudge(url, "m", concurrency=3) as judge:
        assert ask(judge, *prompts) == [str(i) for i in range(8)]
    assert 2 <= told(url)["most"] <= 3


def test_tokens_and_cost_are_counted(url):
    with ServerJudge(url, "m", prompt_price=1e4, completion_price=2e5) as judge:
        ask(judge, "abc", "abcde")
        metrics = judge.metrics()
    assert metrics["judge/prompt_tokens"] == 8 and metrics["judge/completion_tokens"] == 4
    assert metrics["judge/cost"] == pytest.approx(8 * 0.01 + 4 * 0.2)
    assert metrics["judge/requests"] == 2 and metrics["judge/failed"] == 0


# ---- the cache


def test_what_was_answered_once_is_read_from_disk(url, tmp_path):
    for _ in range(2):
        with ServerJudge(url, "m", cache=tmp_path / "c") as judge:
            assert ask(judge, "abc", "abcde") == ["3", "5"]
    assert judge.counts.requests == 0 and judge.counts.cached == 2
    assert judge.metrics()["judge/cached"] == 2
    with ServerJudge(url, "other", cache=tmp_path / "c") as judge:
        ask(judge, "abc")
        judge.complete(["abc"], max_tokens=8, temperature=0.0)
        assert judge.counts.requests == 2  # another model, another limit: another question
    assert len(list((tmp_path / "c").rglob("*.json"))) == 4


def test_failures_are_not_kept(url, tmp_path):
    prompt = wish("a", fail=[400])
    with ServerJudge(url, "m", cache=tmp_path) as judge:
        assert ask(judge, prompt) == [None]
        assert ask(judge, prompt) == ["a"]
        no_logps = wish("1")
        assert judge.option_logps([no_logps], ["1"]) == [None]
        assert len(list(tmp_path.rglob("*.json"))) == 1


def test_samples_of_one_prompt_are_asked_for_and_kept_apart_but_greedy_ones_are_one(url, tmp_path):
    with ServerJudge(url, "m", cache=tmp_path, seed=10) as judge:
        ask(judge, "abc", "abc", "abcde", "abc", temperature=1.0)
        assert judge.counts.requests == 4
        assert sorted(s["body"]["seed"] for s in told(url)["seen"]) == [10, 10, 11, 12]
        ask(judge, "abc", "abc", temperature=1.0)
        assert judge.counts.requests == 4 and judge.counts.cached == 2
        ask(judge, "abc", "abc", temperature=0.0)
        assert judge.counts.requests == 5
    with ServerJudge(url, "m", cache=tmp_path) as judge:  # without a seed the requests are equal
        kept = len(list(tmp_path.rglob("*.json")))
        ask(judge, "abc", "abc", temperature=1.0)
        assert judge.counts.requests == 2
        assert len(list(tmp_path.rglob("*.json"))) == kept + 2


def test_a_damaged_file_of_the_cache_is_no_answer_and_is_replaced(tmp_path):
    cache = DiskCache(tmp_path)
    question = {"prompt": "a", "numbers": [1, 2.5]}
    assert cache.get(question) is None
    cache.put(question, {"text": "b"})
    assert cache.get(dict(reversed(question.items()))) == {"text": "b"}
    (file,) = tmp_path.rglob("*.json")
    for damaged in ("", '{"question"', "[]", '{"question": {"prompt": "other"}, "answer": 1}'):
        file.write_text(damaged)
        assert cache.get(question) is None
    cache.put(question, 7)
    assert cache.get(question) == 7
    assert [p.suffix for p in tmp_path.rglob("*.*")] == [".json"]


def test_many_writers_and_readers_of_one_answer_never_see_half_of_it(tmp_path):
    answer, wrong = {"text": "x" * 50_000}, []

    def work():
        cache = DiskCache(tmp_path)
        for _ in range(20):
            cache.put("q", answer)
            wrong.extend(a for a in [cache.get("q")] if a != answer)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(list(tmp_path.rglob("*.*"))) == 1


def test_an_answer_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        DiskCache(tmp_path).put("q", object())
    assert not list(tmp_path.rglob("*.*"))


# ---- options


def test_options_are_read_from_the_alternatives_to_the_answers_token(url):
    listed = [["1", math.log(0.5), {"2": math.log(0.25), " 1": math.log(0.125)}]]
    with ServerJudge(url, "m", top_logprobs=3) as judge:
        (found,) = judge.option_logps([wish("1", steps=listed)], ["1", "2", " 1", " 2"])
        body = told(url)["seen"][0]["body"]
    assert [math.exp(x) for x in found] == pytest.approx([0.5, 0.25, 0.125, 0.125])
    assert body["logprobs"] is True and body["top_logprobs"] == 3
    assert body["temperature"] == 0 and body["max_tokens"] == 2


def test_a_server_without_log_probabilities_is_a_failure_with_a_reason(url):
    with ServerJudge(url, "m", **PATIENT) as judge:
        assert judge.option_logps([wish("1")], ["1", "2"]) == [None]
        assert judge.counts.requests == 1 and judge.counts.failed == 1
        assert judge.counts.error == "no log-probabilities with '1' for ['1', '2']"
        other = wish("I", steps=[["I", -0.1, {"We": -3.0}]])
        assert judge.option_logps([other], ["1", "2"]) == [None]
        assert judge.counts.failed == 2


def test_a_pair_is_labelled_and_a_response_rated_by_a_server(url, tmp_path):
    (tmp_path / "sample.txt").write_text("{response_1} {response_2}\n{prompt}")
    (tmp_path / "ending.txt").write_text(" ")
    (tmp_path / "rate.txt").write_text("{response}\n{prompt}")
    texts = {name: tmp_path / f"{name}.txt" for name in ("sample", "ending")}
    one = wish("1", steps=[["1", math.log(0.6), {"2": math.log(0.3)}]])
    three = wish("3", steps=[["3", math.log(0.5), {"5": math.log(0.5)}]])
    with ServerJudge(url, "m") as judge:
        labels = labeler(judge, **texts).label([one], ["good"], ["bad"])
        (rated,) = direct_score(
            judge, [three], ["r"], template=tmp_path / "rate.txt", low=1, high=5
        )
    # with nothing left over for " 1" and " 2" but 0.1 each, and the server says 1 in both orders
    assert labels.probs == [pytest.approx(0.5)]
    assert labels.position_bias == 1.0 and labels.failed == 0
    assert rated == pytest.approx(2 * (4 - 1) / 4 - 1, abs=1e-6)


def test_judgments_in_words_are_sampled_from_a_server(url, tmp_path):
    template = tmp_path / "additive.txt"
    template.write_text("{prompt}\n{response}")
    good, bad = wish("Fine.\nScore: 4", fail=[500]), wish("I will not.")
    with ServerJudge(url, "m", seed=0, **PATIENT) as judge:
        found = additive_ratings(judge, ["p", "p"], [good, bad], template=template, samples=2)
    assert found.scores == [4.0, None] and found.unparsable == 2


@pytest.mark.parametrize(
    "wrong",
    [{"concurrency": 0}, {"top_logprobs": 0}, {"timeout_s": 0}, {"retries": -1}],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServerJudge("http://127.0.0.1:9", "m", **wrong)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"pip install jalign\[judge\]"):
        ServerJudge("http://127.0.0.1:9", "m")


def test_judges_are_there_without_the_package():
    code = "import sys; sys.modules['openai'] = None; import jalign.rewards.server"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
