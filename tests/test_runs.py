"""Whole runs through the command line's own functions, on 8 devices (2 x 2 x 2) unless said."""

import json

import jax
import numpy as np
import pytest
from rich.console import Console

from jalign import store
from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.resume import ResumeError
from jalign.run import folder as runs
from jalign.train.preemption import ExitCode
from tests._runs import leaves, rows, run
from tests._xla import QUICK
from tests.tiny_run import arguments


def test_a_run_cut_in_two_ends_bit_for_bit_where_the_whole_one_does(folder):
    assert run(folder, "whole") == ExitCode.OK
    assert run(folder, "cut", steps=2) == ExitCode.OK
    assert run(folder, "cut") == ExitCode.OK
    assert leaves(folder, "cut", 4) == leaves(folder, "whole", 4)
    whole, cut = rows(folder, "whole"), rows(folder, "cut")
    assert [r["step"] for r in cut] == [1, 2, 3, 4]
    for a, b in zip(whole, cut, strict=True):
        for name in (
            "loss",
            "grad_norm",
            "rewards/margins",
            "num_tokens",
            "learning_rate",
            "epoch",
        ):
            assert a[name] == b[name], name


def test_another_mesh_sees_the_same_data_and_comes_to_the_same_losses(folder):
    run(folder, "mesh222")
    run(folder, "mesh811", **{"mesh.data": 1, "mesh.fsdp": 8, "mesh.tensor": 1})
    for a, b in zip(rows(folder, "mesh222"), rows(folder, "mesh811"), strict=True):
        assert a["num_tokens"] == b["num_tokens"]
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)


@pytest.mark.parametrize("context", [4])
def test_streams_split_over_devices_come_to_the_same_losses(folder, context):
    sizes = {"mesh.data": 1, "mesh.fsdp": 8 // context, "mesh.tensor": 1, "mesh.context": context}
    run(folder, f"context{context}", **sizes)
    for a, b in zip(rows(folder, "mesh222"), rows(folder, f"context{context}"), strict=True):
        assert a["num_tokens"] == b["num_tokens"]
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
        np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=1e-3)


def test_a_run_goes_on_on_another_mesh(folder):
    run(folder, "moved", steps=2)
    assert run(folder, "moved", **{"mesh.data": 4, "mesh.fsdp": 1, "mesh.tensor": 2}) == ExitCode.OK
    for a, b in zip(rows(folder, "mesh222"), rows(folder, "moved"), strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)


def test_a_second_run_in_the_directory_of_one_under_way_is_refused(folder):
    with (
        store.lock_folder(folder / "taken"),
        pytest.raises(ValueError, match="another run is writing to"),
    ):
        run(folder, "taken", steps=1)
    assert not (folder / "taken" / "metrics.jsonl").exists()
    assert run(folder, "taken", steps=1) == ExitCode.OK


def test_the_configs_own_sharding_rules_are_followed(folder, monkeypatch):
    import jalign.run.session as module

    seen = {}
    monkeypatch.setattr(module, "fit", lambda step, state, *a, **k: seen.setdefault("s", state))
    rules = {".*mlp.*kernel": [None, None, "tensor"], ".*": []}
    run(folder, "rules", **{"mesh.rules": json.dumps(rules)})
    params = seen["s"].params
    spec = jax.sharding.PartitionSpec
    assert params["layers"]["mlp"]["up"]["kernel"].sharding.spec == spec(None, None, "tensor")
    assert params["layers"]["attn"]["q"]["kernel"].sharding.spec == spec()


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_padded_rows_give_the_losses_and_gradients_of_the_flat_layout(folder, algorithm):
    sgd = {"optim.name": "sgd", "optim.clip_norm": "null"}
    run(folder, f"flat-{algorithm}", algorithm, **sgd)
    run(folder, f"padded-{algorithm}", algorithm, **sgd, **{"data.layout": "padded"})
    flat, padded = rows(folder, f"flat-{algorithm}"), rows(folder, f"padded-{algorithm}")
    for a, b in zip(flat, padded, strict=True):
        for name in ("loss", "grad_norm", "num_tokens"):
            np.testing.assert_allclose(a[name], b[name], rtol=2e-4, err_msg=name)


def test_cached_reference_log_probs_change_nothing(folder):
    run(folder, "in-step")
    run(folder, "cached", reference="cached")
    for a, b in zip(rows(folder, "in-step"), rows(folder, "cached"), strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    for a, b in zip(rows(folder, "in-step", "eval"), rows(folder, "cached", "eval"), strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)


def test_dpo_starts_at_log_2_and_learns(folder):
    first, last = rows(folder, "whole", "eval")
    np.testing.assert_allclose(first["loss"], np.log(2), rtol=1e-5)
    assert first["rewards/accuracies"] == 0.5  # every implicit reward is zero
    assert last["loss"] < first["loss"] and last["rewards/accuracies"] > 0.9


def test_lora_trains_and_saves_adapters_only(folder):
    options = {"model.lora.rank": 2, "optim.learning_rate": 3e-2}
    assert run(folder, "lora", **options) == ExitCode.OK
    names = leaves(folder, "lora", 4)
    assert any("lora.a" in n for n in names)
    assert not any("kernel" in n or "embed" in n for n in names)
    first, last = rows(folder, "lora", "eval")
    np.testing.assert_allclose(first["loss"], np.log(2), rtol=1e-5)
    assert last["loss"] < first["loss"]


def test_a_reward_model_learns_to_tell_the_pairs_apart(folder):
    assert run(folder, "reward", "bradley_terry", steps=6) == ExitCode.OK
    first, last = rows(folder, "reward", "eval")
    assert last["rewards/accuracies"] > 0.9 > first["rewards/accuracies"]


def test_what_must_not_change_is_refused_by_name(folder):
    run(folder, "identity", steps=1)
    for options, fact in (
        ({"seed": 1}, "seed"),
        ({"batch_size": 4}, "batch_size"),
        ({"data.max_response_len": 5}, "data"),
        ({"algorithm.beta": 0.2}, r"algorithm\.beta"),
        ({"model.lora.rank": 2}, "adapters"),
    ):
        with pytest.raises(ResumeError, match=rf"\n  {fact}: the checkpoint has"):
            run(folder, "identity", **options)


def test_another_base_model_under_the_same_adapters_is_refused(folder, tmp_path):
    run(folder, "base", steps=1, **{"model.lora.rank": 2})
    from jalign.models import hub

    other = hub.load(folder / "model")
    other.embed.weight[...] = other.embed.weight[...] * 1.01
    hub.save(other, tmp_path / "other", tokenizer=str(folder / "model"))
    with pytest.raises(ResumeError, match="base_model: the checkpoint has"):
        run(folder, "base", **{"model.lora.rank": 2, "model.path": str(tmp_path / "other")})


def test_non_finite_steps_are_skipped_counted_and_then_end_the_run(folder):
    # at this learning rate the first step throws the weights so far away that every later one
    # overflows
    far = {"optim.learning_rate": 1e30, "optim.clip_norm": "null", "optim.name": "sgd"}
    assert run(folder, "diverged", steps=30, max_bad_steps=3, **far) == ExitCode.DIVERGED
    last = rows(folder, "diverged")[-1]
    assert last["step"] == 4 and last["skipped_in_a_row"] == 3 and last["grad_norm"] is None
    before, after = leaves(folder, "diverged", 2), leaves(folder, "diverged", 3)
    assert any(n.startswith("params") for n in before)
    for name, leaf in before.items():
        if name.startswith(("params", "opt_state")):  # nothing was learnt from a bad step
            assert leaf == after[name], name


def test_a_finished_run_is_read_back_and_exported_so_that_it_loads_again(folder):
    from jalign.cli.export import export
    from jalign.models import hub

    run(folder, "exported", steps=2)
    export([str(folder / "exported"), str(folder / "hf")], Console(quiet=True))
    config, _model, state, step = runs.newest(str(folder / "exported"))
    assert step == 2 and config.steps == 2
    loaded = hub.load(folder / "hf")
    trained = jax.tree.leaves(state.params)
    assert len(trained) > 5
    np.testing.assert_array_equal(
        loaded.embed.weight[...], jax.device_get(state.params["embed"]["weight"][...])
    )
    assert (folder / "hf" / "tokenizer.json").exists()


def test_adapters_are_exported_for_peft_and_taken_up_again_as_their_own_reference(folder):
    from jalign.cli.export import export

    run(folder, "to-peft", steps=2, **{"model.lora.rank": 2})
    export([str(folder / "to-peft"), str(folder / "adapter"), "--adapter"], Console(quiet=True))
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    run(folder, "from-peft", steps=1, **{"model.adapter": str(folder / "adapter")})
    first = rows(folder, "from-peft", "eval")[0]
    np.testing.assert_allclose(first["loss"], np.log(2), rtol=1e-5)  # trl 1193: not the bare base


def test_generations_are_recorded_before_and_after(folder):
    run(folder, "sampled", steps=1, **{"sample.prompts": 2, "sample.max_new_tokens": 4})
    texts = rows(folder, "sampled", "generations")
    assert [t["step"] for t in texts] == [0, 1] and len(texts[0]["rows"]) == 2


def test_only_the_newest_checkpoints_stay(folder):
    assert Checkpointer(folder / "whole" / "checkpoints").steps() == [3, 4]


def test_a_run_compiles_its_step_once(folder, caplog):
    with jax.log_compiles(True):
        run(folder, "compiled", steps=6)
    compiled = [r for r in caplog.messages if r.startswith("Finished XLA compilation of jit(step)")]
    assert len(compiled) == 1


def test_a_run_on_one_device_goes_on_exactly(folder, tmp_path):
    """In a process of its own that has one device."""
    import os
    import subprocess
    import sys

    env = os.environ | {"XLA_FLAGS": QUICK}
    one = {"mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1}

    def run(out, **options):
        command = [
            sys.executable,
            "-m",
            "jalign",
            "train",
            *arguments(folder, out, **one, **options),
        ]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("one")
    run("one-cut", steps=2)
    assert "going on after step 2 of 4" in run("one-cut")
    assert leaves(folder, "one-cut", 4) == leaves(folder, "one", 4)
