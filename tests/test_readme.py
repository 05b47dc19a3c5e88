"""The READMEs tell the truth: their code runs, the catalogue is generated, files they name exist,
and commands are accepted as printed, from a folder that is not the checkout.
"""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from jalign.algorithms import get
from jalign.cli import (
    chat,
    data,
    doctor,
    evaluate,
    export,
    init,
    label,
    merge,
    pipeline,
    plan,
    prompts,
    revise,
    sample,
    serve,
    train,
)
from jalign.cli.arena import asks_for_arena, read_arena
from jalign.cli.benchmark import read_benchmark
from jalign.cli.main import COMMANDS
from jalign.cli.pipeline_options import options_of
from jalign.config import packaged
from jalign.config.read import load_yaml, read_as, read_config, read_options
from jalign.leaderboard.spec import Spec
from jalign.options.generate import GenerateConfig
from jalign.options.leaderboard import LeaderboardConfig
from jalign.pipeline.stages import expand
from jalign.taxonomy import markdown

ROOT = Path(__file__).parents[1]
READMES = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in ("", "configs/**/", "jalign/**/", "launch/", "tests/")
    for path in sorted(ROOT.glob(f"{folder}README.md"))
}
README = READMES["README.md"]


def blocks(language, text):
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def lines(text):
    """Every command line of the code blocks, without its comment."""
    for line in "\n".join(blocks("bash", text)).splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def commands(text):
    """The jalign commands of code blocks, and of `code` in prose that is a whole command."""
    yield from (words for words in lines(text) if words[0] == "jalign")
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    for code in re.findall(r"`(jalign [^`]+)`", prose):
        if len(words := shlex.split(code)) > 2 and not re.search(r"[A-Z]{3,}|--help|\[", code):
            yield words


def test_the_first_page_is_short():
    assert len(README.splitlines()) <= 150


def test_the_catalogue_is_generated():
    assert markdown() in READMES["jalign/losses/README.md"], "run `jalign algorithms --markdown`"


@pytest.mark.parametrize("name", READMES)
def test_the_python_examples_run(name, tmp_path, monkeypatch, quick):
    """Of less data than they have."""
    monkeypatch.chdir(tmp_path)
    for code in blocks("python", READMES[name]):
        code = re.sub(r"\blimit=\d+", "limit=32", code)
        code = re.sub(r"\beval_limit=\d+", "eval_limit=8", code)
        exec(compile(code, name, "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("name", READMES)
def test_every_link_leads_to_a_file(name):
    for target in re.findall(r"\]\(([^)#\s]+)\)", READMES[name]):
        if not target.startswith("https://"):
            assert (ROOT / name).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "jalign/README.md"])
def test_every_file_of_a_tree_exists(name):
    (tree,) = blocks("text", READMES[name])
    base = (ROOT / name).parent
    for line in tree.splitlines():
        for path in re.findall(r"(?<!\S)[\w./]+(?:/|\.py)(?=\s|,|$)", line.split("  ")[0]):
            assert (base / path).exists(), path


def test_every_package_is_in_the_tree_of_the_architecture():
    (tree,) = blocks("text", READMES["jalign/README.md"])
    for path in (ROOT / "jalign").iterdir():
        if (path / "__init__.py").exists():
            assert re.search(rf"(?<!\S){path.name}/", tree), path.name


@pytest.mark.parametrize("name", READMES)
def test_every_command_names_something_that_exists(name):
    base = ROOT / "configs/embedded" if name == "configs/embedded/README.md" else ROOT
    for words in lines(READMES[name]):
        if words[0] == "jalign":
            assert words[1] in COMMANDS, words
        for word in (w.rstrip(")") for w in words):
            if word.startswith(("configs/", "launch/", "tests/")):
                assert (ROOT / word).exists(), words
            elif word.endswith(".py") and "/" not in word:
                assert (base / word).exists(), words


def of_config(args, command, add=lambda parser: None):
    """A run's folder may stand in for a config; it does not exist here."""
    if not args[0].startswith("runs/"):
        read_options(args, command, add)


def of_eval(args):
    if asks_for_arena(args):
        read_arena(args)
    elif "--tasks" in args:
        read_benchmark(args)
    else:
        of_config(args, "eval", evaluate.add_options)


def of_algorithms(args):
    for name in args:
        if name != "--markdown":
            get(name)


def of_plan(args):
    read_options(args, "plan", plan.add_options)


def of_bench(args):
    if "--config" in args:
        changes = args[args.index("--") + 1 :] if "--" in args else []
        read_config([args[args.index("--config") + 1], *changes])


def of_pipeline(args):
    options = options_of(args)
    file = load_yaml(packaged.find(options.file))
    expand(file, options.values, options.overrides, pipeline.COMMANDS)


def of_leaderboard(args):
    options = read_as(LeaderboardConfig, args, "leaderboard", {"spec": None})
    Spec.from_dict(load_yaml(packaged.find(options.spec)) | options.set)


CHECKS = {
    "train": partial(of_config, command="train", add=train.add_options),
    "eval": of_eval,
    "data": partial(of_config, command="data", add=data.add_options),
    "sample": lambda args: read_as(GenerateConfig, args, "sample", sample.WORDS),
    "serve": serve.check_args,
    "chat": chat.check_args,
    "label": label.check_args,
    "revise": revise.check_args,
    "prompts": prompts.check_args,
    "export": export.check_args,
    "merge": merge.check_args,
    "pipeline": of_pipeline,
    "algorithms": of_algorithms,
    "plan": of_plan,
    "bench": of_bench,
    "leaderboard": of_leaderboard,
    "init": lambda args: init.init(args, Console(quiet=True)),
    "rollouts": lambda args: None,
    "report": lambda args: None,
    "compare": lambda args: None,
    "runs": lambda args: None,
    "doctor": doctor.check_args,
    "configs": lambda args: None,
}


@pytest.mark.parametrize("name", READMES)
def test_every_command_is_accepted_as_printed_in_the_order_of_the_page(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in commands(READMES[name]):
        if "train" in words and "mine.yaml" in words and not Path("mine.yaml").exists():
            continue
        try:
            CHECKS[words[1]](words[2:])
        except Exception as error:
            raise AssertionError(shlex.join(words)) from error
