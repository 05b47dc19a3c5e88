"""An algorithm of one's own is trained, evaluated, sampled from and exported by its place, as a
reward function is; its code is part of what a run is.
"""

import os

import pytest

from jalign import naming
from jalign.algorithms import ALGORITHMS, get
from jalign.config.read import ConfigError, read_config
from jalign.core import Algorithm
from jalign.rewards.rules import RULES
from tests._cli import call
from tests.tiny_run import arguments, write_model, write_pairs

CODE = '''
import jax
from jalign.core import Algorithm
from jalign.formats import PAIRS


def plain_margin(chosen_logps, rejected_logps, *, gamma=0.7):
    """-log sigmoid(gamma * margin)."""
    rewards = {"chosen_rewards": gamma * chosen_logps, "rejected_rewards": gamma * rejected_logps}
    return -jax.nn.log_sigmoid(gamma * (chosen_logps - rejected_logps)), rewards


row = Algorithm("plain_margin", plain_margin, PAIRS)
'''


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymethods.py").write_text(CODE)
    return tmp_path


def test_a_row_is_named_by_its_file_or_its_module(own, monkeypatch):
    config = read_config(["--algorithm", "mymethods.py:row", "--algorithm.gamma", "0.5"])
    assert (config.algorithm_name, config.algorithm.hyper) == (
        f"{own}/mymethods.py:row",
        {"gamma": 0.5},
    )
    monkeypatch.chdir("/")  # where another command reads the run's config
    assert isinstance(get(config.algorithm_name), Algorithm)
    monkeypatch.syspath_prepend(str(own))
    assert get("mymethods:row").hyperparameters["gamma"] == 0.7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mymethods.py:rov", r"has no Algorithm 'rov'; did you mean 'row'\?"),
        ("mymethod.py:row", r"no file .*mymethod\.py; did you mean 'mymethods\.py'\?"),
        (
            "mymethods.py:plain_margin",
            r"an Algorithm, it is <function .* such as row = Algorithm\(",
        ),
        ("no_such_module:row", "no module 'no_such_module'"),
    ],
)
def test_a_name_that_names_no_row_is_refused_with_the_remedy(own, name, message):
    with pytest.raises(ConfigError, match=message):
        read_config(["--algorithm.name", name])


def test_a_run_of_it_is_evaluated_and_exported_from_anywhere_and_knows_its_code(
    own, capsys, monkeypatch
):
    options = {"mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 1, "steps": 1, "data.limit": 16}
    write_model(own / "model")
    write_pairs(own / "pairs.jsonl.gz")
    run = arguments(own, out="run", algorithm="mymethods.py:row", **options)
    code, said = call(["train", *run], capsys)
    assert code == 0 and "gamma 0.7" in said.out and "mymethods.py:row)" in said.out
    away = own / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    code, said = call(["eval", own / "run"], capsys)
    assert code == 0 and "rewards/accuracies" in said.out
    assert call(["export", own / "run", own / "hf"], capsys)[0] == 0
    monkeypatch.chdir(own)
    (own / "mymethods.py").write_text(CODE.replace("gamma * (chosen", "2 * gamma * (chosen"))
    os.utime(own / "mymethods.py", ns=(1, 1))
    code, said = call(["train", *run], capsys)
    assert code == 2 and "algorithm" in said.err


def test_code_is_known_by_its_text_and_not_by_its_place(own):
    first = naming.code_digest("mymethods.py:row", get("mymethods.py:row"))
    (own / "moved.py").write_text(CODE)
    assert naming.code_digest("moved.py:row", get("moved.py:row")) == first
    (own / "moved.py").write_text(CODE + "# more\n")
    assert naming.code_digest("moved.py:row", get("moved.py:row")) != first
    assert naming.code_digest("dpo", get("dpo")) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oaif", "here it is online_dpo"),
        ("Self-Rewarding", r"configs/pipelines/self_rewarding\.yaml"),
        ("constitutional ai", r"configs/pipelines/constitutional\.yaml"),
        ("RLAIF", "rlaif_distilled"),
        ("qlora", "--model.quant nf4"),
        ("best-of-n", "--best_of"),
        ("Iterative DPO", "did you mean 'iterative_dpo'"),
        ("kto_pair", "did you mean"),
        ("zzzz", "jalign algorithms lists them"),
    ],
)
def test_names_that_people_know_are_answered_with_where_that_is(name, message):
    with pytest.raises(ValueError, match=message) as error:
        get(name)
    assert len(str(error.value)) < 250


def test_what_is_said_of_known_names_names_what_exists():
    rows = {word.strip(",()") for text in naming.ELSEWHERE.values() for word in text.split()}
    assert not set(naming.ELSEWHERE) & set(ALGORITHMS)
    for word in rows:
        if "_" in word and word.isidentifier() and not word.isupper():
            assert word in ALGORITHMS or word in RULES, word
