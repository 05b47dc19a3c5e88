"""Provenance of an exported model: `jalign.json` for programs, README.md for readers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jalign import __version__, store
from jalign.log import lines
from jalign.options import RunOptions

if TYPE_CHECKING:
    from jalign.checkpoint.manifest import Facts
    from jalign.data.rows import Row

FACTS = "jalign.json"
"""File in an exported or merged model's folder with its provenance."""


def facts_of(run: str, options: RunOptions, step: int) -> dict[str, object]:
    """Facts about a run's checkpoint, JSON-serializable."""
    saved = json.loads((store.as_path(run) / "config.json").read_text(encoding="utf-8"))
    hyper = saved["algorithm"]  # as saved: the algorithm may be unknown in this process
    if hyper["name"] == options.algorithm_name:
        hyper = options.algorithm.hyperparameters | hyper
    optim = options.optim
    return {
        "jalign": __version__,
        "run": run,
        "step": step,
        "algorithm": {"name": hyper["name"]} | dict(sorted(hyper.items())),
        "base_model": options.model.path,
        "reference": options.model.reference,
        "adapters": None if options.model.lora is None else vars(options.model.lora),
        "data": {"train": options.data.train, "eval": options.data.eval},
        "training": {
            "batch_size": options.batch_size,
            "optimizer": optim.name,
            "learning_rate": optim.learning_rate,
            "schedule": optim.schedule,
            "seed": options.seed,
        },
        "held_out": _before_and_after(run, step),
    }


def title_of(facts: Facts) -> str:
    """Title of a model card."""
    if "run" in facts:
        return f"{Path(facts['run']).name}, step {facts['step']}"
    return f"{Path(str(facts['base_model'])).name}, saved by jalign"


def write(folder: Path, facts: Facts, title: str, usage: str, library: str) -> None:
    """Write both files."""
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    text = f"{_front(facts, library)}\n# {title}\n\n{_body(facts)}\n## How to load it\n\n{usage}"
    (folder / "README.md").write_text(text, encoding="utf-8")


def read(name: str) -> Facts:
    """The facts stored with a model in a folder; {} if there are none."""
    file = Path(name) / FACTS
    try:
        facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    return facts if isinstance(facts, dict) else {}


def usage(folder: str, kind: str, chat: bool) -> str:
    """Example code that loads and runs a full model."""
    if kind == "language model":
        return _code(
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'folder = "{folder}"',
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            "model = AutoModelForCausalLM.from_pretrained(folder)",
            *(_ASK_CHAT if chat else _ASK_TEXT),
        )
    lines = [
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        f'folder = "{folder}"',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "model = AutoModelForSequenceClassification.from_pretrained(folder)",
    ]
    if kind != "reward model":
        return _code(*lines)
    return _code(*lines, *(_SCORE_CHAT if chat else _SCORE_TEXT)) + (
        "\nThe reward is read at the last token that is not padding, which must be the one that "
        "ends the response:\n"
        + ("the chat template leaves out what stood after it.\n" if chat else "the EOS.\n")
    )


def adapter_usage(folder: str, base: str, kind: str) -> str:
    """Example code that loads an adapter on its base."""
    auto = "AutoModelForCausalLM" if kind == "language model" else AUTO_SCORE
    more = "" if kind == "language model" else ", num_labels=1"
    lines = [
        "from peft import PeftModel",
        f"from transformers import {auto}, AutoTokenizer, GenerationConfig",
        "",
        f'folder = "{folder}"',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f'base = {auto}.from_pretrained("{base}"{more})',
        "model = PeftModel.from_pretrained(base, folder)",
    ]
    if kind == "language model":
        lines.append("model.generation_config = GenerationConfig.from_pretrained(folder)")
    return _code(*lines)


AUTO_SCORE = "AutoModelForSequenceClassification"
_ASK_CHAT = (
    'messages = [{"role": "user", "content": "Hello"}]',
    "inputs = tokenizer.apply_chat_template(",
    '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
    ")",
    "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))",
)
_ASK_TEXT = (
    'inputs = tokenizer("Once upon a time", return_tensors="pt")',
    "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))",
)
_SCORE_CHAT = (
    'messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}]',
    "inputs = tokenizer.apply_chat_template([messages], padding=True, "
    'return_tensors="pt", return_dict=True)',
    "print(model(**inputs).logits[:, 0])",
)
_SCORE_TEXT = (
    'texts = ["a prompt and its response" + tokenizer.eos_token]',
    'inputs = tokenizer(texts, padding=True, return_tensors="pt")',
    "print(model(**inputs).logits[:, 0])",
)


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```", ""])


def evaluations(run: str, step: int) -> list[Row]:
    """Evaluations that a run logged up to a step, oldest first."""
    rows = lines.read(store.as_path(run))
    return [row for row in rows if row["kind"] == "eval" and row["step"] <= step]


def _before_and_after(run: str, step: int) -> dict[str, dict[str, float]]:
    """Metric -> its values at the first and the last evaluation."""
    rows = evaluations(run, step)
    known = [name for name in (rows[-1] if rows else {}) if name not in ("step", "kind", "time")]
    metrics = {}
    for name in known:
        columns = {f"step {row['step']}": row.get(name) for row in (rows[0], rows[-1])}
        metrics[name] = columns
    return metrics


def _front(facts: Facts, library: str) -> str:
    """The YAML header for the hub; a local folder is not a valid base_model there."""
    lines = ["---", f"library_name: {library}"]
    base = str(facts["base_model"])
    # a relative path (runs/sft) looks like a hub name
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists():
        lines.append(f"base_model: {base}")
    method = facts.get("algorithm") or facts.get("merge")
    tags = ["- jalign"] + ([f"- {method['name']}"] if method else [])
    return "\n".join([*lines, "tags:", *tags, "---", ""])


def _body(facts: Facts) -> str:
    """All facts, as tables."""
    plain = {k: v for k, v in facts.items() if k != "held_out" and v is not None}
    lines = ["| | |", "| --- | --- |"]
    for name, value in plain.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {_shown(v)}" for k, v in value.items() if v is not None)
        lines.append(f"| {name.replace('_', ' ')} | {_shown(value)} |")
    held = facts.get("held_out") or {}
    if held:
        columns = list(dict.fromkeys(name for values in held.values() for name in values))
        lines += ["", "## Held-out metrics", "", f"| metric | {' | '.join(columns)} |"]
        lines.append("| --- |" + " ---: |" * len(columns))
        for name, values in held.items():
            cells = " | ".join(_shown(values.get(column)) for column in columns)
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
