"""An algorithm of one's own is trained, evaluated, sampled from and exported by its place, as a
reward function is; its code is part of what a run is.
"""

import os
from dataclasses import replace

import pytest

from jalign.algorithms import ALGORITHMS, custom, get, name_of
from jalign.algorithms.elsewhere import ELSEWHERE
from jalign.config.read import ConfigError, read_config
from jalign.core import Algorithm, mean_over_examples, mean_over_tokens
from jalign.formats import PAIRS, SUPERVISED
from jalign.rewards.rules import RULES
from tests._cli import call
from tests.tiny_run import arguments, write_model, write_pairs

CODE = '''
import jax
from jalign.core import Algorithm, mean_over_examples, mean_over_tokens
from jalign.formats import PAIRS, SUPERVISED
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
        ("mymethods.py:rov", r"has no Algorithm or loss function 'rov'; did you mean 'row'\?"),
        ("mymethod.py:row", r"no file .*mymethod\.py; did you mean 'mymethods\.py'\?"),
        ("mymethods.py:PAIRS", "must be an Algorithm or loss function, it is Format"),
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


LOSS = '''
import jax


def margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, *, gamma=0.7):
    """-log sigmoid(gamma * difference of the log-ratios)."""
    chosen, rejected = chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps
    return -jax.nn.log_sigmoid(gamma * (chosen - rejected)), {"chosen_rewards": chosen,
        "rejected_rewards": rejected}
'''


def test_a_file_with_a_loss_alone_is_trained_and_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loss.py").write_text(LOSS)
    write_model(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl.gz")
    options = {"mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 1, "steps": 1, "data.limit": 16}
    run = arguments(tmp_path, out="run", algorithm="loss.py:margin", **options)
    code, said = call(["train", *run, "--algorithm.gamma", "0.5"], capsys)
    assert code == 0 and "gamma 0.5" in said.out
    code, said = call(["eval", tmp_path / "run"], capsys)
    assert code == 0 and "rewards/accuracies" in said.out


def per_token(token_logps, *, scale=1.0):
    """-scale * log-prob of each token."""
    return -scale * token_logps, {}


def of_samples(token_logps, advantages):
    """-advantage * log-prob."""
    return -advantages * token_logps, {}


def misspelled(chosen_logps, rejectd_logps):
    """The difference."""
    return chosen_logps - rejectd_logps, {}


def test_the_format_of_a_loss_is_the_one_that_has_its_arrays():
    def difference(chosen_logps, rejected_logps):
        return chosen_logps - rejected_logps, {}

    row = get(difference)
    assert (row.name, row.format, row.reduce) == ("difference", PAIRS, mean_over_examples)
    row = get(per_token, format="supervised")
    assert (row.format, row.reduce) == (SUPERVISED, mean_over_tokens)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (per_token, r"several formats \(supervised, binary, samples\): write a row, such as"),
        (of_samples, r"experience=Experience\("),
        (misspelled, r"'rejectd_logps', unknown to format 'pairs'; did you mean 'rejected_logps'"),
    ],
)
def test_a_loss_that_makes_no_row_is_refused_with_the_remedy(loss, message):
    with pytest.raises(TypeError, match=message):
        get(loss)


def test_a_row_handed_over_as_an_object_is_found_again_in_this_process():
    row = replace(get("dpo"), name="lighter", defaults={"beta": 0.3})
    name = name_of(row.with_hyper(beta=0.2))
    assert name == "here:lighter" and get(name) == row and get(row) is row
    assert name_of(get("dpo").with_hyper(beta=0.2)) == "dpo"
    assert name_of(get("dr_grpo").with_longest_response(7)) == "dr_grpo"


@pytest.mark.parametrize("name", ["simpo+sft", "humanline+simpo", "re_po+grpo"])
def test_a_row_of_ones_own_may_have_a_plus_in_its_name(name):
    row = replace(get("dpo"), name=name)
    assert get(name_of(row)) == row


def test_code_is_known_by_its_text_and_not_by_its_place(own):
    first = custom.code_digest("mymethods.py:row", get("mymethods.py:row"))
    (own / "moved.py").write_text(CODE)
    assert custom.code_digest("moved.py:row", get("moved.py:row")) == first
    (own / "moved.py").write_text(CODE + "# more\n")
    assert custom.code_digest("moved.py:row", get("moved.py:row")) != first
    assert custom.code_digest("dpo", get("dpo")) is None


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
    rows = {word.strip(",()") for text in ELSEWHERE.values() for word in text.split()}
    assert not set(ELSEWHERE) & set(ALGORITHMS)
    for word in rows:
        if "_" in word and word.isidentifier() and not word.isupper():
            assert word in ALGORITHMS or word in RULES, word
