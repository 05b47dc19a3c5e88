"""`jalign init FILE --algorithm NAME --model M --data D`: a config to start from, with numbers that
are usual for this kind of run, and a comment beside those to be chosen.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign import about
from jalign.algorithms import get
from jalign.config.read import parsed, read_config
from jalign.core import Algorithm
from jalign.options.rates import usual
from jalign.rewards.rules import RULES
from jalign.user_code import absolute


def parser() -> ArgumentParser:
    """The options of `jalign init`."""
    result = ArgumentParser(
        prog="jalign init",
        description="Write a commented config for a model and data of one's own: jalign init "
        "mine.yaml --algorithm dpo --model HuggingFaceTB/SmolLM2-135M-Instruct --data pairs.jsonl",
        exit_on_error=False,
    )
    add = result.add_argument
    add("file", nargs="?", help="the config to write; ALGORITHM.yaml when not given")
    add("--algorithm", required=True, help="jalign algorithms lists them")
    add("--model", default="embedded", help="a Hugging Face folder or hub name, or embedded")
    add("--data", default=None, help="a file, folder or hub name; what is in the package if not")
    add(
        "--lora",
        type=int,
        default=16,
        help="rank of the adapters; 0 trains every parameter, as of the embedded model",
    )
    add(
        "--reward",
        default=None,
        help=f"of online algorithms: a rule ({', '.join(RULES)}), file.py:function, or the folder "
        "of a reward model",
    )
    add("--pretraining", default=None, help="texts that ppo_ptx keeps up the likelihood of")
    add("--teacher", default=None, help="of distillation: the model that is learnt from")
    return result


def init(args: Sequence[str], console: Console) -> None:
    """Write a config, if nothing is there yet."""
    options = parsed(parser(), args, lambda values: values)
    row = get(options.algorithm)
    file = Path(options.file or f"{row.name}.yaml")
    if file.exists():
        raise ValueError(f"{file} is there already: delete it, or name another file")
    judged = {"scores", "step_scores", "win_probs"} & set(row.rollout_inputs())
    if bool(judged) != bool(options.reward):
        raise ValueError(
            f"{row.name} learns from rewards: give --reward, one of {', '.join(RULES)}, "
            "file.py:function, or the folder of a reward model"
            if judged
            else f"--reward does not apply: {row.name} learns from no rewards"
        )
    text = written(row, options)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    try:
        read_config([str(file)])
    except ValueError:
        file.unlink()
        raise
    for line in (
        f"{file} is written. Next:",
        f"  jalign data {file}     # what the model will see",
        f"  jalign train {file} --steps 10 --out runs/first-look     # that everything fits",
        f"  jalign train {file}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def written(row: Algorithm, options: Any) -> str:
    """The text of the config."""
    adapters = options.lora > 0 and options.model != "embedded" and not _averages(row)
    rate, kind = usual(row, adapters=adapters)
    online, writes = row.experience is not None, not row.needs_value_head
    name = absolute(options.algorithm) if ":" in options.algorithm else row.name
    numbers = "".join(_number(*x) for x in about.hyperparameters(row).items() if x[1][0])
    if not row.moves_reference():
        numbers = re.sub(r"\n  ref_mixup_alpha: .*", "", numbers)
    lines = [
        f"# {row.name} of {options.model}",
        f"# jalign train --help says what every key means, jalign algorithms {row.name} what its",
        "# numbers do. Any key can be given on the command line: --optim.learning_rate 1e-5.",
        f"algorithm:\n  name: {name}{numbers}",
        f"out: runs/{row.name}   # metrics, TensorBoard, checkpoints",
        f"model:\n  path: {_quoted(options.model)}",
        adapters
        and f"  lora: {{rank: {options.lora}, alpha: {2 * options.lora}}}   # without this "
        "line every parameter is trained",
        options.teacher and f"  reference: {_quoted(options.teacher)}   # the teacher",
        "  # remat: full   # computes activations again: less memory, a third more time",
        f"data:\n  train: {_quoted(options.data or 'embedded')}",
        options.data and "  holdout: 0.05   # of the prompts, where there is no test split",
        "  max_prompt_len: 512   # tokens; jalign data shows how long they are",
        options.pretraining and f"  pretraining: {_quoted(options.pretraining)}",
        (options.pretraining or not online) and "  max_response_len: 512",
        online and _online(options.reward),
        f"optim:\n  learning_rate: {rate:.1e}   # usual for {kind}\n  schedule: cosine",
        "steps: 200" if online else "epochs: 1",
        "batch_size: 16   # per optimizer step; micro-batches are as large as fits",
        "log_every: 5\neval_every: 50   # optimizer steps",
        writes and "sample: {prompts: 8, max_new_tokens: 128}   # continued before and after",
        "checkpoint: {every: 50, keep: 2}   # the same command goes on where it was stopped",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _number(name: str, said: tuple[Any, str]) -> str:
    value, meaning = said
    return f"\n  {name}: {value}" + (f"   # {meaning}" if 0 < len(meaning) < 75 else "")


def _online(reward: str | None) -> str:
    text = (
        "rollout:\n  max_new_tokens: 256   # of a response\n  temperature: 1.0\n"
        "  # responses: 8   # per prompt; the algorithm's own number when not given\n"
    )
    if not reward:
        return text.rstrip("\n")
    rule = reward in RULES or ":" in reward
    given = f"functions: {{{_quoted(reward)}: 1.0}}" if rule else f"model: {_quoted(reward)}"
    return f"{text}reward:\n  {given}"


def _averages(row: Algorithm) -> bool:
    """Whether the reference is an average of weights, which adapters have none of."""
    return row.moves_reference() and row.hyperparameters["ref_mixup_alpha"] < 1


def _quoted(text: str) -> str:
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
    return text if plain else f'"{text}"'
