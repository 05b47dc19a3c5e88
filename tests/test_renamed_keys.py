"""Keys that were renamed: an old name is refused with the new one, and older runs stay readable."""

import hashlib
import json

import pytest

from jalign.algorithms import get
from jalign.config.read import ConfigError, read_config
from jalign.options import RunOptions, StopRules
from jalign.options.renamed import RENAMED
from jalign.run import folder as runs
from tests._cli import call
from tests.tiny_run import arguments, write_model, write_pairs

OLD = {
    "data.train_on": "all",
    "data.turns": "all",
    "optim.final": 0.5,
    "sample.sentiment": True,
    "stop.better": "higher",
    "stop.least_diversity": 0.5,
    "stop.least_gain": 0.1,
}


def test_every_new_key_is_a_key_and_no_old_one_is():
    sections = RunOptions(algorithm=get("dpo")).to_json()
    for old, (new, _) in RENAMED.items():
        (section, old_name), (_, new_name) = old.split("."), new.split(".")
        assert new_name in sections[section] and old_name not in sections[section], old


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_is_refused_with_its_new_name(old, tmp_path):
    message = f"option '{old}' is now '{RENAMED[old].key}'"
    section, name = old.split(".")
    file = tmp_path / "old.yaml"
    file.write_text(json.dumps({"algorithm": {"name": "sft"}, section: {name: OLD[old]}}))
    for args in ([str(file)], ["--algorithm", "sft", f"--{old}", str(OLD[old])]):
        with pytest.raises(ConfigError) as error:
            read_config(args)
        assert message in str(error.value)


def test_a_config_of_an_older_run_is_read_with_the_same_meaning():
    saved = RunOptions(algorithm=get("sft")).to_json()
    for old, (new, _) in RENAMED.items():
        section, name = old.split(".")
        del saved[section][new.split(".")[1]]
        saved[section][name] = OLD[old]
    saved["stop"]["metric"] = "mine"
    options = RunOptions.from_json(saved)
    assert (options.data.loss_on, options.data.loss_turns) == ("all", "all")
    assert options.optim.final_lr_fraction == 0.5 and options.sample.score == "sentiment"
    assert options.stop == StopRules(metric="mine", mode="max", min_diversity=0.5, min_delta=0.1)
    saved["sample"]["sentiment"] = False
    assert RunOptions.from_json(saved).sample.score is None


def test_a_run_with_the_old_names_in_its_folder_is_resumed_and_read(tmp_path, monkeypatch, capsys):
    """Its config.json and the identity in its checkpoint are as an older version wrote them."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setenv("COLUMNS", "300")
    write_model(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl.gz")
    mesh = {"mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 1}
    cosine = ["--optim.schedule", "cosine"]
    args = [*arguments(tmp_path, algorithm="sft", steps=1, **mesh), *cosine]
    assert call(["train", *args])[0] == 0
    run = tmp_path / "run"
    with_old_keys(run)
    assert runs.options_of(str(run)).optim.final_lr_fraction == 0.0
    code, said = call(["eval", run, "--batch_size", "4"], capsys)
    assert code == 0, said.err
    code, said = call(["train", *args, "--optim.final_lr_fraction", "0.5"], capsys)
    assert code == 2 and "optimizer.final_lr_fraction: the checkpoint has 0.0" in said.err
    code, said = call(["train", *args], capsys)
    assert code == 0 and "done already: 1 of 1 steps" in said.out, said.err


def with_old_keys(run):
    """Rewrites what a run of one step left, under the names of older versions."""
    config = json.loads((run / "config.json").read_text())
    for old, (new, _) in RENAMED.items():
        (section, old_name), (_, new_name) = old.split("."), new.split(".")
        value = config[section].pop(new_name)
        config[section][old_name] = False if old == "sample.sentiment" else value
    (run / "config.json").write_text(json.dumps(config))
    (file,) = (path for path in (run / "checkpoints" / "1" / "meta").iterdir() if path.is_file())
    meta = json.loads(file.read_text())
    optimizer = meta["identity"]["optimizer"]
    optimizer["final"] = optimizer.pop("final_lr_fraction")
    meta.pop("digest")
    text = json.dumps(meta, sort_keys=True)
    file.write_text(json.dumps(meta | {"digest": hashlib.sha256(text.encode()).hexdigest()}))
