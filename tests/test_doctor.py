"""What `jalign doctor` says of this machine."""

import json

import jax
import pytest
from rich.console import Console

from jalign.cli.doctor import doctor
from jalign.doctor import report


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
