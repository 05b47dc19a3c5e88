"""A YAML file as a mapping in which nothing is lost."""

import re
from typing import Any

import yaml


class ConfigError(ValueError):
    """The run was described wrongly; the message is for the person who wrote it."""


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error (PyYAML lets the last one win, silently), and in
    which 1e-6 is a number (YAML 1.1 takes it for a text).
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(
                    f"{key_node.start_mark.name}: key {key!r} is given twice, "
                    f"line {key_node.start_mark.line + 1}"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(path: str) -> dict[str, Any]:
    """A mapping from a file, in which no key is given twice."""
    try:
        with open(path, encoding="utf-8") as file:
            read = yaml.load(file, UniqueKeys)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path} is not UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not YAML: {error}") from error
    if not isinstance(read, dict):
        raise ConfigError(
            f"config {path} must be a mapping of keys to values, got {type(read).__name__}"
        )
    return read
