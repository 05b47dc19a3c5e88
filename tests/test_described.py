"""A run says at its start every number that decides what it learns."""

import pytest

from jalign.algorithms import ALGORITHMS
from jalign.config.read import ConfigError, read_config
from jalign.run.described import described
from tests._tiny import arguments_of


def text(*args):
    return " ".join(" ".join(described(read_config(list(args)))).split())


def test_the_numbers_of_a_run_are_named_with_those_that_were_not_given():
    said = text("quickstart", "--model.lora.rank", "4", "--seed", "17", "--out", "runs/mine")
    for words in (
        "dpo, beta 0.1", "label_smoothing", "adamw, learning rate 0.0002, cosine after 10 steps",
        "LoRA of rank 4, alpha 32, dropout 0, on layers", "32 examples each, 120 steps",
        "at most 64 tokens, responses of 128 (truncate)", "temperature 0.8", "seed: 17",
        "runs/mine",
    ):  # fmt: skip
        assert words in said, words
    online = text("tiny/grpo", "--rollout.temperature", "0.75", "--rollout.responses", "5")
    assert "prompts 6, responses 5, epochs 1, new tokens 24, temperature 0.75" in online


def test_every_hyper_parameter_is_there_in_80_columns():
    for name, row in list(ALGORITHMS.items())[::12]:
        lines = described(read_config(arguments_of(row)))
        assert max(map(len, lines)) <= 80
        words = " ".join(lines).replace(",", " ").split()
        assert set(row.hyperparameters) <= set(words), name


@pytest.mark.parametrize(
    ("args", "rate"),
    [
        ("--algorithm sft", 2e-5),
        ("--algorithm bradley_terry", 1e-5),
        ("--algorithm dpo", 1e-6),
        ("--algorithm kto --model.lora.rank 4", 1e-5),
        ("--algorithm sft --model.lora.rank 4", 2e-4),
        ("--algorithm bradley_terry --model.adapter folder", 1e-4),
        ("tiny/grpo --optim.learning_rate null", 1e-6),
        ("--algorithm sft --optim.learning_rate 3e-6", 3e-6),
    ],
)
def test_a_rate_that_is_not_given_is_the_usual_one_of_the_kind_of_run(args, rate):
    config = read_config(args.split())
    assert config.optim.learning_rate == pytest.approx(rate)
    assert ("usual for" in " ".join(described(config))) == (rate != 3e-6)


def test_an_optimizer_whose_usual_rates_are_not_known_must_be_given_one():
    with pytest.raises(ConfigError, match=r"optim\.learning_rate: .* set it for lion"):
        read_config(["--algorithm", "dpo", "--optim.name", "lion"])
    given = ["--optim.name", "lion", "--optim.learning_rate", "1e-7"]
    assert read_config(["--algorithm", "dpo", *given]).optim.learning_rate == 1e-7


def test_an_optimizer_given_from_python_is_not_described_by_the_options():
    config = read_config(["--algorithm", "dpo"])
    text = " ".join(described(config, ["optimizer"]))
    assert "given from Python" in text and "learning rate" not in text
    assert "learning rate" in " ".join(described(config))
