"""Who is refused by a server with keys and a short queue; the server runs in this process."""

import asyncio
import threading
import urllib.request
from dataclasses import replace

import jax
import pytest

from jalign.serve import server
from jalign.serve.encoding import Encoding
from jalign.serve.engine import Engine
from jalign.serve.schemas import Served
from jalign.serve.scorers import Scorers
from tests.serve._policy import LIMITS, embedded_policy

openai = pytest.importorskip("openai")
pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

ASK = {"model": "story", "prompt": "Lily", "max_tokens": 3}


@pytest.fixture(scope="module")
def engine():
    policy = embedded_policy()
    limits = replace(LIMITS, queue=2, max_new_tokens=60)
    with Engine({"story": policy}, limits) as engine:
        yield engine


@pytest.fixture(scope="module")
def url(engine):
    policy = engine.batch_of("story").policy
    served = Served(engine, {"story": Encoding(policy)})
    app = server.app_of(served, Scorers({}, policy.mesh), ["first-key", "second-key"])
    with server.bound("127.0.0.1", 0) as listener:
        running = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        address = "http://{}:{}".format(*listener.getsockname())
        thread = threading.Thread(target=lambda: asyncio.run(running.serve([listener])))
        thread.start()
        while not running.started:
            pass
        yield address
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(url):
    with client_of(url, "second-key") as client:
        yield client


def client_of(url, key):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def test_only_those_with_a_key_are_answered(url, client):
    assert [m.id for m in client.models.list()] == ["story"]
    with (
        client_of(url, "third-key") as stranger,
        pytest.raises(openai.AuthenticationError) as error,
    ):
        stranger.completions.create(**ASK)
    assert error.value.code == "invalid_api_key"
    with urllib.request.urlopen(f"{url}/health") as answer:  # balancers have no key
        assert answer.status == 200


def test_a_response_longer_than_the_server_allows_is_refused(client):
    with pytest.raises(openai.BadRequestError, match="at most 60"):
        client.completions.create(**ASK | {"max_tokens": 61})


def test_without_a_template_a_chat_is_refused(client):
    with pytest.raises(openai.BadRequestError, match="--template"):
        client.chat.completions.create(model="story", messages=[{"role": "user", "content": "a"}])


def test_without_a_reward_model_nothing_is_scored(client):
    with pytest.raises(openai.NotFoundError, match="start the server with a reward model"):
        client.post("/score", body={"prompt": "a", "response": "b"}, cast_to=object)


def test_a_full_queue_is_said_and_those_who_wait_are_answered(engine, client):
    go_on = threading.Event()
    engine.run(go_on.wait)  # the device is busy with something else
    answers = []

    def ask():
        answers.append(client.completions.create(**ASK).choices)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    while engine.waiting < 2:
        pass
    with pytest.raises(openai.RateLimitError, match="2 requests wait") as error:
        client.completions.create(**ASK)
    assert error.value.code == "rate_limit_exceeded"
    assert error.value.response.headers["retry-after"] == "1"
    go_on.set()
    for thread in threads:
        thread.join()
    assert [len(choices) for choices in answers] == [1, 1]


def test_more_responses_than_the_queue_holds_are_refused_for_good(client):
    with pytest.raises(openai.BadRequestError, match="3 responses at once, and 2 may wait"):
        client.completions.create(**ASK, n=3)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_model_is_a_server_error(client, monkeypatch, stream):
    def fail(*args, **options):
        raise jax.errors.JaxRuntimeError("out of memory")

    with monkeypatch.context() as patch, pytest.raises(openai.InternalServerError, match="memory"):
        patch.setattr("jalign.rollout.slots.admit", fail)
        client.completions.create(**ASK, stream=stream)
    assert client.completions.create(**ASK).choices


def test_an_address_that_is_taken_is_an_error(url):
    port = int(url.rpartition(":")[2])
    with pytest.raises(ValueError, match="another process listens there; choose another --port"):
        server.bound("127.0.0.1", port)


def test_a_file_without_keys_is_an_error(tmp_path):
    (tmp_path / "keys").write_text("\n \n")
    with pytest.raises(ValueError, match="has no key"):
        server.read_keys(str(tmp_path / "keys"))
    with pytest.raises(ValueError, match="no file"):
        server.read_keys(str(tmp_path / "none"))


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"starlette and uvicorn.*jalign\[serve\]"):
        server.check_installed()
