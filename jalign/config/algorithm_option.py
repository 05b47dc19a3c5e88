"""The `algorithm` section of config files and command line, merged before jsonargparse sees it.

Hyper-parameters belong to the algorithm they were written for: a layer (a file, or the command
line) that names another algorithm starts from that algorithm's defaults.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jalign.config.yaml_file import StrictLoader, load_yaml
from jalign.options.errors import ConfigError
from jalign.user_code import absolute

OPTION = "--algorithm"


class Section:
    """The merged section, and a message each time hyper-parameters are dropped."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self.lines: list[str] = []

    def add(self, layer: dict[str, object]) -> None:
        """Merge a layer of the same algorithm, or of none; a layer of another one replaces all."""
        before, after = self.value.get("name"), layer.get("name")
        if before is None or after is None or before == after:
            self.value = self.value | layer
            return
        dropped = [f"{key} {x}" for key, x in self.value.items() if key not in ("name", *layer)]
        if dropped:
            self.lines.append(
                f"algorithm: {after} instead of {before}, whose {', '.join(dropped)} "
                f"{'does' if len(dropped) == 1 else 'do'} not apply: the defaults of {after} count"
            )
        self.value = layer

    def add_file(self, path: str, find: Callable[[str], str]) -> None:
        """Merge a config file, and those that it includes by a key `config`, in order."""
        file = find(path)
        for key, value in load_yaml(file).items():
            if key == "config" and isinstance(value, str):
                near = Path(file).parent / value
                self.add_file(str(near) if near.is_file() else value, find)
            elif key == "algorithm":
                if not isinstance(value, dict):
                    raise ConfigError(
                        f"{file}: the algorithm must be a mapping, as `algorithm: {{name: dpo}}`, "
                        f"got {value!r}"
                    )
                self.add(value)


def resolved(args: Sequence[str], find: Callable[[str], str]) -> tuple[list[str], Section]:
    """Arguments in which one last `--algorithm` holds the merged section.

    Args:
      args: `--config FILE` and options, as `--name value` or `--name=value`.
      find: name of a config -> its file.
    """
    section, rest, typed = Section(), [], {}
    words = list(args)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        ours = name == OPTION or name.startswith(OPTION + ".")
        if not (ours or name == "--config") or not (equals or words):
            rest.append(word)
            continue
        value = value if equals else words.pop(0)
        if ours:
            content = _value(value)
            if name == OPTION and isinstance(content, dict):  # a mapping replaces everything
                section, typed = Section(), dict(content)
            else:
                typed |= {"name" if name == OPTION else name[len(OPTION) + 1 :]: content}
            continue
        section.add(typed)  # later files and options win
        typed = {}
        section.add_file(value, find)
        rest += ["--config", find(value)]
    section.add(typed)
    if isinstance(
        name := section.value.get("name"), str
    ):  # the run may be read from another folder
        section.value["name"] = absolute(name)
    if section.value:
        # one option, and last: single keys would leave the file's other hyper-parameters in place
        rest.append(f"{OPTION}={_in_one_line(section.value)}")
    return rest, section


def without_other_hyper(
    options: Mapping[str, str], override: Mapping[str, str], find: Callable[[str], str]
) -> tuple[dict[str, str], list[str]]:
    """Options by dotted name without the `algorithm` section, where `override` names another
    algorithm than they do; and messages about what is dropped.

    Args:
      find: name of a config -> its file.
    """
    options = dict(options)
    new = override.get("algorithm.name", override.get("algorithm"))
    section = {key: x for key, x in options.items() if key.split(".")[0] == "algorithm"}
    if new is None or not section:
        return options, []
    args = [f"--{key}={value}" for key, value in section.items()]
    args = ["--config", options["config"], *args] if "config" in options else args
    before = resolved(args, find)[1]
    # the same algorithm: its hyper-parameters stay
    if before.value.get("name") in (None, new):
        return options, []
    before.add({"name": new})
    return {key: x for key, x in options.items() if key not in section}, before.lines


def _value(text: str) -> Any:
    try:
        return yaml.load(text, StrictLoader)
    except yaml.YAMLError:
        return text


def _in_one_line(value: dict[str, Any]) -> str:
    # safe_dump wraps at 80 columns, and an option's value is one line
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9)
    return re.sub(r"\n\s*", " ", text).strip()
