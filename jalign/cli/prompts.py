"""`jalign prompts`: a model writes new prompts in sight of a few others (self-instruct)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from rich.console import Console

from jalign.config.read import ConfigError, read_as
from jalign.data.journal import Made, fingerprint
from jalign.feedback import common as feedback
from jalign.options import PromptsConfig
from jalign.parallel.mesh import make_mesh
from jalign.rewards.label import text_of
from jalign.rewards.self_instruct import invent
from jalign.run import data as build_data
from jalign.run.judge import judge_of


def read(args: Sequence[str]) -> PromptsConfig:
    """The checked options."""
    config = read_as(PromptsConfig, args, "prompts")
    try:
        ours = ("seed", "temperature", "max_tokens")
        feedback.check_options(config.options, invent, ours)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return config


def prompts(args: Sequence[str], console: Console) -> None:
    """Write new prompts that a model made up in sight of a few that are there."""
    config = read(args)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    found = build_data.prompts_of(feedback.rows_of(config), say)
    seeds = list(dict.fromkeys(text for prompt in found if (text := text_of(prompt).strip())))
    attempts = list(range(config.count * config.attempts))
    mesh = make_mesh(fsdp=-1)
    with jax.set_mesh(mesh):
        writer = judge_of(config.writer, mesh)

        def make(some: Sequence[int], first: int, so_far: list[Any]) -> list[Made]:
            del first
            return invent(
                writer,
                seeds,
                [row["prompt"] for row in so_far],
                some,
                seed=config.seed,
                temperature=config.temperature,
                max_tokens=config.max_tokens,
                **config.options,
            )

        facts = {"prompts to show": fingerprint(seeds)}
        feedback.write(config, attempts, make, "prompts", console, facts, writer, most=config.count)
    feedback.tell(writer, console)
