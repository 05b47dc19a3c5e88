"""An option that nothing reads is a lie: the code that owns a section must read every key of it.

Read from the source. A key counts as read where `section.key` is written: an attribute of something
that bears the section's name (`options.data.limit`), is annotated with its class, was assigned from
such a thing, or is `self` in a method of it. Checks and descriptions of options do not count: they
read keys that do nothing, too.
"""

import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import jalign
from jalign import config
from jalign.core import Algorithm
from jalign.options import RunOptions
from jalign.train.rollout_spec import RolloutSpec

PACKAGE = Path(jalign.__file__).parent
APART = ("config", "cli/init.py", "run/summary.py", "run/identity.py", "run/described.py")
CHECKS = ("__post_init__", "check", "to_json", "from_json")
TOP = frozenset({"options", "config"})  # what a whole run or command is called


def sections(kind: type, names: frozenset[str] = TOP) -> Iterator[tuple[str, type]]:
    """(name, class) of a dataclass of options and of the sections in it."""
    for base in kind.__mro__:
        if is_dataclass(base):
            yield from ((name, base) for name in names)
    hints = get_type_hints(kind)
    for field in fields(kind):
        for inner in (hints[field.name], *get_args(hints[field.name])):
            if isinstance(inner, type) and is_dataclass(inner) and inner is not Algorithm:
                yield from sections(inner, frozenset({field.name}))


COMMANDS = (config.LabelConfig, config.ReviseConfig, config.PromptsConfig)
SECTIONS = {pair for kind in (RunOptions, *COMMANDS) for pair in sections(kind)}
SECTIONS |= set(sections(RolloutSpec, frozenset({"spec"})))  # it has the rules of RolloutConfig
CLASSES = {kind.__name__: kind for _, kind in SECTIONS}
NAMES = {name: {k for n, k in SECTIONS if n == name} for name, _ in SECTIONS}


def last_name(node: ast.expr) -> str:
    """`limit` of `options.data.limit`; the name of a variable."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def assigned(node: ast.Assign) -> Iterator[tuple[str, str]]:
    """(variable, last name of its value), of `a, b = x.y, z` too."""
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        yield from ((last_name(variable), last_name(value)) for variable, value in pairs)


def names_in(scope: ast.AST) -> dict[str, set[type]]:
    """Names that hold a section here -> the classes it may be of."""
    holds = dict(NAMES)
    for node in ast.walk(scope):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            noted = set(ast.unparse(node.annotation).split(" | ")) & CLASSES.keys()
            if noted:
                name = node.arg if isinstance(node, ast.arg) else last_name(node.target)
                holds[name] = {base for n in noted for base in CLASSES[n].__mro__}
        elif isinstance(node, ast.Assign):
            holds |= {
                variable: NAMES[value] for variable, value in assigned(node) if value in NAMES
            }
    return holds


def reads(tree: ast.Module) -> set[tuple[type, str]]:
    """(class, key) of every read of a section in one module."""
    result = set()
    for scope in ast.walk(tree):
        if isinstance(scope, ast.ClassDef) and scope.name in CLASSES:
            methods = [n for n in scope.body if isinstance(n, ast.FunctionDef)]
            for node in (n for m in methods if m.name not in CHECKS for n in ast.walk(m)):
                if isinstance(node, ast.Attribute) and last_name(node.value) == "self":
                    result.add((CLASSES[scope.name], node.attr))
        apart = scope.name in (*CHECKS, *CLASSES) if hasattr(scope, "name") else True
        if isinstance(scope, (ast.FunctionDef, ast.ClassDef)) and not apart:
            holds = names_in(scope)
            for node in ast.walk(scope):
                if isinstance(node, ast.Attribute):
                    result |= {(k, node.attr) for k in holds.get(last_name(node.value), ())}
    return result


def all_reads() -> set[tuple[type, str]]:
    result = set()
    for path in PACKAGE.rglob("*.py"):
        if not str(path.relative_to(PACKAGE)).startswith(APART):
            result |= reads(ast.parse(path.read_text()))
    return result


READ = all_reads()
KEYS = sorted((name, f.name) for name, kind in CLASSES.items() for f in fields(kind))


@pytest.mark.parametrize("section, key", KEYS)
def test_every_key_is_read_by_the_code_that_owns_its_section(section, key):
    kinds = CLASSES[section].__mro__
    assert any((kind, key) in READ for kind in kinds), f"nothing reads {section}.{key}"


def test_a_key_counts_as_read_in_its_own_section_only():
    code = "def f(options, other):\n    return options.data.limit, other.seed, options.seed"
    read = reads(ast.parse(code))
    assert (config.DataConfig, "limit") in read and (RunOptions, "seed") in read
    assert not {key for kind, key in read if kind in (config.SampleConfig, config.OptimConfig)}


def test_a_check_of_a_key_is_no_reading_of_it():
    code = "class SampleConfig:\n    def __post_init__(self):\n        assert self.temperature >= 0"
    assert not reads(ast.parse(code))
