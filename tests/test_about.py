"""What the catalogue says of each row is its own, complete, and what the row does."""

import numpy as np
import pytest
from rich.console import Console

from jalign import about
from jalign.algorithms import ALGORITHMS, get
from jalign.cli.algorithms import algorithms
from jalign.core import SCORER_HYPER
from tests._rows import draw, total


def printed(name):
    console = Console(width=120)
    with console.capture() as capture:
        algorithms([name], console)
    return capture.get()


def test_no_two_rows_say_the_same():
    texts = [row.about for row in ALGORITHMS.values()]
    assert len(set(texts)) == len(texts)
    assert all(len(text) > 50 and text.endswith(".") for text in texts)


@pytest.mark.parametrize("row", ALGORITHMS.values(), ids=lambda row: row.name)
def test_every_hyperparameter_of_a_row_has_a_meaning(row):
    said = about.hyperparameters(row)
    assert {name: value for name, (value, _) in said.items()} == row.hyperparameters
    for name, (_, meaning) in said.items():
        assert len(meaning) > 15 and "as in `" not in meaning, name


def test_a_row_whose_reference_moves_says_how():
    moving = [row for row in ALGORITHMS.values() if row.moves_reference()]
    assert {row.name for row in moving} >= {"tr_dpo", "sdpo", "ppo_ema", "nash_ema", "dno_prct"}
    for row in moving:
        hyper = row.hyperparameters
        assert "reference" in row.about, row.name
        assert f"ref_sync_steps {hyper['ref_sync_steps']}" in row.about, row.name
        if hyper["ref_mixup_alpha"] != 1:
            assert f"ref_mixup_alpha {hyper['ref_mixup_alpha']:g}" in row.about, row.name


def test_a_row_without_a_ratio_asks_for_one_step_per_rollout():
    for row in ALGORITHMS.values():
        assert row.needs_fresh_samples == ("Without an importance ratio" in row.about), row.name


def test_numbers_of_the_scorer_are_explained():
    read = {name for numbers in SCORER_HYPER.values() for name in numbers}
    rows = [row for row in ALGORITHMS.values() if read & set(row.hyperparameters)]
    for row in rows:
        for name in read & set(row.hyperparameters):
            assert about.hyperparameters(row)[name][1], (row.name, name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rpo", ["2404.19733", "2405.16436", "nll_coef", "chosen response"]),
        ("tr_dpo", ["not both at once", "ref_mixup_alpha"]),
        ("sdpo", ["chunks", "schedule run on"]),
        ("reinforce_value", ["(1 - beta) * score - beta * KL"]),
        ("dr_grpo", ["rollout.max_new_tokens", "mean of ppo_clip: The sum over tokens"]),
        ("nash_ema", ["keeps the first policy as its target"]),
        ("ppo_ptx", ["rollout.temperature"]),
    ],
)
def test_what_a_user_must_know_of_a_method_is_printed(name, said):
    text = " ".join(printed(name).split())
    for part in said:
        assert part in text, part
    assert get(name).loss.__name__ in text


def test_every_term_beside_a_loss_says_how_its_mean_is_taken():
    for name in ("dr_grpo", "gspo", "dapo", "cispo"):
        meaning = about.hyperparameters(get(name))["kl_k3_coef"][1]
        assert "Every scored token of the whole step counts the same" in meaning
    assert "over a response's tokens, then" in about.hyperparameters(get("grpo"))["kl_k3_coef"][1]


def test_rpo_is_dpo_plus_the_token_mean_of_the_chosen_nll():
    row = get("rpo")
    fields = draw(row)
    expected = total(get("dpo"), fields | draw(row)) + np.sum(
        -np.asarray(fields["chosen_logps"])
    ) / np.sum(np.asarray(fields["chosen_len"]))
    np.testing.assert_allclose(total(row, fields), expected, rtol=1e-6)
