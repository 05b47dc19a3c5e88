"""What `jalign doctor` says of this machine."""

import json

import jax
import pytest
from rich.console import Console

from jalign.cli.doctor import doctor
from jalign.doctor import report
from jalign.models.families.support import check_support


def test_it_names_devices_kernels_versions_and_what_is_missing(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    monkeypatch.setenv("JALIGN_JUDGE_API_KEY", "secret")
    text = "\n".join(report())
    assert f"{jax.device_count()} x cpu (cpu)" in text
    assert "heads of 128: blocked: causal blocks that skip what is masked" in text
    assert f"jax {jax.__version__}," in text
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.9" in text
    assert "jax-cuda13-plugin" in text
    assert "secret" not in text and "JALIGN_JUDGE_API_KEY=(set)" in text


def test_it_takes_one_argument_for_its_facts_as_json(capsys):
    doctor(["--json"], Console())
    facts = json.loads(capsys.readouterr().out)
    assert {"devices", "host", "versions"} <= set(facts) and "cores" in facts["host"][0]
    with pytest.raises(ValueError, match="no option 'all'"):
        doctor(["--all"], Console())


@pytest.fixture
def said(tmp_path, capsys):
    """What the command prints of a config.json, and its exit code."""

    def run(config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        code = doctor(["--model", str(tmp_path), "--json"], Console())
        return json.loads(capsys.readouterr().out), code

    return run


PHI3 = {
    "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_size": 32, "vocab_size": 80,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "sliding_window": 8,
    "num_key_value_heads": 2,
}  # fmt: skip


def test_of_a_model_it_says_what_would_be_loaded(said):
    facts, code = said(PHI3)
    assert code == 0 and facts["loads"] == ["yes"]
    assert facts["family"] == ["phi3 (Phi3ForCausalLM)"]
    assert "2 layers of width 32, 4 heads of 8" in facts["sizes"][0]
    assert "window of 8" in facts["attention"][0]


def test_everything_that_keeps_a_model_from_loading_is_named_at_once(said):
    quantized = {"quant_method": "gptq", "bits": 4}
    rotary = {"rope_type": "mrope"}
    change = {
        "quantization_config": quantized,
        "rope_scaling": rotary,
        "auto_map": {"AutoModel": "a.B"},
    }
    facts, code = said(PHI3 | change | {"architectures": ["Phi5ForCausalLM"]})
    assert code == 1 and "loads" not in facts
    code, rope, architecture = facts["refused"]
    assert "its own Python code" in code
    assert "'mrope' is not supported; there is: default, linear" in rope
    assert "'Phi5ForCausalLM' is unknown; did you mean 'Phi3ForCausalLM'?" in architecture
    refused = said(PHI3 | {"quantization_config": quantized})[0]["refused"]
    assert len(refused) == 1 and "by GPTQ" in refused[0] and "model.quant: nf4" in refused[0]
    with pytest.raises(ValueError, match=r"by GPTQ.*; rotary scaling 'mrope'"):
        check_support(PHI3 | {"quantization_config": quantized, "rope_scaling": rotary})


def test_code_that_became_a_class_of_transformers_is_not_needed(said):
    own = {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "a.Phi3ForCausalLM",
    }
    facts, code = said(PHI3 | {"auto_map": own})
    assert code == 0 and "auto_map) is not run" in facts["note"][0]


def test_parts_that_see_images_are_named(said):
    text = PHI3 | {"model_type": "mistral", "architectures": None}
    facts, code = said({"model_type": "llava", "text_config": text, "vision_config": {}})
    assert code == 0 and facts["note"] == ["read as a model of text (mistral); left out: vision"]
    facts, code = said({"model_type": "llava", "text_config": text | {"model_type": "mistrall"}})
    assert (
        code == 1
        and "text model 'mistrall' is unknown; did you mean 'mistral" in facts["refused"][0]
    )
