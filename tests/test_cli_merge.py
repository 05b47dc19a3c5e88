"""`jalign merge`: two runs, a folder and an adapter of one base become one model, as by hand."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from jalign.cli.main import main
from jalign.data.chat import load_tokenizer
from jalign.models import hub
from jalign.models.adapters import lora
from jalign.parallel.paths import path_name
from jalign.run import folder as runs
from tests.tiny_run import arguments, write_model, write_pairs


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # leave the user's cache alone


def call(*args):
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in args])
    return int(exit_.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """PAFT in small: a sparse SFT run of the whole model, and a DPO run of adapters."""
    folder = tmp_path_factory.mktemp("merge")
    write_model(folder / "model")
    write_pairs(folder / "pairs.jsonl.gz")
    common = {"steps": 2, "mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 1}
    full = {"algorithm": "sft", "optim.l1": 0.5}
    adapted = {"algorithm": "dpo", "model.lora.rank": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        for name, options in (("sft", full), ("dpo", adapted)):
            assert call("train", *arguments(folder, out=name, **common | options)) == 0
        assert call("export", folder / "dpo", folder / "adapter", "--adapter") == 0
        assert call("export", folder / "sft", folder / "sft_model") == 0
    return folder


def params_of(model):
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model))
    return {path_name(path): np.asarray(x, np.float32) for path, x in leaves}


def params_of_run(folder):
    _, model, state, _ = runs.newest(str(folder))
    decoder = nnx.merge(*model.sampling_weights(state.params))
    return params_of(lora.merge(decoder) if lora.adapters(decoder) else decoder)


def trimmed(d, density):
    keep = np.argsort(-np.abs(d), axis=None, kind="stable")[: int(density * d.size)]
    out = np.zeros(d.size, d.dtype)
    out[keep] = d.ravel()[keep]
    return out.reshape(d.shape)


def ties_by_hand(deltas, density):
    deltas = [trimmed(d, density) for d in deltas]
    g = np.sign(sum(deltas))
    agree = [(np.sign(d) == g) & (d != 0) for d in deltas]
    total = sum(np.where(a, d, 0) for a, d in zip(agree, deltas, strict=True))
    return total / np.maximum(sum(agree), 1)


def test_ties_of_a_full_run_and_a_lora_run_is_the_merge_by_hand(folder, tmp_path, capsys):
    out = tmp_path / "out"
    models = (folder / "sft", folder / "dpo")
    args = ("--base", folder / "model", "--models", *models, "--method", "ties")
    assert call("merge", out, *args, "--density", 0.3, "--scale", 0.9) == 0
    said = capsys.readouterr().out

    base, got = params_of(hub.load(folder / "model")), params_of(hub.load(out))
    deltas = [{k: x - base[k] for k, x in params_of_run(m).items()} for m in models]
    assert got.keys() == base.keys()
    for name, start in base.items():
        pair = [d[name] for d in deltas]
        if name.startswith("layers."):  # a checkpoint's tensors, not the stacked ones
            layers = zip(*pair, strict=True)
            merged = np.stack([ties_by_hand(tensors, 0.3) for tensors in layers])
        else:
            merged = ties_by_hand(pair, 0.3)
        assert name == "norm.weight" or np.abs(merged).max() > 1e-4
        np.testing.assert_allclose(got[name], start + 0.9 * merged, atol=2e-7, err_msg=name)

    sizes = sum(x.size for x in base.values())
    for model, delta in zip(models, deltas, strict=True):
        sparsity = sum((np.abs(d) <= 1e-5).sum() for d in delta.values()) / sizes
        assert f"{model} (run, step 2): sparsity {sparsity:.4f} (|delta| <= 1e-05)" in said
    against = sum((deltas[0][k] * deltas[1][k] < 0).sum() for k in base) / sizes
    assert f"{models[0]} and {models[1]}: sign conflict {against:.4f}" in said
    assert load_tokenizer(out).encode("hello") == load_tokenizer(folder / "model").encode("hello")


def test_folders_and_adapters_are_read_like_the_runs_they_come_from(folder, tmp_path):
    args = ("--base", folder / "model", "--method", "dare_ties", "--drop", 0.5, "--seed", 3)
    assert call("merge", tmp_path / "a", *args, "--models", folder / "sft", folder / "dpo") == 0
    exported = (folder / "sft_model", folder / "adapter")
    assert call("merge", tmp_path / "b", *args, "--models", *exported) == 0
    a, b = (params_of(hub.load(tmp_path / x)) for x in "ab")
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-7, err_msg=name)


def test_one_model_with_weight_1_is_itself_and_with_0_the_base(folder, tmp_path):
    args = ("--base", folder / "model", "--models", folder / "dpo", "--method", "linear")
    for weight, want in (
        (1, params_of_run(folder / "dpo")),
        (0, params_of(hub.load(folder / "model"))),
    ):
        out = tmp_path / str(weight)
        assert call("merge", out, *args, "--weights", weight) == 0
        got = params_of(hub.load(out))
        for name, x in want.items():
            np.testing.assert_allclose(got[name], x, atol=1e-7, err_msg=name)


def test_one_model_is_taken_as_it_is_unless_another_method_is_asked_for(folder, tmp_path, capsys):
    args = ("--base", folder / "model", "--models", folder / "adapter")
    assert call("merge", tmp_path / "sum", *args) == 0
    said = capsys.readouterr().out
    assert "linear of 1" in said and "warning" not in said
    got, want = params_of(hub.load(tmp_path / "sum")), params_of_run(folder / "dpo")
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, atol=1e-7, err_msg=name)
    assert call("merge", tmp_path / "ties", *args, "--method", "ties") == 0
    assert "warning: ties keeps 0.2 of what" in capsys.readouterr().out
    assert call("merge", tmp_path / "sum", *args) == 3
    assert "holds a model already" in capsys.readouterr().err


def test_template_and_ends_come_from_the_models_where_they_agree(folder, tmp_path, capsys):
    for name, template in (("a", "{{ messages }}!"), ("b", "{{ messages }}!"), ("c", "{{ 1 }}")):
        shutil.copytree(folder / "sft_model", tmp_path / name)
        (tmp_path / name / "chat_template.jinja").write_text(template)
    args = ("--base", folder / "model", "--method", "linear", "--models")
    assert call("merge", tmp_path / "ab", *args, tmp_path / "a", tmp_path / "b") == 0
    said = capsys.readouterr().out
    assert f"chat template of {tmp_path / 'a'}: the base has others" in said
    assert "the weights add up to 2: what the models learned is added" in said
    assert load_tokenizer(tmp_path / "ab").chat_template == "{{ messages }}!"
    assert call("merge", tmp_path / "ac", *args, tmp_path / "a", tmp_path / "c") == 0
    assert "differ in their chat template: the base's are taken" in capsys.readouterr().out
    assert load_tokenizer(tmp_path / "ac").chat_template is None


def test_slerp_takes_a_dtype_and_two_models(folder, tmp_path, capsys):
    args = ("--base", folder / "model", "--method", "slerp", "--dtype", "bfloat16")
    models = (folder / "sft_model", folder / "adapter")
    assert call("merge", tmp_path / "x", *args, "--models", *models, "--t", 0) == 0
    assert json.loads((tmp_path / "x" / "config.json").read_text())["dtype"] == "bfloat16"
    got, want = (params_of(hub.load(f)) for f in (tmp_path / "x", models[0]))
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, rtol=2**-8, atol=1e-7)
    assert call("merge", tmp_path / "y", *args, "--models", models[0]) == 3
    assert "--models needs two, got 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, message",
    [
        ("--density 0.2 --method linear", "--density does not apply to linear, which reads --w"),
        (
            "--t 0.2 --method ties",
            "does not apply to ties, which reads --weights, --density, --scale, --trim",
        ),
        ("--density 0.5 --method dare_ties --drop 0.5", "--density does not apply to dare_ties"),
        ("--method dare", "dare needs --drop"),
        ("--weights 1 2", "1 models need as many weights, got [1.0, 2.0]"),
        ("--density 20 --method ties", "0 to 1, got 20"),
    ],
)
def test_an_option_that_cannot_apply_is_refused(folder, tmp_path, line, message, capsys):
    args = ("--base", folder / "model", "--models", folder / "sft_model")
    assert call("merge", tmp_path / "out", *args, *line.split()) == 3
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_refused_by_name(folder, tmp_path, capsys):
    config = json.loads((folder / "model" / "config.json").read_text())
    other = tmp_path / "other"
    config |= {"num_hidden_layers": 1, "intermediate_size": 24}
    hub.save(hub.init(config, key=jax.random.key(0)), other)
    args = ("--base", folder / "model", "--models", folder / "sft_model", other)
    assert call("merge", tmp_path / "out", *args) == 3
    said = capsys.readouterr().err
    assert f"{other} is another architecture than the base: " in said
    assert "depth is 1 instead of 2" in said and "mlp_width is 24 instead of 32" in said


def test_a_model_is_not_written_over(folder, tmp_path, capsys):
    shutil.copytree(folder / "sft_model", tmp_path / "m")
    assert (
        call("merge", tmp_path / "m", "--base", folder / "model", "--models", tmp_path / "m") == 3
    )
    assert "would be written over the model" in capsys.readouterr().err
