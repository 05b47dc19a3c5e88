"""Judges as the reward of a run: everything that can be asked, of a server and in the process."""

import json
import math
import re
import threading

import jax
import numpy as np
import pytest

pytest.importorskip("openai")

from jalign.config.read import read_config
from jalign.rewards.rating import additive_ratings, direct_score
from jalign.rewards.server import ServerJudge
from jalign.rollout.types import Rollout
from jalign.run import data as build_data
from jalign.run.devices import mesh_of
from jalign.run.policy import tokenizer_of
from jalign.run.prompts import PromptTable
from jalign.run.rewards import compose
from tests.judge_server import prefers_longer, serve, served
from tests.rewards._server import Handler
from tests.tiny_run import arguments

ANSWERS = [["a", "a longer one", "two words"], ["fox", "the quick fox", "hello"]]


def by_length(prompt):
    """What a judge of the longest answers says, whatever it is asked for."""
    if "Response 1:" in prompt:
        return prefers_longer(prompt)
    length = len(re.search(r"esponse:\n(.*?)\n\n", prompt)[1].strip())
    token = str(min(length // 3, 5))
    return f"Fine.\nScore: {token}", [[token, 0.0, {"9": -30.0}]]


def judge(folder, ask, **judge):
    """What is said of `ANSWERS` to the first two prompts of preference pairs."""
    given = {f"reward.judge.{name}": x for name, x in {"ask": ask, **judge}.items()}
    options = {"reward.functions": "{}", "data.holdout": 0} | given
    config = read_config(arguments(folder, "judged", "spo", **options))
    mesh = mesh_of(config.mesh)
    with jax.set_mesh(mesh):
        tokenizer = tokenizer_of(config)
        data = build_data.load(config, tokenizer)
        table = PromptTable(data.examples, data.rows, tokenizer)
        tokens = [
            [tokenizer(f" {text}", add_special_tokens=False)["input_ids"] for text in of]
            for of in ANSWERS
        ]
        rollout = Rollout.from_lists([table[i].ids for i in range(2)], tokens)
        return compose(config.reward, config.algorithm, mesh)(table, [0, 1], rollout)


@pytest.mark.parametrize("ask", ["score", "points", "preference"])
def test_a_server_gives_every_response_what_it_is_asked_for(folder, ask):
    options = '{"low": 0, "high": 9}' if ask == "score" else "{}"
    with serve(by_length) as (url, asked):
        judged = judge(folder, ask, server=url, model="m", options=options)
    assert judged.failures == {} and len(asked) == {"score": 6, "points": 18, "preference": 12}[ask]
    lengths = np.array([[len(text) for text in of] for of in ANSWERS])
    if ask == "preference":
        assert judged.scores is None
        expected = 0.5 + 0.4 * np.sign(lengths[:, :, None] - lengths[:, None])
        np.testing.assert_allclose(judged.win_probs, expected, atol=1e-5)
    else:
        points = np.minimum(lengths // 3, 5)
        expected = points if ask == "points" else 2 * points / 9 - 1
        np.testing.assert_allclose(judged.scores, expected, atol=1e-5)
        assert judged.metrics["rewards/judge/failed"] == 0


@pytest.mark.parametrize("ask", ["score", "points", "rubric", "preference"])
def test_a_model_in_the_process_gives_every_response_an_answer_or_says_that_it_has_none(
    folder, ask
):
    options = {
        "points": '{"max_tokens": 4, "samples": 1}',
        "rubric": '{"questions": {"Is it good?": 1.0, "Is it long?": 2.0}}',
    }.get(ask, "{}")
    judged = judge(folder, ask, model=str(folder / "model"), options=options)
    if ask == "points":  # random weights write no "Score: N"
        assert np.isnan(judged.scores).all() and judged.metrics["rewards/judge/failed"] == 6
        assert "failed for all 6 responses: the judge gave no answer" in judged.failures["judge"]
    else:
        known = judged.win_probs if ask == "preference" else judged.scores
        assert np.isfinite(known).all() and judged.failures == {}


def yes_or_no(prompt):
    """Yes with a probability of 0.8 to the first question, of 0.1 to the second about "fox"."""
    response = re.search(r"esponse:\n(.*?)\n\n", prompt)[1]
    yes = 0.8 if "Is it polite?" in prompt else 0.1 if "fox" in response else 0.4
    return "yes", [["yes", math.log(yes), {"no": math.log(1 - yes)}]]


def test_a_rubric_is_the_weighted_mean_of_its_answers(folder):
    options = '{"questions": {"Is it polite?": 2.0, "Is it long?": -1.0}}'
    with serve(yes_or_no) as (url, asked):
        judged = judge(folder, "rubric", server=url, model="m", options=options)
    assert judged.failures == {} and len(asked) == 12
    fox, other = (2 * 0.8 - 0.1) / 3, (2 * 0.8 - 0.4) / 3
    np.testing.assert_allclose(judged.scores, [[other] * 3, [fox, fox, other]], atol=1e-5)


def test_a_cache_that_can_no_longer_be_written_costs_no_answer(tmp_path, caplog):
    with serve(lambda prompt: ("Score: 3", [])) as (url, asked):
        server = ServerJudge(url, "m", cache=tmp_path / "cache")
        (tmp_path / "cache").rmdir()
        (tmp_path / "cache").write_text("no folder any more")
        points = additive_ratings(server, ["p"] * 2, ["a", "b"], samples=2, temperature=1.0)
    assert points.scores == [3, 3] and len(asked) == 4
    assert caplog.text.count("kept no longer") == 1


class Odd(Handler):
    """Answers that are right but for one thing: the system message names it."""

    seen: list = []  # noqa: RUF012
    lock = threading.Lock()

    def answer(self, body, earlier):
        logp = body["messages"][0]["content"] == "log-probability"
        told = json.loads(body["messages"][0]["content"]) if not logp else None
        choice = {"index": 0, "finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": "Score: 3"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [self.token("3", 1e6 if logp else -0.1, {}, body)]}
        self.reply(200, {"choices": [choice], "usage": told})


@pytest.mark.parametrize(
    "usage",
    [
        "free",
        {"prompt_tokens": "many", "completion_tokens": 2},
        {"prompt_tokens": [1]},
        [1],
        None,
        {"prompt_tokens": None, "completion_tokens": True},
        {"prompt_tokens": 10.5, "completion_tokens": -0.0},
    ],
)
def test_what_a_server_says_of_its_tokens_costs_no_answer(usage):
    with served(Odd) as url, ServerJudge(url, "m", system=json.dumps(usage)) as server:
        assert additive_ratings(server, ["p"], ["a"], samples=1, temperature=0.0).scores == [3]
        assert server.counts.failed == 0 and server.counts.prompt_tokens in (0, 10)


def test_a_log_probability_that_cannot_be_is_one_failed_answer():
    patient = {"retries": 1}
    with (
        served(Odd) as url,
        ServerJudge(url, "m", system="log-probability", **patient) as server,
    ):
        assert direct_score(server, ["p"], ["a"], low=0, high=5) == [None]
        assert server.counts.failed == 1 and "log-probability of 1000000.0" in server.counts.error


def test_a_text_that_cannot_be_sent_is_one_failed_answer():
    with serve(lambda prompt: ("Score: 3", [])) as (url, _), ServerJudge(url, "m") as server:
        given = ["a", "half a pair \ud800"]
        rated = additive_ratings(server, ["p"] * 2, given, samples=1, temperature=0.0)
        assert rated.scores[0] == 3 and server.counts.failed == int(rated.scores[1] is None)


@pytest.mark.parametrize("ask", ["score", "points", "preference"])
def test_what_a_server_answers_instead_is_said(folder, ask, caplog):
    with serve(lambda prompt: ("I would rather not.", [])) as (url, _):
        judged = judge(folder, ask, server=url, model="m")
    all_ = "all 6 pairs" if ask == "preference" else "all 6 responses"
    why = "no answer that can be read" if ask == "points" else "no log-probabilities with 'I would"
    assert all_ in judged.failures["judge"] and why in judged.failures["judge"]
    assert judged.failures["judge"] in caplog.text
