"""The prompts of a teacher: those of the run with a column of the data written into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jax.sharding import Mesh

from jalign.core import did_you_mean
from jalign.data.examples import Examples
from jalign.data.records import Message
from jalign.kernels.compiler_options import compiler_options
from jalign.options import RunOptions
from jalign.options.rollout import column_of
from jalign.rewards.label import text_of
from jalign.run.data import tokenize_prompts
from jalign.run.limits import check_part
from jalign.run.prompts import PromptTable
from jalign.run.roles import Roles
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.rollout_spec import RolloutSpec
from jalign.train.scoring import ResponseScorer
from jalign.train.teacher import Teacher


def teacher_of(
    options: RunOptions, model: Roles, table: PromptTable, mesh: Mesh, spec: RolloutSpec
) -> Teacher | None:
    """The teacher of a row that reads `teacher_token_logps`.

    Raises:
      ValueError: a prompt without the column that the teacher reads, or too long for the model.
    """
    if "teacher_token_logps" not in options.algorithm.rollout_inputs():
        return None
    prompts = teacher_prompts(options, table)
    # a packer of its own: shapes of the policy's prompts have no room for demonstrations
    longest = int(prompts.lengths.prompt_len.max())
    packer = MicroBatchPacker(mesh, longest, spec.response_len, spec.max_tokens, spec.multiple)
    xla_options = compiler_options(model.decoder.dtype)
    return Teacher(prompts, ResponseScorer(model.apply, spec.temperature, packer, xla_options))


def teacher_prompts(options: RunOptions, table: PromptTable) -> Examples:
    """What the teacher reads, by the index of the prompt; errors as in `teacher_of`."""
    assert options.algorithm.experience is not None
    template = options.rollout.teacher_prompt or options.algorithm.experience.teacher_prompt
    column = column_of(template)
    rows = [
        {"prompt": _written(template, column, table[i].messages, _value(options, table, i, column))}
        for i in range(len(table))
    ]
    # nothing is cut: the front would be the task, the end what the teacher is for
    uncut = replace(options.data, max_prompt_len=1 << 30, over_long="error")
    examples = tokenize_prompts(rows, "prompts", uncut, table.tokenizer)
    sampled = options.rollout.max_new_tokens
    check_part(options, table.tokenizer, examples, "the teacher's prompts", sampled)
    return examples


def _value(options: RunOptions, table: PromptTable, i: int, column: str) -> str:
    """The text of the column in the row of prompt i."""
    value = table[i].row.get(column)
    # a conversational data set has a list of messages there
    text = value if isinstance(value, str) else text_of(value) if value else ""
    if text.strip():
        return text
    names = [name for name in table.names if name != "prompt"]
    lacking = "is empty in" if column in table.names else "is missing from"
    raise ValueError(
        f"{options.algorithm.name}: the column {column!r}, which the teacher reads, {lacking} the "
        f"data (row {i + 1}){did_you_mean(column, names)}; name another one by "
        f"data.columns: {{{column}: NAME}}"
    )


def _written(
    template: str, column: str, prompt: str | list[Message], value: str
) -> str | list[Mapping[str, Any]]:
    """The template with prompt and column; of a chat the last message is the prompt."""
    if isinstance(prompt, str):
        return template.format_map({"prompt": prompt, column: value})
    # the system's words and earlier turns stay what they are
    *before, last = prompt
    content = template.format_map({"prompt": last["content"], column: value})
    return [*before, {**last, "content": content}]
