"""Critiques and revisions of responses by principles (Constitutional AI)."""

from collections.abc import Sequence
from functools import partial

from jalign.data.journal import Made, Row
from jalign.feedback import common
from jalign.log.display import Display
from jalign.options import ReviseConfig
from jalign.rewards.constitutional import Revision, principles
from jalign.rewards.constitutional import revise as revisions_of
from jalign.rewards.label import candidates, text_of


def check(options: ReviseConfig) -> None:
    """Raise ValueError where the principles cannot be read."""
    principles(options.principles)


def revise(options: ReviseConfig, display: Display | None = None) -> list[Row]:
    """Write one training row per revision to `options.out`; returns them.

    A killed call continues where it stopped when it is made again.

    Raises:
      ValueError: principles or a row cannot be read, or no row came out.
    """
    display = display or Display()
    by = principles(options.principles)
    records = [candidates(row) for row in common.rows_of(options)]
    items = [
        # An item per response: a batch is then a fixed number of requests.
        {"prompt": record.prompt, "response": response}
        for record in records
        for response in record.responses
    ]
    with common.loaded_judge(options.writer) as writer:
        improve = partial(
            revisions_of,
            writer,
            by=by,
            rounds=options.rounds,
            seed=options.seed,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
        )

        def make(batch: Sequence[Row], first: int, _: list[Row]) -> list[Made]:
            del first
            prompts = [text_of(item["prompt"]) for item in batch]
            revisions = improve(prompts, [text_of(item["response"]) for item in batch])
            return [_rows_of(options, x, r) for x, r in zip(batch, revisions, strict=True)]

        what = "revised responses"
        rows = common.write(options, items, make, what, display, judge=writer)
    common.show_metrics(writer, display)
    return rows


def _rows_of(options: ReviseConfig, item: Row, revisions: Sequence[Revision]) -> Made:
    """A row per revision of one response, with the critique and the principle behind it."""
    response = text_of(item["response"])
    # A continuation of plain text must keep the space or line break that the response began with,
    # which the writer does not repeat.
    start = response[: len(response) - len(response.lstrip())]
    rows = [
        {"prompt": item["prompt"], "completion": start + revision.response}
        | {"round": number, "principle": revision.principle, "critique": revision.critique}
        for number, revision in enumerate(revisions, 1)
    ]
    missing = options.rounds - len(revisions)
    kept = rows if options.keep == "all" else rows[-1:]
    return Made(kept, ["the writer gave no critique or no revision"] * bool(missing))
