"""Preference labels by a judge: candidates, or pairs, become preference records (AI feedback)."""

from collections.abc import Callable, Sequence
from functools import partial

from jalign.data.journal import Made, Row
from jalign.data.records import Record
from jalign.feedback import common
from jalign.log.display import Display
from jalign.options import LabelConfig
from jalign.rewards import constitutional
from jalign.rewards import label as labels
from jalign.rewards.judge import Judge
from jalign.rewards.preference import BothOrders
from jalign.rewards.rating import Ratings, additive_ratings, direct_score
from jalign.rewards.rlaif import Comparison, labeler
from jalign.rewards.rubric import Rubric
from jalign.signatures import check_options

ASK_FUNCTIONS: dict[str, Callable] = {
    "preference": Comparison,
    "principles": constitutional.comparison,
    "score": direct_score,
    "points": additive_ratings,
    "rubric": Rubric,
}
"""`ask` -> the function whose keyword arguments are the allowed `options`."""

BIASED = (
    "warning: judge/position_bias: in nearly all pairs the judge picks the same slot whatever the "
    "responses, so the labels carry little information; try another judge or wording"
)


def check(options: LabelConfig) -> None:
    """Raise ValueError for an unknown option of the question, or principles that cannot be read."""
    check_options(options.options, ASK_FUNCTIONS[options.ask], ("by",))
    if options.ask == "principles":
        constitutional.principles(options.principles)


def label(options: LabelConfig, display: Display | None = None) -> list[Row]:
    """Write pairs (or rated lists) to `options.out`; returns them.

    A killed call continues where it stopped when it is made again.

    Raises:
      ValueError: an option cannot apply, a row cannot be read, or no row came out.
    """
    check(options)
    display = display or Display()
    # Rows are parsed before the judge loads, which takes much longer.
    records = [labels.candidates(row) for row in common.rows_of(options)]
    # Only what the judge reads: other columns may change between two tries.
    items = [{"prompt": record.prompt, "responses": record.responses} for record in records]
    with common.loaded_judge(options.judge) as judge:
        prefer = _prefer_function(options, judge)
        judged: Callable[[Sequence[Record]], list[Made]] = (
            partial(labels.preferences, prefer)
            if prefer
            else partial(labels.ratings, _rate_function(options, judge))
        )

        def make(batch: Sequence[Row], first: int, _: list[Row]) -> list[Made]:
            return judged(records[first : first + len(batch)])

        what = "pairs" if prefer else "rated lists"
        rows = common.write(options, items, make, what, display, judge=judge)
    common.show_metrics(judge, display, prefer.metrics() if prefer else None)
    if prefer and prefer.biased:
        display.say(BIASED)
    return rows


def _prefer_function(options: LabelConfig, judge: Judge) -> BothOrders | None:
    """The question about two responses; None where the question is about one."""
    if options.ask == "preference":
        return labeler(judge, **options.options)
    if options.ask == "principles":
        by = constitutional.principles(options.principles)
        return constitutional.feedback(judge, by=by, **options.options)
    return None


def _rate_function(options: LabelConfig, judge: Judge) -> labels.Rate:
    if options.ask == "points":
        return partial(additive_ratings, judge, **options.options)

    if options.ask == "rubric":
        rubric = Rubric(judge, **options.options)
        return lambda prompts, responses: Ratings(rubric(prompts, responses), 0)

    def rate(prompts: Sequence[str], responses: Sequence[str]) -> Ratings:
        return Ratings(direct_score(judge, prompts, responses, **options.options), 0)

    return rate
