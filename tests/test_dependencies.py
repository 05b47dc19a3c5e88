"""Everything that jalign imports is declared in pyproject.toml, and nothing else is."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {canonical(re.match(r"[\w.-]+", r)[0]) for r in requirements}


# Files that nothing imports without their extra, which may then import what it installs.
OF_EXTRA = {
    "jalign/serve/app.py": "serve",
    "jalign/log/trackers/wandb.py": "wandb",
    "jalign/log/trackers/trackio.py": "trackio",
    "jalign/log/trackers/mlflow.py": "mlflow",
    "jalign/eval/benchmarks/harness.py": "eval",
    "jalign/eval/benchmarks/lm.py": "eval",
}


def imported() -> set[str]:
    """Distributions that a file of jalign imports, wherever in the file."""
    modules = set()
    for path in (ROOT / "jalign").rglob("*.py"):
        if str(path.relative_to(ROOT)) in OF_EXTRA:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    modules -= {"jalign", *sys.stdlib_module_names}
    known = packages_distributions()
    return {canonical(name) for module in modules for name in known.get(module, [module])}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    required, used = declared(PROJECT["dependencies"]), imported()
    assert used - required == set(), "imported, not declared"
    assert required - used == set(), "declared, not imported"


def test_a_file_of_an_extra_imports_what_the_extra_installs():
    for name, extra in OF_EXTRA.items():
        allowed = declared(PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra])
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            module = (getattr(node, "module", None) or "jalign").split(".")[0]
            standard = {"jalign", *sys.stdlib_module_names}
            assert module in standard or canonical(module) in allowed, f"{name}: {module}"


def test_extras_are_not_needed_to_import_jalign():
    extras = PROJECT["optional-dependencies"]
    only_extra = declared(extras["judge"] + extras["dev"]) - declared(PROJECT["dependencies"])
    assert not only_extra & imported()
