"""The configs that ship with jalign, by name: `jalign train quickstart`, `jalign train tiny/grpo`.

A wheel has them inside the package, a checkout beside it.
"""

from collections.abc import Sequence
from pathlib import Path

import jalign
from jalign.core import did_you_mean
from jalign.options.errors import ConfigError

_PACKAGE = Path(jalign.__file__).parent
_NOT_LISTED = ("embedded", "real")  # they made the embedded model and the measurements


def folder() -> Path:
    """The folder of the configs."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """Paths in the folder, without .yaml."""
    files = (path.relative_to(folder()) for path in folder().rglob("*.yaml"))
    return sorted(str(f.with_suffix("")) for f in files if f.parts[0] not in _NOT_LISTED)


def find(name: str) -> str:
    """The config file of a name: an existing file, else one that ships with jalign.

    Raises:
      ConfigError: neither; names the nearest.
    """
    if Path(name).is_file() or not name:
        return name
    # as written in a checkout: its paths work from a wheel, too
    inside = name.removeprefix("configs/")
    for ending in ("", ".yaml"):
        if (file := folder() / f"{inside}{ending}").is_file():
            return str(file)
    if Path(name).exists():
        return name
    word = inside.removesuffix(".yaml")
    # the name without its folder, or else the nearest spelling
    named = [known for known in names() if known.endswith(f"/{word}")]
    near = f"; did you mean {named[0]!r}?" if named else did_you_mean(word, names())
    near = f"{near} " if "did you mean" in near else " "
    raise ConfigError(
        f"cannot read config {name}: there is neither a run nor a config there, and no config of "
        f"jalign's own has that name{near}(jalign configs lists them)"
    )


def described(words: Sequence[str] = ()) -> list[str]:
    """`NAME: first line` of each config that contains all the words."""
    lines = []
    for name in names():
        text = (folder() / f"{name}.yaml").read_text(encoding="utf-8")
        line = f"{name}: {text.splitlines()[0].lstrip('# ')}"
        if all(word.lower() in line.lower() for word in words):
            lines.append(line)
    return lines
