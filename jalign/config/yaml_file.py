"""YAML files as mappings, without PyYAML's silent surprises."""

import re
from typing import Any

import yaml

from jalign.options.errors import ConfigError


class StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a repeated key and reads 1e-6 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        # PyYAML keeps the last of two equal keys without a word: half a config would be lost.
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


# YAML 1.1 wants a dot and a sign in a float: learning_rate: 1e-6 would be the text "1e-6".
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(path: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
      ConfigError: the file cannot be read, is not a mapping, or repeats a key.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, StrictLoader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path} is not UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"config {path} must be a mapping of keys to values, got {type(content).__name__}"
        )
    return content
