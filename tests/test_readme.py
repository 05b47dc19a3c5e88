"""The README tells the truth: its code runs, its table is the catalogue, what it names exists, and
its commands are accepted as printed, from a folder that is not the checkout.
"""

import re
import shlex
from functools import partial
from pathlib import Path

from rich.console import Console

from jalign import naming
from jalign.algorithms import ALGORITHMS
from jalign.cli import export, init, label, merge, pipeline, prompts, revise, sample
from jalign.cli.catalogue import markdown
from jalign.cli.main import COMMANDS
from jalign.config import packaged
from jalign.config.read import load_yaml, parsed, read_config, read_options
from jalign.pipeline.stages import plan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def lines():
    """Every command line of the code blocks, without its comment."""
    for line in "\n".join(blocks("bash")).splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def test_the_algorithm_table_is_generated_from_the_catalogue():
    assert markdown() in README, "run `jalign algorithms --markdown` and put it into the README"


def test_the_python_examples_run():
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})


def test_every_file_of_the_tree_exists_and_every_top_level_one_is_in_it():
    (tree,) = [b for b in blocks("text") if b.startswith("jalign/")]
    named = [line.split()[0] for line in tree.splitlines() if line and not line.startswith("  ")]
    for name in named:
        assert (ROOT / name.rstrip("/")).exists(), name
    for path in (ROOT / "jalign").iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert re.search(rf"^  {path.name}/", tree, re.M), path.name


def test_every_command_line_names_something_that_exists():
    for words in lines():
        if words[0] == "jalign":
            assert words[1] in COMMANDS, words
        for word in words:
            if word.startswith(("configs/", "launch/", "tests/")):
                assert (ROOT / word).exists(), words


def of_config(args, command):
    """A run's folder stands where a config may; it is not there to be read."""
    if not args[0].startswith("runs/"):
        read_options(args, command)


def of_algorithms(args):
    for name in args:
        naming.find(name, ALGORITHMS)


def of_plan(args):
    at = args.index("--target")
    read_config(args[:at] + args[at + 2 :], "plan")


def of_bench(args):
    if "--config" in args:
        changes = args[args.index("--") + 1 :] if "--" in args else []
        read_config([args[args.index("--config") + 1], *changes])


def of_pipeline(args):
    options = pipeline._options(args)
    plan(load_yaml(packaged.find(options.file)), options.values, options.overrides)


def as_it_is(args):
    assert args == []


CHECKS = {
    "train": partial(of_config, command="train"),
    "eval": partial(of_config, command="eval"),
    "data": partial(of_config, command="data"),
    "sample": lambda args: parsed(sample.parser(), args, lambda values: values),
    "label": label.read,
    "revise": revise.read,
    "prompts": prompts.read,
    "export": export.check_args,
    "merge": merge.check_args,
    "pipeline": of_pipeline,
    "algorithms": of_algorithms,
    "plan": of_plan,
    "bench": of_bench,
    "init": lambda args: init.init(args, Console(quiet=True)),
    "rollouts": lambda args: None,
    "doctor": as_it_is,
    "configs": lambda args: None,
}


def test_every_command_is_accepted_as_printed_in_the_order_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in lines():
        if words[0] == "jalign":
            try:
                CHECKS[words[1]](words[2:])
            except Exception as error:
                raise AssertionError(shlex.join(words)) from error
