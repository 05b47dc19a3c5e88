"""A judge behind a server that somebody else wrote: `transformers serve` with the model in the
package, in a process of its own.
"""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import jax
import numpy as np
import pytest
from flax import nnx
from transformers import AutoTokenizer

from jalign import embedded
from jalign.models import hub
from jalign.rewards.server import ServerJudge
from jalign.rollout.sampler import Settings, sample
from jalign.rollout.text import continuation

NEEDED = ("openai", "torch", "fastapi", "uvicorn")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason=f"needs {', '.join(NEEDED)}",
)

TURNS = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} Once upon a time{% endif %}"
)
QUESTIONS = ["Tell me a story.", "Sing a song about a little dog."]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of the model in the package, with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(embedded.path(), folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": TURNS}))
    return folder


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = tmp_path_factory.mktemp("serve") / "log"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        while not answers(f"{address}/health"):
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.2)
        yield f"{address}/v1"
    finally:
        process.terminate()
        process.wait()


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def test_its_answers_are_those_of_the_same_model_here(url, model):
    with ServerJudge(url, str(model), concurrency=2, timeout_s=120) as judge:
        found = judge.complete(QUESTIONS, max_tokens=12, temperature=0.0)
        counts = judge.metrics()
    tokenizer = AutoTokenizer.from_pretrained(model)
    greedy, split, want = Settings(12, temperature=0.0), nnx.split(hub.load(str(model))), []
    for question in QUESTIONS:
        turns = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        found_here = sample(split, np.array([ids]), np.array([len(ids)]), jax.random.key(0), greedy)
        want.append(continuation(tokenizer, ids, np.asarray(found_here.tokens)[0].tolist()))
    assert found == want
    assert counts["judge/requests"] == 2 and counts["judge/failed"] == 0
    assert counts["judge/completion_tokens"] == 24


def test_a_server_that_tells_no_log_probabilities_is_a_failure_that_is_counted(url, model):
    with ServerJudge(url, str(model), timeout_s=120, retries=0) as judge:
        assert judge.option_logps(["Which is better?"], ["1", "2"]) == [None]
        assert judge.metrics()["judge/failed"] == 1
        assert "no log-probabilities" in judge.counts.error
