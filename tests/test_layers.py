"""Who may import whom, read from the source: a part imports only what stands before it."""

import ast
import graphlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "jalign"

# Each part with the parts it may import besides itself.
BASE = {"layout", "signatures", "core"}
MODEL = BASE | {"kernels", "parallel", "models", "bucket", "store"}
STATE = {"optim", "checkpoint"}
METHOD = BASE | {"user_code", "losses", "advantages", "experience", "formats", "algorithms"}
TRAIN = (
    MODEL | METHOD | STATE | {"user_code", "data", "rollout", "rewards", "train", "log", "store"}
)
ALLOWED = {
    "layout": set(),
    "signatures": set(),
    "losses": set(),
    "advantages": {"losses"},
    "core": {"layout", "signatures"},
    "experience": {"advantages", "core"},
    "store": set(),
    "user_code": {"signatures"},
    "bucket": {"store", "signatures"},
    "data": {"layout", "signatures", "store", "bucket"},
    "embedded": set(),
    "formats": BASE | {"losses"},
    "algorithms": METHOD,
    "about": METHOD,
    "taxonomy": METHOD,
    "doctor": {"kernels"},
    "kernels": BASE | {"parallel"},
    "parallel": BASE | {"store"},
    "models": MODEL,
    "optim": {"kernels", "parallel"},
    "checkpoint": BASE | {"parallel", "store"},
    "rollout": MODEL | {"store"},
    "rewards": MODEL | {"data", "user_code"},
    "log": {"store"},
    "train": TRAIN,
    "options": METHOD | {"user_code", "train", "optim", "embedded"},
    "run": TRAIN | {"options", "about", "embedded", "__init__"},
    "config": METHOD
    | {"user_code", "train", "optim", "options", "parallel", "rewards", "about", "__init__"},
    "feedback": TRAIN | {"options", "run"},
    "pipeline": TRAIN | {"options", "run"},
    "eval": TRAIN | {"options", "run", "serve"},
    "serve": TRAIN | {"options", "run"},
    "report": TRAIN | {"options", "run", "eval", "__init__"},
    "leaderboard": TRAIN | {"embedded", "options", "run", "eval", "report", "taxonomy"},
    "plan": TRAIN | {"options", "run"},
    "bench": TRAIN | {"options", "run", "plan"},
    "cli": TRAIN
    | {"about", "taxonomy", "doctor", "eval", "config", "embedded", "bench", "plan", "options"}
    | {"run", "feedback", "pipeline", "serve", "report", "leaderboard", "__init__"},
    "examples": TRAIN | {"options", "run", "embedded", "plan", "__init__"},
    "__main__": {"cli"},
    "__init__": {"run"},
}
# What outside of jalign a part may import; parts that are not named may import anything.
STANDARD = {"__future__", "collections", "dataclasses", "functools", "math", "types", "typing"}
OUTSIDE = {
    "losses": STANDARD | {"inspect", "jax", "jaxtyping"},
    "layout": STANDARD,
    "signatures": STANDARD | {"difflib", "inspect"},
    "advantages": STANDARD | {"jax", "jaxtyping"},
    "experience": STANDARD | {"jax", "jaxtyping"},
    "core": STANDARD | {"jax", "jaxtyping", "flax", "inspect"},
    "formats": STANDARD | {"jax"},
    "algorithms": STANDARD | {"jax", "difflib", "inspect", "pathlib", "re"},
    "kernels": STANDARD | {"jax", "jaxtyping", "numpy"},
}
NEVER = {"data": {"jax", "flax", "optax", "orbax"}}


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path):
    """Full dotted names of everything imported, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "jalign":
                yield from (f"jalign.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_a_part_imports_only_the_parts_it_may():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        me = part(path)
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "jalign" and rest:
                other = rest[0] if rest[0] in ALLOWED else "__init__"
                if other != me and other not in ALLOWED[me]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            elif top in NEVER.get(me, ()) or (
                me in OUTSIDE and top not in OUTSIDE[me] | {"jalign"}
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_only_the_checkpoint_package_knows_orbax():
    users = {p.name for p in ROOT.rglob("*.py") for n in imports(p) if n.startswith("orbax")}
    assert users == {"checkpointer.py", "orbax_s3.py", "reader.py"}


def test_nothing_but_the_command_line_knows_the_command_line_or_its_config():
    for who, others in ALLOWED.items():
        assert "cli" not in others or who in ("__main__", "cli"), who
        assert "config" not in others or who in ("config", "cli"), who


def test_no_file_is_longer_than_450_lines_and_none_is_called_utils():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 470, path
        assert path.stem != "utils", path


def test_only_one_file_names_the_axes_of_the_mesh():
    """Written elsewhere as a string, an axis that is renamed would silently split nothing."""
    called = {"P", "PartitionSpec", "constrain", "ways"}
    wrong = []
    for path in ROOT.rglob("*.py"):
        if path == ROOT / "parallel" / "axes.py" or path.parent == ROOT / "examples":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(node, "func", None), "id", "")
            is_shape = getattr(getattr(node, "value", None), "attr", "") == "shape"
            if name in called or (is_shape and isinstance(node, ast.Subscript)):
                wrong += [
                    f"{path.relative_to(ROOT)}:{node.lineno} {leaf.value}"
                    for leaf in ast.walk(node)
                    if isinstance(leaf, ast.Constant)
                    and leaf.value in ("data", "fsdp", "context", "tensor")
                ]
    assert not wrong, "\n".join(wrong)


def test_models_import_each_other_without_a_circle():
    files = {
        ".".join(("jalign", *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in (ROOT / "models").rglob("*.py")
    }
    graph = {}
    for me, path in files.items():
        graph[me] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                graph[me] |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        graph[me] &= files.keys()
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_test_modules_import_helpers_and_never_each_other():
    for path in Path(__file__).parent.rglob("*.py"):
        for name in imports(path):
            where, *rest = name.split(".")
            modules = [part for part in rest if part.startswith("test_")]
            assert where != "tests" or not modules, f"{path.name} imports {name}"


SCRIPTS = [
    path
    for folder in ("configs", "launch", "tests/peers", "tests/faults", "tests/golden")
    for path in sorted((ROOT.parent / folder).rglob("*.py"))
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_that_no_test_runs_import_what_exists(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jalign":
            module = importlib.import_module(node.module)
            for alias in node.names:
                known = hasattr(module, alias.name)
                assert known or importlib.util.find_spec(f"{node.module}.{alias.name}"), alias.name
