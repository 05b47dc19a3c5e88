"""Every example runs as a script, in as few steps and of as little data as it can, and is short."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jalign

FOLDER = Path(jalign.__file__).parent / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))


SHORT = {"steps": 1, "limit": 32, "eval_limit": 8}


def both_roles_learn(run):
    """A factor of their adapters begins at 0."""
    for role in ("policy", "critic"):
        leaves = jax.tree.leaves_with_path(run.session.state.params[role])
        factors = [x for path, x in leaves if "['lora']['b']" in jax.tree_util.keystr(path)]
        assert factors and all(np.asarray(x).any() for x in factors), role


CHECKS = {"04_ppo_critic": both_roles_learn}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(path, tmp_path, monkeypatch, capsys, quick):
    monkeypatch.chdir(tmp_path)
    code = path.read_text()
    for name, value in SHORT.items():
        code = re.sub(rf"\b{name}=\d+", f"{name}={value}", code)
    names = {"__name__": "__main__", "__file__": str(path)}
    exec(compile(code, path.name, "exec"), names)
    assert capsys.readouterr().out, "an example shows something"
    if check := CHECKS.get(path.stem):
        check(names["run"])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_is_short_and_opens_as_a_notebook(path):
    lines = path.read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 60
    assert sum(line.startswith("# %%") for line in lines) >= 2


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_kept_without_outputs(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of the kernel's own event loop
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    kernel = {"kernel_name": "python3", "resources": {"metadata": {"path": str(tmp_path)}}}
    done = nbclient.NotebookClient(notebook, timeout=300, **kernel).execute()
    texts = [o.get("text", "") for cell in done.cells for o in cell.get("outputs", [])]
    assert "0.6931" in "".join(texts)
