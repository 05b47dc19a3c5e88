"""The README tells the truth: its code runs, its table is the catalogue, what it names exists."""

import re
from pathlib import Path

from jalign.cli.catalogue import markdown
from jalign.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


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
    for line in "\n".join(blocks("bash")).splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["jalign"]:
            assert words[1] in COMMANDS, line
        for word in words:
            if word.startswith(("configs/", "launch/", "tests/")):
                assert (ROOT / word).exists(), line
