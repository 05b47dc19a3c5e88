"""Tasks of lm_eval on local data: scores equal a hand computation and lm_eval's own model."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lm_eval")

import jalign
from jalign import embedded
from jalign.eval.benchmarks.benchmarks import TaskScore, benchmark, changes, scores_of
from jalign.eval.benchmarks.lm import JalignLM
from jalign.eval.metrics import Estimate
from tests._cli import call
from tests.serve._server import serving

ASSETS = Path(__file__).parents[3] / "shared" / "assets" / "weights"
CHOICES = [
    ("Lily had a red ball. She liked to", ["play with it", "eat the moon", "sad the"], 0),
    ("The cat was sleepy. It went to", ["green", "bed", "loud of it"], 1),
    ("Tom saw a big dog. He was", ["table the", "scared", "of with"], 1),
    ("Once upon a time, there was a little", ["under quickly", "girl named Lily", "tax"], 0),
]
STORIES = ["Once upon a time there was a dog. The dog was happy.", "Tom saw a bird. " * 20]


class Asked:
    """A request as lm_eval makes it."""

    def __init__(self, *args):
        self.args = args


@pytest.fixture(scope="module")
def policy():
    return jalign.load("embedded")


@pytest.fixture(scope="module")
def lm(policy):
    return JalignLM(policy, batch_size=4, max_length=64)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with a task of multiple choice, of perplexity and of generation."""
    folder = tmp_path_factory.mktemp("tasks")

    def write(name, rows, **config):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
        task = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
        (folder / f"{name}.yaml").write_text(json.dumps(task | config))  # JSON is YAML

    choices = [{"question": q, "choices": c, "gold": gold} for q, c, gold in CHOICES]
    mean = {"aggregation": "mean", "higher_is_better": True}
    write(
        "story_choices", choices, output_type="multiple_choice", doc_to_text="{{question}}",
        doc_to_target="gold", doc_to_choice="choices", metric_list=[{"metric": "acc", **mean}],
    )  # fmt: skip
    bits = {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
    write(
        "story_text", [{"text": text} for text in STORIES], output_type="loglikelihood_rolling",
        doc_to_text="", doc_to_target="{{text}}", metric_list=[bits],
    )  # fmt: skip
    write(
        "story_next", [{"q": "Once upon a time"}], output_type="generate_until",
        doc_to_text="{{q}}", doc_to_target="?", metric_list=[{"metric": "exact_match", **mean}],
        generation_kwargs={"until": ["."], "max_gen_toks": 8},
    )  # fmt: skip
    return folder


def test_multiple_choice_equals_a_computation_by_hand(policy, tasks):
    (score,) = benchmark(policy, ["story_choices"], include_path=str(tasks), batch_size=4)
    right = []
    for question, choices, gold in CHOICES:
        rows = [{"prompt": question, "completion": f" {choice}"} for choice in choices]
        scored = jalign.score(policy, rows)
        # without the EOS that ends a response of training data
        last = scored.mask.sum(-1) - 1
        ends = np.take_along_axis(scored.token_logps, last[..., None], -1)[..., 0]
        right.append(float(np.argmax((scored.logps - ends)[:, 0]) == gold))
    assert 0 < sum(right) < 4  # the model is right and wrong
    assert (score.task, score.metric, score.values) == ("story_choices", "acc", tuple(right))
    assert score.estimate.value == sum(right) / 4


@pytest.mark.parametrize("model", ["embedded", "stories15M-v8192", "SmolLM2-135M-Instruct"])
def test_log_likelihoods_and_text_equal_those_of_lm_evals_own_model(model, policy, lm):
    pytest.importorskip("torch")
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    folder = embedded.path() if model == "embedded" else ASSETS / model
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    if model != "embedded":
        lm = JalignLM(jalign.load(str(folder)), batch_size=4, max_length=64)
    theirs = huggingface.HFLM(
        str(folder), device="cpu", dtype="float32", batch_size=4, max_length=64
    )
    pairs = [Asked(q, f" {choice}") for q, choices, _ in CHOICES for choice in choices]
    pairs += [Asked("", "Once upon"), Asked("Lily ", "was"), Asked(STORIES[1], " Tom saw")]
    pairs.append(Asked("Once upon a", " time"))
    expected = theirs.loglikelihood(pairs, disable_tqdm=True)
    ours = lm.loglikelihood(pairs, disable_tqdm=True)
    np.testing.assert_allclose([x for x, _ in ours], [x for x, _ in expected], atol=1e-3)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in expected]
    assert {greedy for _, greedy in ours} == {True, False}
    texts = [Asked(text) for text in STORIES]
    np.testing.assert_allclose(
        lm.loglikelihood_rolling(texts), theirs.loglikelihood_rolling(texts), rtol=1e-4
    )
    options = {"until": [".", "\n"], "max_gen_toks": 12}  # greedy, as nothing asks for sampling
    starts = [Asked("Once upon a time", options), Asked("Lily had a", options)]
    theirs = theirs.generate_until(starts, disable_tqdm=True)
    # which decodes a response alone, where Llama's tokenizer drops the first space
    assert [text.lstrip() for text in lm.generate_until(starts)] == [x.lstrip() for x in theirs]


def test_a_command_prints_the_changes_since_the_start(tasks, tmp_path, capsys):
    names = "story_choices,story_text,story_next"
    args = ["eval", "embedded", "--tasks", names, "--include_path", tasks, "--batch_size", 4]
    more = ["--against", "embedded", "--out", tmp_path / "out", "--max_length", 64, "--json"]
    code, output = call([*args, *more], capsys)
    assert code == 0, output.err
    scores = {(x["task"], x["metric"]): x for x in json.loads(output.out)}
    acc = scores["story_choices", "acc"]
    assert acc["change"] == {"value": 0.0, "low": 0.0, "high": 0.0} and acc["examples"] == 4
    assert acc["start"] == acc["value"]
    assert scores["story_text", "bits_per_byte"]["change"] is None  # no mean over examples
    assert scores["story_next", "exact_match"]["value"] == 0.0
    kept = {path.name for path in (tmp_path / "out").iterdir()}
    assert kept == {f"{a}.{b}" for a in ("scores", "start") for b in ("json", "samples.jsonl")}
    lines = (tmp_path / "out" / "scores.samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 7 and {row["task"] for row in rows} == set(names.split(","))


def test_a_change_has_the_interval_of_paired_examples():
    results = {
        "results": {"t": {"alias": "t", "acc,none": 0.5, "acc_stderr,none": 0.1, "f1,none": 0.2}},
        "samples": {"t": [{"filter": "none", "acc": x, "f1": 0.9} for x in (1.0, 0.0, 1.0, 0.0)]},
    }
    after = scores_of(results)
    assert [(x.metric, len(x.values)) for x in after] == [("acc", 4), ("f1", 0)]
    before = [
        TaskScore("t", "acc", Estimate(0.25, 0, 1), (0.0, 0.0, 1.0, 0.0)),
        TaskScore("t", "f1", Estimate(0.3, 0, 1), ()),
    ]
    acc, f1 = changes(after, before)
    assert (acc.start, acc.change.value) == (0.25, 0.25) and 0 <= acc.change.low <= 0.25
    assert (f1.start, f1.change) == (0.3, None)


def test_what_is_not_there_is_an_error_that_names_it(tasks, capsys, lm):
    code, output = call(["eval", "embedded", "--tasks", "nothing_like_it"], capsys)
    assert code != 0 and "lm_eval has no task 'nothing_like_it'" in output.err
    with pytest.raises(ValueError, match="no option 'num_beams'"):
        lm.generate_until([Asked("Once", {"until": ["."], "num_beams": 2})])
    with pytest.raises(ValueError, match=r"max_gen_toks must be in \[1, 63\]"):
        lm.generate_until([Asked("Once", {"max_gen_toks": 64})])
    far = {"task": "far", "dataset_path": "nobody/nothing", "output_type": "multiple_choice"}
    with pytest.raises(ValueError, match="a task on local files needs no hub"):
        benchmark(lm.policy, [far])
    with pytest.raises(ValueError, match="there is no folder"):
        benchmark("embedded", ["story_choices"], include_path="/nowhere")
    with pytest.raises(ValueError, match="no chat template"):
        lm.chat_template(True)


def test_lm_evals_clients_of_a_server_agree_with_the_model_in_this_process(lm):
    pytest.importorskip("tenacity")
    from lm_eval.models.api_models import JsonChatStr
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    pairs = [Asked(q, f" {choice}") for q, choices, _ in CHOICES for choice in choices[:2]]
    options = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    starts = [Asked("Once upon a time", options), Asked("Lily had a", options)]
    with serving("embedded", "--max_len", "128", "--rows", "4", "--template", "hh") as server:
        client = LocalCompletionsAPI(
            base_url=f"{server.url}/v1/completions", model="embedded", max_length=128,
            tokenizer=str(embedded.path()), add_bos_token=True,
        )  # fmt: skip
        theirs = client.loglikelihood(pairs, disable_tqdm=True)
        texts = client.generate_until(starts, disable_tqdm=True)
        chat = LocalChatCompletion(
            base_url=f"{server.url}/v1/chat/completions", model="embedded", max_length=128
        )
        message = json.dumps([{"role": "user", "content": "Tell me of a dog."}])
        (answer,) = chat.generate_until([Asked(JsonChatStr(message), options)], disable_tqdm=True)
        assert server.stop() == 0
    ours = lm.loglikelihood(pairs, disable_tqdm=True)
    np.testing.assert_allclose([x for x, _ in theirs], [x for x, _ in ours], atol=1e-3)
    assert [greedy for _, greedy in theirs] == [greedy for _, greedy in ours]
    assert texts == lm.generate_until(starts)
    assert answer and "." not in answer
