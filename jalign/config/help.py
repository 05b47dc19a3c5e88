"""Help of commands that take a config: usage, examples, and every key by section, with adapters and
the algorithm's hyper-parameters.
"""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser

from jalign.about import hyperparameters
from jalign.algorithms import ALGORITHMS, get
from jalign.core import did_you_mean
from jalign.options import LoraConfig, MergingConfig

WIDTH = 80  # columns
# null unless one of their keys is given
_OPTIONAL_SECTIONS = {"model.lora": LoraConfig, "optim.merging": MergingConfig}
_TOP = "run"  # keys without a section
_MINE = "jalign init mine.yaml --algorithm dpo --model MODEL --data pairs.jsonl"

_HEADS = {
    "train": (
        "jalign train [CONFIG] [--section.key VALUE ...]",
        "Train by a config file, by options, or by both: options override the file.",
        [
            "jalign train quickstart                 # a config that ships with jalign",
            "jalign train --algorithm dpo            # on the model and data in the package",
            _MINE,
            "jalign train mine.yaml --algorithm.beta 0.3 --model.lora.rank 16 --steps 200",
            "jalign train --help optim               # one section",
            "jalign train --algorithm simpo --help   # with the hyper-parameters of simpo",
        ],
    ),
    "eval": (
        "jalign eval RUN [RUN ...] [--step STEP|best] [--data.eval FILE] [--json]\n"
        "       jalign eval [CONFIG] [--section.key VALUE ...]",
        "Held-out metrics of the newest (or a given) checkpoint of runs, side by side with those\n"
        "before training; or of the model that a config starts from. A run keeps its own config,\n"
        "except --data.*, --batch_size, --mesh.*, --reward.*, --rollout.* and --model.reference.",
        [
            "jalign eval runs/quickstart             # the newest checkpoint",
            "jalign eval runs/a runs/b --step best --data.eval others.jsonl",
            "jalign eval mine.yaml                   # the model before it is trained",
        ],
    ),
    "plan": (
        "jalign plan [CONFIG] --target NAME [--suggest] [--section.key VALUE ...]",
        "Whether a run fits a TPU slice or GPU that is not here, and how fast it can be.",
        [
            "jalign plan dpo/llama3_8b_lora_v5e8 --target v5e-8",
            "jalign plan mine.yaml --target 8xh100 --suggest --json report.json",
        ],
    ),
    "data": (
        "jalign data [CONFIG] [--section.key VALUE ...] [--to KIND --out FILE]",
        "Show the data as the model will see them: counts, lengths, drops, examples with scored\n"
        "tokens colored, batches. With --to write them as another kind of data.",
        [
            "jalign data mine.yaml",
            "jalign data --algorithm dpo --data.train pairs.jsonl",
            "jalign data mine.yaml --to kto --out labels.jsonl.gz",
        ],
    ),
    "label": (
        "jalign label --file FILE --out FILE [--key VALUE ...]",
        "Preference labels by a language model, in this process or behind a server.",
        [
            "jalign label --file pairs.jsonl --judge.model embedded --out labels.jsonl",
            "jalign label --file pairs.jsonl --judge.server URL --judge.model NAME --out l.jsonl",
        ],
    ),
    "revise": (
        "jalign revise --file FILE --out FILE [--key VALUE ...]",
        "Critiques and revisions of responses by principles (Constitutional AI).",
        ["jalign revise --file pairs.jsonl --writer.model embedded --out revised.jsonl"],
    ),
    "prompts": (
        "jalign prompts --file FILE --count N --out FILE [--key VALUE ...]",
        "New prompts from few-shot examples (self-instruct).",
        ["jalign prompts --file embedded --writer.model embedded --count 100 --out new.jsonl"],
    ),
}


class _Key(NamedTuple):
    name: str
    choices: str  # of values, if there are few
    default: Any
    help: str
    required: bool = False


def wanted(args: Sequence[str]) -> bool:
    """Whether the arguments ask for help."""
    return bool({"-h", "--help"} & set(args))


def text(options: ArgumentParser, args: Sequence[str], algorithm: str | None) -> str:
    """The help of all sections, or of the one named after --help.

    Raises:
      ValueError: no such section, or no such algorithm.
    """
    command = options.prog.split()[1]
    sections = _sections(options)
    words = [word for word in args if word not in ("-h", "--help")]
    at = next(i for i, word in enumerate(args) if word in ("-h", "--help"))
    only = args[at + 1] if at + 1 < len(args) and not args[at + 1].startswith("-") else None
    if only and words:
        if only not in sections:
            raise ValueError(f"no section {only!r}{did_you_mean(only, sections)}")
        return "\n".join(_section(only, sections[only]))
    usage, what, examples = _HEADS[command]
    lines = [f"usage: {usage}", "", what, "", "examples:"]
    names = ", ".join(sections)
    lines += [f"  {line}" for line in examples]
    lines += ["", *textwrap.wrap(f"sections (--help NAME shows one): {names}", WIDTH)]
    lines += ["keys, each with its default:"]
    lines += _section(_TOP, sections.pop(_TOP, []))
    if any(a.dest == "algorithm" for a in options._actions):
        lines += _algorithm(algorithm)
        sections.pop("algorithm", None)
    for name, keys in sections.items():
        lines += _section(name, keys)
    return "\n".join(lines)


def _sections(options: ArgumentParser) -> dict[str, list[_Key]]:
    sections: dict[str, list[_Key]] = {}
    for key in _keys(options, ""):
        section = key.name.split(".")[0] if "." in key.name else _TOP
        sections.setdefault(section, []).append(key)
    return sections


def _keys(options: ArgumentParser, before: str) -> Iterator[_Key]:
    for action in options._actions:
        name = action.dest
        if name.endswith((".help", "_help")) or name in (
            "help",
            "config",
            "print_config",
            "algorithm",
        ):
            continue
        # by name, since the class is private to jsonargparse
        if type(action).__name__ == "_ActionConfigLoad":  # a whole section
            continue
        if name in _OPTIONAL_SECTIONS:
            yield _Key(name, "", None, f"{action.help} Any key of it is enough")
            # a section that may be null is one option to jsonargparse, without its keys
            inside = ArgumentParser()
            inside.add_class_arguments(_OPTIONAL_SECTIONS[name])
            yield from _keys(inside, f"{name}.")
            continue
        choices = action.metavar if str(action.metavar).startswith("{") else ""
        default = None if action.default == "==SUPPRESS==" else action.default
        yield _Key(before + name, str(choices), default, action.help or "", action.required)


def _section(name: str, keys: Sequence[_Key]) -> list[str]:
    lines = ["", f"{name}:"]
    for key in keys:
        value = "required" if key.required else _shown(key.default)
        lines.append(f"  --{key.name} {key.choices or value}".rstrip())
        default = f" ({value})" if key.choices and not key.required else ""
        lines += _wrapped(key.help.rstrip(".") + default)
    return lines


def _algorithm(name: str | None) -> list[str]:
    lines = ["", "algorithm:", "  --algorithm.name NAME, or --algorithm NAME"]
    lines += _wrapped(
        f"one of {len(ALGORITHMS)} (jalign algorithms lists them), or your own as file.py:row or "
        "package.module:row. Another name than the config's starts from its own defaults"
    )
    if name is None:
        lines.append("  --algorithm.NAME VALUE, such as --algorithm.beta 0.1")
        return lines + _wrapped(
            "a hyper-parameter: jalign algorithms NAME, or jalign train --algorithm NAME --help "
            "lists them"
        )
    for key, (default, meaning) in hyperparameters(get(name)).items():
        lines.append(f"  --algorithm.{key} {_shown(default)}")
        lines += _wrapped(meaning.rstrip("."))
    return lines


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wrapped(text: str) -> list[str]:
    indent = " " * 6
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
