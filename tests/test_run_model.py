"""A run's folder as the model of the next one, and of everything else that takes a model."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from jalign.models import hub
from jalign.models.adapters import lora
from jalign.run import folder as runs
from jalign.run.policy import model_path
from tests._cli import call
from tests._runs import HI, ONE
from tests.tiny_run import arguments, write_model, write_pairs


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An SFT run of adapters, one step long."""
    folder = tmp_path_factory.mktemp("run_model")
    write_model(folder / "model")
    write_pairs(folder / "pairs.jsonl.gz")
    said = {"messages": [HI, {"role": "assistant", "content": "fox"}]}
    (folder / "chat.jsonl").write_text((json.dumps(said) + "\n") * 4)
    options = ONE | {"steps": 1, "model.lora.rank": 2, "data.template": "hh"}
    options |= {"data.train": folder / "chat.jsonl"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        assert call(["train", *arguments(folder, "first", "sft", **options)])[0] == 0
    return folder


def trained(run):
    """The parameters of its model, adapters merged."""
    found = runs.weights(str(run))
    decoder = lora.merge(nnx.merge(*found.model.sampling_weights(found.params)))
    return jax.tree.leaves(jax.device_get(nnx.state(decoder)))


def test_a_run_is_the_model_and_the_reference_of_the_next(folder, capsys):
    run = str(folder / "first")
    options = ONE | {"model.path": run, "model.reference": f"{run}@1", "steps": 1}
    code, said = call(["train", *arguments(folder, "second", "dpo", **options)], capsys)
    assert code == 0 and f"step 1 of {run} as a model: {run}/models/1" in said.err
    start = hub.load(model_path(run))
    for a, b in zip(trained(run), jax.tree.leaves(jax.device_get(nnx.state(start))), strict=True):
        np.testing.assert_array_equal(a, b)
    found = runs.weights(str(folder / "second"))
    assert "Assistant:" in found.model.tokenizer.chat_template  # the first run's
    code, said = call(["sample", folder / "second", "hello", "--max_new_tokens", 2], capsys)
    assert code == 0 and said.out.startswith("hello")


def test_a_step_that_a_run_does_not_have_is_refused_and_an_adapter_names_its_base(
    folder, tmp_path, capsys
):
    with pytest.raises(ValueError, match="no checkpoint of step 7; saved steps: 1"):
        model_path(f"{folder / 'first'}@7")
    assert call(["export", folder / "first", tmp_path / "adapter", "--adapter"], capsys)[0] == 0
    with pytest.raises(ValueError, match=r"name its base as the model, .*/model, and the adapter"):
        model_path(str(tmp_path / "adapter"))
    args = ["hello", "--max_new_tokens", 4]
    code, said = call(["sample", tmp_path / "adapter", *args], capsys)
    assert code == 0
    code, of_run = call(["sample", folder / "first", *args], capsys)
    assert code == 0 and of_run.out == said.out


def test_weights_are_read_without_knowing_the_algorithm(folder, tmp_path, capsys):
    run = tmp_path / "own"
    shutil.copytree(folder / "first", run)
    saved = json.loads((run / "config.json").read_text())
    saved["algorithm"] = {"name": "my_own", "gamma": 3.0}
    (run / "config.json").write_text(json.dumps(saved))
    assert call(["sample", run, "hello", "--max_new_tokens", 2])[0] == 0
    assert call(["export", run, tmp_path / "out"])[0] == 0
    facts = json.loads((tmp_path / "out" / "jalign.json").read_text())
    assert facts["algorithm"] == {"name": "my_own", "gamma": 3.0}
    code, said = call(["eval", run], capsys)  # that asks for the loss
    assert code != 0 and "no algorithm 'my_own'" in said.err
