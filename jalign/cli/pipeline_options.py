"""Options of `jalign pipeline`. Their names come from its file, so no parser can declare them."""

from collections.abc import Sequence
from typing import NamedTuple

from jalign.config.read import ConfigError

HELP = """usage: jalign pipeline FILE [--VALUE X] [--STAGE.OPTION X] [--LOOP.iterations N] ...

Run the stages of a YAML file one after another: jalign commands, of which later ones read what
earlier ones wrote. The same command resumes where it stopped. Exit codes are those of the stages.

  --VALUE X, --out DIR   instead of the file's value, or its out
  --STAGE.OPTION X       an option of a stage, in every iteration
  --LOOP.iterations N    the iterations of a loop
  --redo STAGE           delete the output of a stage and of all that need it, and run them again;
                         pass it once. In a loop: LOOP/ITERATION/STAGE
  --dry-run              print the commands"""


class PipelineOptions(NamedTuple):
    """The command line of `jalign pipeline`.

    Attributes:
      values: instead of the file's, `out` among them.
      overrides: stage or loop -> option -> text.
      redo: stages to run again.
    """

    file: str
    values: dict[str, str]
    overrides: dict[str, dict[str, str]]
    redo: list[str]
    dry_run: bool


def options_of(args: Sequence[str]) -> PipelineOptions:
    """Parse `FILE [--name value | --name=value] ...`; ConfigError for anything else."""
    words = list(args)
    if not words or words[0].startswith("-"):
        raise ConfigError("usage: jalign pipeline FILE [--name value ...]")
    # --dry-run is the one option without a value, so it is taken out first
    options = PipelineOptions(words.pop(0), {}, {}, [], "--dry-run" in words)
    words = [word for word in words if word != "--dry-run"]
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (equals or words):
            raise ConfigError(f"options are --name value or --name=value, got {word!r}")
        value = value if equals else words.pop(0)
        stage, dot, option = name.partition(".")
        if name == "redo":
            options.redo.append(value)
        elif dot:
            options.overrides.setdefault(stage, {})[option] = value
        else:
            options.values[name] = value
    return options
