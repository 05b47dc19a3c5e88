"""`jalign init`: a starting config with usual values for the kind of run, and comments."""

import re
from pathlib import Path
from typing import Any

from jalign import about
from jalign.algorithms import get
from jalign.config.read import read_config
from jalign.core import Algorithm
from jalign.options.data import is_embedded
from jalign.options.init import InitConfig
from jalign.options.rates import usual
from jalign.rewards.rules import RULES
from jalign.user_code import absolute


def check(row: Algorithm, options: InitConfig) -> None:
    """Raise ValueError for a missing reward, or for one that the algorithm does not read."""
    judged = {"scores", "step_scores", "win_probs", "reward_parts"} & set(row.rollout_inputs())
    if bool(judged) != bool(options.reward):
        raise ValueError(
            f"{row.name} learns from rewards: give --reward, one of {', '.join(RULES)}, "
            "file.py:function, or the folder of a reward model"
            if judged
            else f"--reward does not apply: {row.name} learns from no rewards"
        )


def write_config(options: InitConfig) -> Path:
    """Write a commented config that can be run as it is; returns its file.

    Raises:
      ValueError: the file exists, the algorithm is unknown, or its reward is missing.
    """
    row = get(options.algorithm)
    file = Path(options.file or f"{row.name}.yaml")
    if file.exists():
        raise ValueError(f"{file} is there already: delete it, or name another file")
    check(row, options)
    text = config_text(row, options)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    try:
        # read back, so that a config that would be refused is never left behind
        read_config([str(file)])
    except ValueError:  # of this algorithm and these options, which the checks above cannot know
        file.unlink()
        raise
    return file


def config_text(row: Algorithm, options: InitConfig) -> str:
    """The YAML, with a comment on every line that a user may want to change."""
    # no adapters where the reference is an average of weights: factors cannot be averaged
    adapters = options.lora > 0 and options.model != "embedded" and not _averages_weights(row)
    rate, kind = usual(row, adapters=adapters)
    online, writes = row.experience is not None, not row.needs_value_head
    name = absolute(options.algorithm) if ":" in options.algorithm else row.name
    hyper = "".join(_hyper_line(*x) for x in about.hyperparameters(row).items() if x[1][0])
    # ref_mixup_alpha does nothing then, and a config that sets it is refused
    if not row.moves_reference():
        hyper = re.sub(r"\n  ref_mixup_alpha: .*", "", hyper)
    lines = [
        f"# {row.name} of {options.model}",
        f"# jalign train --help explains every key, jalign algorithms {row.name} the",
        "# hyper-parameters. Any key can be given on the command line: --optim.learning_rate 1e-5.",
        f"algorithm:\n  name: {name}{hyper}",
        f"out: runs/{row.name}   # metrics, TensorBoard, checkpoints",
        f"model:\n  path: {_quoted(options.model)}",
        adapters
        and f"  lora: {{rank: {options.lora}, alpha: {2 * options.lora}}}   # without this "
        "line every parameter is trained",
        options.teacher and f"  reference: {_quoted(options.teacher)}   # the teacher",
        "  # remat: full   # recomputes activations: less memory, a third more time",
        f"data:\n  train: {_quoted(options.data or 'embedded')}",
        (options.data and not is_embedded(options.data))
        and "  holdout: 0.05   # of the prompts, where there is no test split",
        "  max_prompt_len: 512   # tokens; jalign data shows how long they are",
        options.pretraining and f"  pretraining: {_quoted(options.pretraining)}",
        (options.pretraining or not online) and "  max_response_len: 512",
        online and _online(options.reward),
        f"optim:\n  learning_rate: {rate:.1e}   # usual for {kind}\n  schedule: cosine",
        "steps: 200" if online else "epochs: 1",
        "batch_size: 16   # per optimizer step; micro-batches are as large as fits",
        "log_every: 5\neval_every: 50   # optimizer steps",
        writes and "sample: {prompts: 8, max_new_tokens: 128}   # sampled before and after",
        "checkpoint: {every: 50, keep: 2}   # the same command resumes",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _hyper_line(name: str, value_and_meaning: tuple[Any, str]) -> str:
    value, meaning = value_and_meaning
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


def _averages_weights(row: Algorithm) -> bool:
    """Whether a reference is an average of weights; adapters cannot be averaged."""
    hyper = row.hyperparameters
    last = row.has_last() and hyper.get("last_mixup_alpha", 1) < 1
    return last or (row.moves_reference() and hyper["ref_mixup_alpha"] < 1)


def _quoted(text: str) -> str:
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
    return text if plain else f'"{text}"'
