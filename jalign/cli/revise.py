"""`jalign revise`: responses become better ones by critique and revision (Constitutional AI)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from rich.console import Console

from jalign.config.read import ConfigError, read_as
from jalign.data.journal import Made
from jalign.feedback import common as feedback
from jalign.options import ReviseConfig
from jalign.parallel.mesh import make_mesh
from jalign.rewards.constitutional import Principle, Revision, principles
from jalign.rewards.constitutional import revise as revised
from jalign.rewards.label import candidates, text_of
from jalign.run.judge import judge_of


def read(args: Sequence[str]) -> ReviseConfig:
    """The checked options."""
    config = read_as(ReviseConfig, args, "revise")
    _principles(config)
    return config


def revise(args: Sequence[str], console: Console) -> None:
    """Write critiques and revisions of responses, one record to train on per revision."""
    config = read(args)
    records = [candidates(row) for row in feedback.rows_of(config)]
    items = [
        {"prompt": record.prompt, "response": response}
        for record in records
        for response in record.responses
    ]
    mesh = make_mesh(fsdp=-1)
    with jax.set_mesh(mesh):
        writer = judge_of(config.writer, mesh)
        improve = partial(
            revised,
            writer,
            by=_principles(config),
            rounds=config.rounds,
            seed=config.seed,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
        )

        def make(some: Sequence[dict[str, Any]], first: int, _: Any) -> list[Made]:
            del first
            prompts = [text_of(item["prompt"]) for item in some]
            found = improve(prompts, [text_of(item["response"]) for item in some])
            return [_made(config, item, each) for item, each in zip(some, found, strict=True)]

        feedback.write(config, items, make, "revised responses", console, judge=writer)
    feedback.tell(writer, console)


def _made(config: ReviseConfig, item: dict[str, Any], revisions: Sequence[Revision]) -> Made:
    """The rows of one response; `critique` and `principle` say how each came about."""
    response = text_of(item["response"])
    # what follows a prompt of plain text starts as the response did, with its space or line break
    start = response[: len(response) - len(response.lstrip())]
    rows = [
        {"prompt": item["prompt"], "completion": start + found.response}
        | {"round": number, "principle": found.principle, "critique": found.critique}
        for number, found in enumerate(revisions, 1)
    ]
    missing = config.rounds - len(revisions)
    kept = rows if config.keep == "all" else rows[-1:]
    return Made(kept, ["the writer gave no critique or no revision"] * bool(missing))


def _principles(config: ReviseConfig) -> list[Principle]:
    try:
        return principles(config.principles)
    except ValueError as error:
        raise ConfigError(str(error)) from error
