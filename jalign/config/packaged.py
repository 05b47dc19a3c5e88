"""The configs that come with jalign, by name: `jalign train quickstart`, `jalign train tiny/grpo`.

In a wheel they lie inside the package, in a checkout beside it.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import jalign
from jalign.config.yaml_file import ConfigError
from jalign.core import did_you_mean

_PACKAGE = Path(jalign.__file__).parent
_HELP = """usage: jalign configs [WORD ...]

The configs that come with jalign, one per line, or those that hold the words. Given by name:
jalign train tiny/grpo, jalign plan dpo/llama3_8b_lora_v5e8 --target v5e-8; jalign pipeline those of
pipelines/. jalign train NAME --print_config prints one with all its keys."""
_NOT_LISTED = ("embedded", "real")  # how the package's own model and the README's tables came about


def folder() -> Path:
    """Where they are."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """All of them: paths in the folder, without .yaml."""
    files = (path.relative_to(folder()) for path in folder().rglob("*.yaml"))
    return sorted(str(f.with_suffix("")) for f in files if f.parts[0] not in _NOT_LISTED)


def find(name: str) -> str:
    """The file that a name means: a file that there is, or else one that comes with jalign.

    Raises:
      ConfigError: neither; says what is nearest.
    """
    if Path(name).is_file() or not name:
        return name
    inside = name.removeprefix("configs/")
    for ending in ("", ".yaml"):
        if (file := folder() / f"{inside}{ending}").is_file():
            return str(file)
    if Path(name).exists():
        return name
    near = did_you_mean(inside.removesuffix(".yaml"), names())
    near = f"{near} " if "did you mean" in near else "; "
    raise ConfigError(
        f"cannot read config {name}: there is no such file, and none of jalign's own configs is "
        f"called so{near}(jalign configs lists them)"
    )


def show(args: Sequence[str], console: Console) -> None:
    """`jalign configs [WORD ...]`: one per line with what it says of itself; only those that hold
    the words.
    """
    if {"-h", "--help"} & set(args):
        print(_HELP)
        return
    for name in names():
        file = folder() / f"{name}.yaml"
        first = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        if all(word.lower() in f"{name} {first}".lower() for word in args):
            console.print(f"{name}: {first}", markup=False, highlight=False, soft_wrap=True)
