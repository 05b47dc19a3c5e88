"""New prompts by a model that sees a few existing ones (self-instruct)."""

from collections.abc import Sequence

from jalign.data.journal import Made, Row, fingerprint
from jalign.feedback import common
from jalign.log.display import Display
from jalign.options import PromptsConfig
from jalign.rewards.label import text_of
from jalign.rewards.self_instruct import generate_prompts
from jalign.run import data as build_data
from jalign.signatures import check_options


def check(options: PromptsConfig) -> None:
    """Raise ValueError for an option that the generation of prompts does not have."""
    check_options(options.options, generate_prompts, ("seed", "temperature", "max_tokens"))


def prompts(options: PromptsConfig, display: Display | None = None) -> list[Row]:
    """Write `options.count` new prompts to `options.out`; returns them as rows.

    A killed call continues where it stopped when it is made again.

    Raises:
      ValueError: an option cannot apply, a row cannot be read, or no prompt came out.
    """
    check(options)
    display = display or Display()
    messages = build_data.prompts_of(common.rows_of(options), display.say)
    # The order is kept: which prompts are shown is drawn by position.
    seeds = list(dict.fromkeys(text for x in messages if (text := text_of(x).strip())))
    # Numbers, from which each draw follows: a resumed call repeats none.
    attempts = list(range(options.count * options.attempts))
    with common.loaded_judge(options.writer) as writer:

        def make(batch: Sequence[int], first: int, rows: list[Row]) -> list[Made]:
            del first
            return generate_prompts(
                writer,
                seeds,
                [row["prompt"] for row in rows],
                batch,
                seed=options.seed,
                temperature=options.temperature,
                max_tokens=options.max_tokens,
                **options.options,
            )

        # The shown prompts are no items, but a journal of other ones must be refused.
        facts = {"prompts to show": fingerprint(seeds)}
        rows = common.write(
            options,
            attempts,
            make,
            "prompts",
            display,
            judge=writer,
            facts=facts,
            most=options.count,
        )
    common.show_metrics(writer, display)
    return rows
