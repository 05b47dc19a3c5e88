"""Counts of the code's shape: python tests/architecture.py [PATH ...] [--all] [--hops].

Without PATH the whole package and each part of it; with PATH (jalign/data, jalign/core.py) only
that. Banned identifiers and British spellings are listed with file:line. --hops follows one DPO
pair and one GRPO prompt and counts the functions they pass through (tests/_hops.py). --root counts
another checkout by the same definitions.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 60  # lines of a function

BANNED = {"found", "whole", "numbers", "made", "told", "said", "looks", "places"}
PAIR_WORD = "chosen"  # free only in files that name the rejected response too

BRITISH = re.compile(
    r"""\b(\w*(?:normal|penal|optim|quant|token|general|recogn|initial|summar|serial|organ|regular
    |symmetr|central|custom|minim|maxim|parameter|factor|visual|standard|local|vector|util|special|random
    |stabil|emphas|critic|real|author)is(?:e|es|ed|ing|ation|ations|er|ers)
    |(?:de|re|un)?cent(?:re|res|red|ring)|learnt|spelt|misspelt|\w*behaviour\w*|\w*colour\w*
    |\w*neighbour\w*|\w*favour\w*|\w*honour\w*|labell(?:ed|ing)|cancell(?:ed|ing)|modell(?:ed|ing)
    |travell\w+|fulfil|licence|analys(?:e|ed|es|ing)|judgement\w*|grey|whilst|artefacts?)\b""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass
class Counts:
    """What one set of files adds up to."""

    files: dict[str, int] = field(default_factory=dict)  # path -> lines
    functions: list[tuple[str, int, int]] = field(default_factory=list)  # where, lines, docstring
    public: int = 0
    with_any: list[str] = field(default_factory=list)
    unannotated: list[str] = field(default_factory=list)
    comments: int = 0
    docstrings: int = 0
    banned: list[str] = field(default_factory=list)
    british: list[str] = field(default_factory=list)

    @property
    def lines(self) -> int:
        return sum(self.files.values())

    def long(self, docstring: bool) -> list[str]:
        """Functions over `LIMIT` lines, with their docstring counted or not."""
        sized = ((at, n if docstring else n - doc) for at, n, doc in self.functions)
        return [f"{at} {n}" for at, n in sized if n > LIMIT]


def docstring_lines(node: ast.AST) -> int:
    body = getattr(node, "body", None)
    if not body or not isinstance(body, list) or not isinstance(body[0], ast.Expr):
        return 0
    value = body[0].value
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return body[0].end_lineno - body[0].lineno + 1
    return 0


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name the code defines: variables, parameters, attributes, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno


def signatures(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """Public functions and methods of public classes: name, node, whether the first is self."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    static = any(
                        getattr(d, "id", "") == "staticmethod" for d in method.decorator_list
                    )
                    yield f"{node.name}.{method.name}", method, not static


def annotations(fn: ast.FunctionDef, method: bool) -> list[ast.expr | None]:
    a = fn.args
    positional = [*a.posonlyargs, *a.args][1 if method else 0 :]
    rest = [x for x in (a.vararg, a.kwarg) if x]
    return [x.annotation for x in [*positional, *a.kwonlyargs, *rest]] + [fn.returns]


def comment_count(source: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(t.type == tokenize.COMMENT and not t.string.startswith("#!") for t in tokens)


def read_into(counts: Counts, path: Path, root: Path = ROOT) -> None:
    source, name = path.read_text(), str(path.relative_to(root))
    tree = ast.parse(source)
    counts.files[name] = len(source.splitlines())
    counts.comments += comment_count(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            size, doc = node.end_lineno - node.lineno + 1, docstring_lines(node)
            counts.functions.append((f"{name}:{node.lineno} {node.name}", size, doc))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            counts.docstrings += docstring_lines(node)
    is_script = "examples" in path.parts  # nobody calls its functions
    for label, fn, method in () if is_script else signatures(tree):
        written, at = annotations(fn, method), f"{name}:{fn.lineno} {label}"
        counts.public += 1
        if None in written:
            counts.unannotated.append(at)
        words = re.compile(r"\bAny\b")
        if any(note is not None and words.search(ast.unparse(note)) for note in written):
            counts.with_any.append(at)
    banned = BANNED if "rejected" in source else BANNED | {PAIR_WORD}
    counts.banned += [f"{name}:{line} {word}" for word, line in bound_names(tree) if word in banned]
    for number, line in enumerate(source.splitlines(), 1):
        counts.british += [f"{name}:{number} {m.group()}" for m in BRITISH.finditer(line)]


def count(*paths: Path, root: Path = ROOT) -> Counts:
    counts = Counts()
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            read_into(counts, file, root)
    return counts


def row(label: str, c: Counts) -> str:
    sizes = list(c.files.values())
    return (
        f"{label:<16}{len(sizes):>5}{c.lines:>7}{statistics.median(sizes):>7.0f}{max(sizes):>6}"
        f"{sum(n > 300 for n in sizes):>6}{len(c.long(False)):>6}{len(c.long(True)):>6}"
        f"{c.public:>7}{100 * len(c.with_any) / max(c.public, 1):>7.1f}{len(c.unannotated):>6}"
        f"{100 * c.comments / max(c.lines, 1):>7.1f}{100 * c.docstrings / max(c.lines, 1):>6.0f}"
        f"{len(c.banned):>7}{len(c.british):>8}"
    )


HEAD = (
    f"{'':<16}{'files':>5}{'lines':>7}{'median':>7}{'max':>6}{'>300':>6}{'f>60':>6}{'+doc':>6}"
    f"{'public':>7}{'Any %':>7}{'bare':>6}{'# %':>7}{'doc %':>6}{'banned':>7}{'British':>8}"
)
LEGEND = (
    "f>60: functions over 60 lines without their docstring, +doc: with it; bare: public functions\n"
    "with an unannotated parameter or result; #: comment lines and tails; doc: lines of docstrings"
)


def listing(title: str, items: list[str], limit: int) -> None:
    if items:
        print(f"\n{title} ({len(items)})")
        print("\n".join(f"  {item}" for item in items[:limit]))
        if len(items) > limit:
            print(f"  and {len(items) - limit} more (--all)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true", help="list everything that is counted")
    parser.add_argument("--hops", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    args = parser.parse_args()
    root = args.root.resolve()
    if args.hops:
        script = Path(__file__).with_name("_hops.py")
        sys.exit(subprocess.run([sys.executable, script, root, *["--all"] * args.all]).returncode)
    package = root / "jalign"
    paths = [path.resolve() for path in args.paths]
    print(HEAD)
    if not paths:
        for child in sorted(package.iterdir()):
            if child.suffix == ".py" or (child.is_dir() and any(child.rglob("*.py"))):
                print(row(child.name, count(child, root=root)))
    total = count(*(paths or [package]), root=root)
    print(row("total", total))
    print(LEGEND)
    cli = count(package / "cli", root=root).lines
    readme = len((root / "README.md").read_text().splitlines())
    print(f"lines of cli/: {cli}; of README.md: {readme}")
    limit = 10**9 if args.all else 400 if paths else 12
    listing("banned identifiers", total.banned, limit)
    listing("British spellings", total.british, limit)
    listing("functions over 60 lines without docstring", total.long(False), limit)
    listing("public functions with Any", total.with_any, limit)
    listing("public functions with something unannotated", total.unannotated, limit)
    listing("files over 300 lines", [f"{f} {n}" for f, n in total.files.items() if n > 300], limit)


if __name__ == "__main__":
    main()
