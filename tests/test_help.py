"""The help of the commands: short usage, examples, and every key by section."""

import pytest

from jalign.cli.main import COMMANDS
from jalign.config.read import parser
from tests._cli import call

HIDDEN = ("model.lora.help", "optim.merging.help", "reward.judge")  # jsonargparse's own options


@pytest.fixture
def help_of(capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")

    def said(*args):
        code, out = call([*args], capsys)
        assert code == 0 and not out.err
        return out.out

    return said


def test_the_help_of_train_has_examples_and_every_key_with_its_default(help_of):
    text = help_of("train", "--help")
    assert text.index("examples:") < 200 and max(map(len, text.splitlines())) <= 100
    lines = text.splitlines()
    for key in (
        "--algorithm.name NAME", "--algorithm.beta 0.1", "--model.lora.rank 16", "--seed 0",
        "--optim.learning_rate null", "--model.dtype {auto,float32,bfloat16}",
    ):  # fmt: skip
        assert any(key in line for line in lines), key
    for action in parser()._actions:
        if "." in action.dest and action.dest not in HIDDEN:
            assert any(f"--{action.dest} " in f"{line} " for line in lines), action.dest


def test_the_help_shows_one_section_and_the_numbers_of_a_named_algorithm(help_of, capsys):
    assert help_of("train", "--help", "mesh").split()[:2] == ["mesh:", "--mesh.data"]
    text = help_of("train", "quickstart", "--algorithm", "simpo", "--help")
    assert "--algorithm.gamma 1" in text and "margin the chosen reward must win by" in text
    code, said = call(["train", "--help", "modl"], capsys)
    assert code == 2 and "no section 'modl'; did you mean 'model'?" in said.err


def test_the_help_of_each_command_is_its_own_and_runs_nothing(help_of):
    assert "jalign eval RUN [RUN ...] [--step" in help_of("eval", "--help")
    assert "--json" in (text := help_of("doctor", "--help")) and "devices    " not in text
    assert all(f"\n  {what} " in help_of("bench", "--help") for what in ("step", "rl"))
    assert "usage: jalign algorithms" in help_of("algorithms", "--help")
    assert "usage: jalign configs" in help_of("configs", "--help")


def test_every_command_is_in_the_help_and_the_version_is_told(help_of):
    assert all(f"\n  {name} " in help_of("--help") for name in COMMANDS)
    for word in ("--version", "version", "-V"):
        assert help_of(word).startswith("jalign 0.")
