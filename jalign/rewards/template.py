"""Prompt templates for judges, in editable text files.

`{name}` is a field, `{{` and `}}` are braces. All fields are filled in one pass, so a response that
contains `{prompt}` is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jalign.core import did_you_mean

FOLDER = Path(__file__).parent / "templates"
_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}|[{}]")
_BRACES = {"{{": "{", "}}": "}"}


class Template:
    """A text with fields.

    Args:
      text: the text; one line break at its end is removed.
      name: what errors call it.

    Raises:
      ValueError: a brace that is neither a field nor doubled.

    >>> Template("{{}} {prompt}: {response}").fill(prompt="2 + 2", response="{prompt}")
    '{} 2 + 2: {prompt}'
    """

    def __init__(self, text: str, name: str = "template"):
        # Editors end files with a line break; in a prompt it would change the next token.
        self.text, self.name = text.removesuffix("\n"), name
        fields = list(_PART.finditer(self.text))
        for part in fields:
            if part[1] is None and part[0] not in _BRACES:
                line = self.text.count("\n", 0, part.start()) + 1
                raise ValueError(
                    f"{name}, line {line}: a brace that is no {{field}}; write it twice for a brace"
                )
        self.fields = frozenset(part[1] for part in fields if part[1])

    def check(self, needs: Iterable[str], may: Iterable[str] = ()) -> Template:
        """Returns itself if it has all fields in `needs` and no others but those in `may`.

        Raises:
          ValueError: a missing or an unknown field.
        """
        needs = frozenset(needs)
        known = needs | frozenset(may)
        if unknown := sorted(self.fields - known):
            near = did_you_mean(unknown[0], known)
            raise ValueError(f"{self.name} has the unknown field {{{unknown[0]}}}{near}")
        if missing := sorted(needs - self.fields):
            names = ", ".join(f"{{{name}}}" for name in missing)
            raise ValueError(f"{self.name} must have the fields {names}")
        return self

    def fill(self, **values: str) -> str:
        """The text with its fields filled.

        Raises:
          ValueError: a field without a value, or a value without a field.
          TypeError: a value that is not text.
        """
        if missing := sorted(self.fields - set(values)):
            raise ValueError(
                f"{self.name} needs {{{missing[0]}}}{did_you_mean(missing[0], values)}"
            )
        if unknown := sorted(set(values) - self.fields):
            near = did_you_mean(unknown[0], self.fields)
            raise ValueError(f"{self.name} has no field {{{unknown[0]}}}{near}")
        for name, value in values.items():
            if not isinstance(value, str):
                raise TypeError(f"{self.name}: {name} must be text, got {value!r:.80}")
        # One pass: a response that contains a field's name is not filled a second time.
        return _PART.sub(lambda part: values[part[1]] if part[1] else _BRACES[part[0]], self.text)


def load(name: str | Path, needs: Iterable[str] = (), may: Iterable[str] = ()) -> Template:
    """Load a built-in template by name, or one from a .txt file, and check its fields.

    Raises:
      ValueError: no such template, or fields as in `Template.check`.
    """
    return _read(str(name)).check(needs, may)


@cache
def _read(name: str) -> Template:
    if name.endswith(".txt"):
        path = Path(name).expanduser()
        if not path.is_file():
            siblings = [p.name for p in path.parent.glob("*.txt")] if path.parent.is_dir() else []
            raise ValueError(f"no template file {path}{did_you_mean(path.name, siblings)}")
        return Template(path.read_text("utf-8"), str(path))
    shipped = sorted(p.stem for p in FOLDER.glob("*.txt"))
    if name not in shipped:
        raise ValueError(
            f"no template {name!r}{did_you_mean(name, shipped)} (or a file that ends in .txt)"
        )
    return Template((FOLDER / f"{name}.txt").read_text("utf-8"), f"template {name}")
