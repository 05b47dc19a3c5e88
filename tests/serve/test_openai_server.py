"""A real server process, asked by the real openai client."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest

import jalign
from jalign.data.templates import TEMPLATES
from jalign.models.adapters.peft import load_adapter
from jalign.run import folder as runs
from tests.serve._policy import embedded_policy, write_adapter, write_reward_model
from tests.serve._server import serving

openai = pytest.importorskip("openai")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

TEXTS = ["Once upon a time there was a", "Lily had", "The dog and the cat", "One day Tom"]
CHAT = [{"role": "user", "content": "Tell me of a dog."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab", 1):
        write_adapter(folder / name, seed)
    write_reward_model(folder / "reward")
    tools = "{% if tools %}Tools: {{ tools | map(attribute='function.name') | join }}{% endif %}"
    (folder / "tools.jinja").write_text("{{ bos_token }}" + tools + TEMPLATES["hh"])
    return folder


@pytest.fixture(scope="module")
def base():
    return embedded_policy()


@pytest.fixture(scope="module")
def policy(base, folder):
    return replace(base, decoder=load_adapter(base.decoder, folder / "a"))


@pytest.fixture(scope="module")
def server(folder):
    models = [f"{name}={folder / name}" for name in ("b", "reward")]
    options = ["--rows", "4", "--max_len", "64", "--chunk", "4"]
    options += ["--template", str(folder / "tools.jinja"), "--name", "a"]
    with serving(str(folder / "a"), "--models", *models, *options) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(server, path, body):
    """Status and JSON of a request that no client would send."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "text/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def health(server):
    with urllib.request.urlopen(f"{server.url}/health") as answer:
        return json.load(answer)


def test_it_says_what_it_does_until_it_serves(server):
    assert server.lines[0].startswith("loading /")
    assert any("compiling 1/" in line for line in server.lines)
    assert server.lines[-1] == f"serving at {server.url}/v1"
    assert server.url.startswith("http://127.0.0.1:"), "nobody else is let in"


def test_models_are_listed_by_name(client):
    models = {m.id: m for m in client.models.list()}
    assert list(models) == ["a", "b", "reward"]
    assert models["a"].max_model_len == 64


def test_completions_of_texts_are_those_of_sample(client, policy):
    want = policy.generate(TEXTS, max_new_tokens=40)
    got = client.completions.create(model="a", prompt=TEXTS, max_tokens=40, temperature=0)
    assert [c.text for c in got.choices] == want
    assert [c.index for c in got.choices] == [0, 1, 2, 3]
    assert got.usage.completion_tokens == 160
    assert got.usage.prompt_tokens == sum(len(policy.tokenizer(t)["input_ids"]) for t in TEXTS)


def test_token_ids_are_taken_and_returned(client, policy):
    ids = policy.tokenizer(TEXTS[0])["input_ids"]
    ask = {"model": "a", "max_tokens": 9, "temperature": 0}
    text = client.completions.create(prompt=TEXTS[0], **ask).choices[0].text
    options = {"return_token_ids": True}
    (choice,) = client.completions.create(prompt=ids, **ask, extra_body=options).choices
    assert choice.text == text
    assert choice.prompt_token_ids == ids
    assert policy.tokenizer.decode([*ids, *choice.token_ids], skip_special_tokens=True) == (
        TEXTS[0] + text
    )


def test_echo_reports_the_log_probs_of_the_scorer(client, policy):
    """The body that lm_eval's local-completions sends."""
    texts = ["The cat sat.", "Lily had a red ball."]
    prompts = [policy.tokenizer(text)["input_ids"] for text in texts]
    scored = jalign.score(policy, [{"prompt": "", "completion": text} for text in texts])
    body = {"max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234, "temperature": 0}
    choices = client.completions.create(model="a", prompt=prompts, **body).choices
    for i, (ids, choice) in enumerate(zip(prompts, choices, strict=True)):
        logps = choice.logprobs.token_logprobs
        assert len(logps) == len(ids) + 1 and logps[0] is None
        want = scored.token_logps[i, 0][scored.mask[i, 0]][: len(ids) - 1]
        np.testing.assert_allclose(logps[1:-1], want, atol=1e-5)
        for token, logp, top in zip(
            choice.logprobs.tokens[1:], logps[1:], choice.logprobs.top_logprobs[1:], strict=True
        ):
            assert top[token] == logp <= max(top.values())
        assert choice.text.startswith(texts[i])


def test_offsets_point_into_the_text(client):
    (choice,) = client.completions.create(
        model="a", prompt=TEXTS[0], echo=True, logprobs=0, max_tokens=6, seed=1
    ).choices
    offsets, tokens = choice.logprobs.text_offset, choice.logprobs.tokens
    for start, token in zip(offsets[1:], tokens[1:], strict=True):
        assert choice.text[start:].startswith(token)


def test_a_prompt_is_scored_alone(client):
    (choice,) = client.completions.create(
        model="a", prompt=TEXTS[0], echo=True, logprobs=1, max_tokens=0
    ).choices
    assert choice.text == TEXTS[0]
    assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs)


def test_a_chat_goes_through_the_template(client):
    ask = {"max_tokens": 16, "temperature": 0}
    chat = client.chat.completions.create(model="a", messages=CHAT, **ask)
    prompt = "\n\nHuman: Tell me of a dog.\n\nAssistant:"
    plain = client.completions.create(model="a", prompt=prompt, **ask)
    assert chat.choices[0].message.content == plain.choices[0].text
    assert chat.choices[0].message.role == "assistant"
    assert chat.usage.prompt_tokens == plain.usage.prompt_tokens


def test_tools_go_to_the_template_unless_none_is_to_be_used(server, policy):
    body = {"messages": CHAT, "tools": [{"type": "function", "function": {"name": "weather"}}]}
    text = policy.tokenizer.decode(post(server, "/tokenize", body)[1]["tokens"])
    assert text.startswith("<bos>Tools: weather")
    body["tool_choice"] = "none"
    assert "weather" not in policy.tokenizer.decode(post(server, "/tokenize", body)[1]["tokens"])


def test_a_chat_reports_log_probs_with_alternatives(client):
    (choice,) = client.chat.completions.create(
        model="a", messages=CHAT, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    ).choices
    assert "".join(t.token for t in choice.logprobs.content) == choice.message.content
    for token in choice.logprobs.content:
        assert bytes(token.bytes).decode() == token.token
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == token.logprob


def test_a_stream_adds_up_to_the_answer(client):
    ask = {"model": "a", "messages": CHAT, "max_tokens": 24, "seed": 5, "n": 2}
    options = {"stream_options": {"include_usage": True}, "logprobs": True}
    *chunks, last = client.chat.completions.create(stream=True, **ask, **options)
    want = client.chat.completions.create(**ask)
    texts, ends, tokens = ["", ""], {}, [0, 0]
    for chunk in chunks:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        tokens[choice.index] += len(choice.logprobs.content) if choice.logprobs else 0
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert texts == [c.message.content for c in want.choices]
    assert texts[0] != texts[1], "samples of one seed differ"
    assert ends == {c.index: c.finish_reason for c in want.choices}
    assert last.usage == want.usage and sum(tokens) == last.usage.completion_tokens
    assert len(chunks) > 8


def test_a_stream_of_completions_adds_up_too(client):
    ask = {"model": "a", "prompt": TEXTS[1], "max_tokens": 20, "seed": 3, "stop": [" She"]}
    chunks = list(client.completions.create(stream=True, echo=True, **ask))
    (want,) = client.completions.create(echo=True, **ask).choices
    assert "".join(c.choices[0].text for c in chunks) == want.text
    assert chunks[-1].choices[0].finish_reason == want.finish_reason
    assert " She" not in want.text


def test_adapters_of_one_base_answer_by_name(client, base, folder):
    ids = base.tokenizer(TEXTS[0])["input_ids"]
    body = {"prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 0, "echo": True}
    for name in "ab":
        adapted = replace(base, decoder=load_adapter(base.decoder, folder / name))
        scored = jalign.score(adapted, [{"prompt": "", "completion": TEXTS[0]}])
        (choice,) = client.completions.create(model=name, **body).choices
        want = scored.token_logps[0, 0, : len(ids) - 1]
        np.testing.assert_allclose(choice.logprobs.token_logprobs[1:-1], want, atol=1e-5)
    bodies = [body | {"model": name, "max_tokens": 12} for name in "ab"]
    assert len({client.completions.create(**b).choices[0].text for b in bodies}) == 2


def test_a_reward_model_scores_and_compares(server, folder):
    reward = runs.reward_model(str(folder / "reward"))
    texts = ["was a dog.", "ran away!"]
    want = reward(["There", "Then she"], texts)
    body = {"model": "reward", "prompt": ["There", "Then she"], "response": texts}
    status, answer = post(server, "/v1/score", body)
    assert status == 200
    got = [entry["score"] for entry in answer["data"]]
    np.testing.assert_allclose(got, want, atol=1e-5)
    first, second = reward(["There"] * 2, texts)
    body = {"prompt": "There", "responses": texts}
    (entry,) = post(server, "/v1/score", body)[1]["data"]
    assert entry["probability"] == pytest.approx(1 / (1 + np.exp(second - first)), abs=1e-5)
    body = {"prompt": [CHAT], "response": [" "]}
    assert post(server, "/v1/score", body | {"prompt": "a"})[1]["data"][0]["score"] is None


def test_texts_and_chats_are_tokenized(server, policy):
    ids = policy.tokenizer(TEXTS[0])["input_ids"]
    assert post(server, "/tokenize", {"prompt": TEXTS[0]}) == (
        200,
        {"tokens": ids, "count": len(ids), "max_model_len": 64},
    )
    body = {"prompt": TEXTS[0], "add_special_tokens": False}
    assert post(server, "/tokenize", body)[1]["tokens"] == ids[1:]
    chat = post(server, "/tokenize", {"messages": CHAT})[1]["tokens"]
    assert "Human: Tell me of a dog." in policy.tokenizer.decode(chat)


@pytest.mark.parametrize(
    "change, status, code, message",
    [
        ({"model": "A"}, 404, "model_not_found", "no model 'A'; there is: a, b"),
        ({"prompt": None}, 400, None, "prompt is missing"),
        ({"prompt": []}, 400, None, "text or token ids"),
        ({"prompt": [[1, "a"]]}, 400, None, "text or token ids"),
        ({"prompt": [1, 99999]}, 400, None, "tokens 0 to 2047"),
        ({"prompt": "a " * 200}, 400, "context_length_exceeded", "64 tokens; the prompt has"),
        ({"max_tokens": 63}, 400, "context_length_exceeded", "max_tokens is 63"),
        ({"max_tokens": "9"}, 400, None, "max_tokens must be an integer, got '9'"),
        ({"max_tokens": 0}, 400, None, "with echo only"),
        ({"temperature": -1}, 400, None, r"temperature must be in [0, 100], got -1"),
        ({"top_p": 0}, 400, None, "top_p"),
        ({"n": 0}, 400, None, "n must be in [1, 128]"),
        ({"logprobs": True}, 400, None, "logprobs must be an integer"),
        ({"logprobs": 21}, 400, None, "[0, 20]"),
        ({"stop": [""]}, 400, None, "stop must be"),
        ({"logit_bias": {"5": 1}}, 400, None, "logit_bias is not supported"),
        ({"presence_penalty": 0.5}, 400, None, "presence_penalty is not supported"),
        ({"best_of": 3}, 400, None, "best_of"),
        ({"temprature": 1}, 400, "unknown_parameter", "did you mean 'temperature'"),
    ],
)
def test_a_bad_field_is_named(server, change, status, code, message):
    body = {"model": "a", "prompt": "a", "max_tokens": 2} | change
    got, answer = post(server, "/v1/completions", body)
    assert (got, answer["error"]["code"]) == (status, code)
    assert message in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "path, body, status, message",
    [
        ("/v1/completions", b"{", 400, "not JSON"),
        ("/v1/completions", b"[1]", 400, "must be a JSON object"),
        ("/v1/complete", b"{}", 404, "Not Found"),
        ("/v1/models", b"{}", 405, "Method Not Allowed"),
        ("/v1/chat/completions", {"messages": []}, 400, "at least one message"),
        ("/v1/chat/completions", {"messages": [{"role": "x"}]}, 400, "unknown role"),
        ("/v1/chat/completions", {"messages": CHAT, "top_logprobs": 2}, 400, "needs logprobs"),
        (
            "/v1/chat/completions",
            {"messages": CHAT, "tool_choice": "required"},
            400,
            "auto or none",
        ),
        ("/v1/chat/completions", {"messages": CHAT, "tools": [3]}, 400, "tool must be an object"),
        ("/v1/score", {"model": "a", "prompt": "a", "response": "b"}, 404, "there is: reward"),
        ("/v1/score", {"prompt": "a"}, 400, "give response"),
        ("/v1/score", {"prompt": "a", "response": ["b", "c"]}, 400, "1 prompts and 2"),
        ("/v1/score", {"prompt": "a", "responses": ["b"]}, 400, "two texts for each prompt"),
    ],
)
def test_a_bad_request_gets_an_error_object(server, path, body, status, message):
    got, answer = post(server, path, body)
    assert got == status
    assert message in answer["error"]["message"]


def test_fields_that_change_nothing_are_taken(client):
    client.completions.create(
        model="a", prompt="a", max_tokens=1, user="me", presence_penalty=0, logit_bias={}
    )
    client.chat.completions.create(
        model="a", messages=CHAT, max_tokens=1, response_format={"type": "text"}, store=False
    )


def load(number):
    """One of 20 bodies: lengths, settings and models differ."""
    return {
        "model": ("a", "b")[number % 2],
        "prompt": TEXTS[number % 4] * (1 + number % 3),
        "max_tokens": 2 + 3 * (number % 7),
        "temperature": (0, 0.8, 1.2)[number // 2 % 3],
        "top_p": (1, 0.9)[number % 2],
        "seed": number,
        "n": 1 + number % 2,
        "stop": ([], ["."])[number // 3 % 2],
        "logprobs": (None, 0, 2)[number % 3],
    }


def test_under_load_nothing_is_lost_and_nothing_mixed_up(server, client):
    """200 clients at once, of which every fifth vanishes, streaming or waiting."""
    alone = [client.completions.create(**load(i)).choices for i in range(20)]

    async def ask(client, i):
        body = load(i % 20)
        if i % 5 != 4:
            return i, (await client.completions.create(**body)).choices
        long = {"model": body["model"], "prompt": body["prompt"], "max_tokens": 30}
        if i % 2:
            async for _ in await client.completions.create(
                **long, stream=True, extra_body={"ignore_eos": True}
            ):
                return i, None
        waiting = asyncio.ensure_future(client.completions.create(**long))
        await asyncio.sleep(0.01 * (i % 7))
        waiting.cancel()
        return i, None

    async def everybody():
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300
        ) as client:
            return await asyncio.gather(*(ask(client, i) for i in range(200)))

    answers = asyncio.run(everybody())
    assert len(answers) == 200
    for i, choices in answers:
        assert choices is None if i % 5 == 4 else choices == alone[i % 20], load(i % 20)
    for _ in range(600):  # those who left have no rows any more
        if health(server) == {"status": "ok", "running": 0, "waiting": 0}:
            break
        time.sleep(0.05)
    assert health(server)["running"] == health(server)["waiting"] == 0


def test_sigterm_answers_what_is_under_way_and_exits_0(server, client):
    """20 responses on 4 rows: most of them wait when the signal comes."""
    stream = client.completions.create(
        model="a", prompt="Lily", n=20, max_tokens=50, stream=True,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    next(stream)
    codes = []
    stopping = threading.Thread(target=lambda: codes.append(server.stop()))
    stopping.start()
    ends = [c.choices[0].index for c in stream if c.choices[0].finish_reason == "length"]
    stopping.join()
    assert sorted(ends) == list(range(20))
    assert codes == [0]
    assert server.lines[-1] == "all requests are answered"
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
