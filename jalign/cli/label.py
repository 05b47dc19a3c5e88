"""`jalign label`: candidates, or pairs, become preference records by what a model says of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from rich.console import Console

from jalign.config.read import ConfigError, read_as
from jalign.data.journal import Made
from jalign.data.records import Record
from jalign.feedback import common as feedback
from jalign.options import LabelConfig
from jalign.parallel.mesh import make_mesh
from jalign.rewards import constitutional
from jalign.rewards import label as labels
from jalign.rewards.judge import Judge
from jalign.rewards.preference import BothOrders
from jalign.rewards.rating import Ratings, additive_ratings, direct_score
from jalign.rewards.rlaif import Comparison, labeler
from jalign.run.judge import judge_of

ASKED = {
    "preference": Comparison,
    "principles": constitutional.comparison,
    "score": direct_score,
    "points": additive_ratings,
}


BIASED = (
    "warning: judge/position_bias: in nearly all pairs the judge names the same slot whatever "
    "stands in it, so the labels say little of the responses; try another judge or wording"
)


def read(args: Sequence[str]) -> LabelConfig:
    """The checked options."""
    config = read_as(LabelConfig, args, "label")
    try:
        feedback.check_options(config.options, ASKED[config.ask], ("by",))
        if config.ask == "principles":
            constitutional.principles(config.principles)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return config


def label(args: Sequence[str], console: Console) -> None:
    """Write what a model says of responses as preference records."""
    config = read(args)
    records = [labels.candidates(row) for row in feedback.rows_of(config)]
    items = [{"prompt": record.prompt, "responses": record.responses} for record in records]
    mesh = make_mesh(fsdp=-1)
    with jax.set_mesh(mesh):
        judge = judge_of(config.judge, mesh)
        prefer = _prefer(config, judge)
        judged: Callable[[Sequence[Record]], list[Made]] = (
            partial(labels.preferences, prefer)
            if prefer
            else partial(labels.ratings, _rate(config, judge))
        )

        def make(some: Sequence[Any], first: int, _: Any) -> list[Made]:
            return judged(records[first : first + len(some)])

        what = "pairs" if prefer else "rated lists"
        feedback.write(config, items, make, what, console, judge=judge)
    feedback.tell(judge, console, prefer.metrics() if prefer else None)
    if prefer and prefer.biased:
        console.print(BIASED, markup=False, highlight=False, soft_wrap=True)


def _prefer(config: LabelConfig, judge: Judge) -> BothOrders | None:
    """What is asked about two responses, if that is what is asked."""
    if config.ask == "preference":
        return labeler(judge, **config.options)
    if config.ask == "principles":
        by = constitutional.principles(config.principles)
        return constitutional.feedback(judge, by=by, **config.options)
    return None


def _rate(config: LabelConfig, judge: Judge) -> labels.Rate:
    """What is asked about one response."""
    if config.ask == "points":
        return partial(additive_ratings, judge, **config.options)

    def rate(prompts: Sequence[str], responses: Sequence[str]) -> Ratings:
        return Ratings(direct_score(judge, prompts, responses, **config.options), 0)

    return rate
