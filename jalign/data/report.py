"""Data report for the terminal: counts, lengths, drops, and a few examples in color."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from jalign.data.examples import Example, Examples, Report

STYLES = {"prompt": "dim", "scored": "green", "unscored": "yellow"}
SPECIAL = " reverse"
BINS, BAR = 10, 40


def render(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, console: Console, n: int = 3
) -> None:
    """Prints the report, histograms of lengths, and n examples spread evenly over the data."""
    console.print(_counts(examples.report))
    if examples.report.annotators:
        console.print(annotators(examples))
    lengths = examples.lengths
    console.print(_histogram("prompt tokens", lengths.prompt_len))
    present = lengths.response_lens > 0
    if present.any():
        console.print(_histogram("response tokens", lengths.response_lens[present]))
        if (lengths.scored_lens != lengths.response_lens).any():
            console.print(_histogram("scored tokens", lengths.scored_lens[present]))
    if len(examples) and n > 0:
        legend = Text("colors: ", style="bold")
        for name, style in STYLES.items():
            legend.append(f"{name} ", style)
        console.print(legend.append("special token", SPECIAL))
    for i in np.unique(np.linspace(0, len(examples) - 1, min(n, len(examples))).astype(int)):
        example, title = examples[i], f"example {i}"
        row = int(example.extras.get("row", i))
        if (place := examples.report.locations[row]) != f"row {row}":
            rest = {name: value for name, value in example.extras.items() if name != "row"}
            example, title = example._replace(extras=rest), f"{title}, {place}"
        console.print(example_text(example, tokenizer, title, examples.report.kind))


def sentences(report: Report) -> list[str]:
    """All counts of a report, one line each; zeros are left out except for rows."""
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in report.dropped.items()) or "none"
    lines = [
        report.explanation or report.kind,
        f"{report.kept:,} of {report.read:,} rows kept, dropped: {dropped}",
        _line(
            "tokens",
            {
                "of prompts": report.prompt_tokens,
                "of responses": report.response_tokens,
                "scored": report.scored_tokens,
                "the longest prompt": report.longest_prompt,
                "the longest response": report.longest_response,
            },
        ),
        _line(
            "cut",
            {
                "prompts": report.truncated_prompts,
                "responses": report.truncated_responses,
                "scored tokens lost": report.lost_tokens,
                "turns or steps lost": report.lost_turns,
            },
        ),
        f"labels inverted on purpose: {report.flipped:,}" * bool(report.flipped),
        f"sources: {', '.join(report.sources)}" * bool(report.sources),
        f"attributes: {', '.join(report.attributes)}" * bool(report.attributes),
        f"annotators: {len(report.annotators):,}" * bool(report.annotators),
        *(f"warning: {warning}" for warning in report.warnings),
    ]
    return [line for line in lines if line]


def _line(title: str, counts: dict[str, int]) -> str:
    counted = [f"{n:,} {what}" for what, n in counts.items() if n]
    return f"{title}: {', '.join(counted)}" if counted else ""


def example_text(
    example: Example, tokenizer: PreTrainedTokenizerBase, title: str = "", kind: str = ""
) -> Text:
    """One example: prompt dim, scored green, not scored yellow, special tokens reversed.

    Args:
      kind: of the record, which has names for its responses: chosen and rejected of a pair.
    """
    text = Text()
    extras = ", ".join(f"{k} {np.array2string(np.asarray(v))}" for k, v in example.extras.items())
    text.append(f"\n{title} ({extras})\n" if extras else f"\n{title}\n", "bold")
    _append(text, example.prompt, ["prompt"] * len(example.prompt), tokenizer)
    names = _response_names(kind, example)
    for name, ids, mask in zip(names, example.responses, example.scored, strict=True):
        text.append(f"\n-- {name}, {len(ids)} tokens, {int(mask.sum())} scored\n", "bold")
        _append(text, ids, ["scored" if m else "unscored" for m in mask], tokenizer)
    return text


def _response_names(kind: str, example: Example) -> list[str]:
    k = len(example.responses)
    if kind in ("pairs", "joint") and k == 2:
        return ["chosen", "rejected"]
    if kind == "binary" and "label" in example.extras:
        return ["desirable" if example.extras["label"] > 0 else "undesirable"] * k
    return ["response"] if k == 1 else [f"response {i}" for i in range(k)]


def _append(
    text: Text, ids: np.ndarray, kinds: list[str], tokenizer: PreTrainedTokenizerBase
) -> None:
    special = set(tokenizer.all_special_ids)
    for run, kind, is_special in _runs(ids, kinds, special):
        if is_special:
            names = "".join(cast("list[str]", tokenizer.convert_ids_to_tokens(run)))
            text.append(names, STYLES[kind] + SPECIAL)
        else:
            # Runs, not single tokens, are decoded: a character may be spread over several tokens.
            words = tokenizer.decode(run, clean_up_tokenization_spaces=False)
            text.append(cast(str, words), STYLES[kind])


def _runs(
    ids: np.ndarray, kinds: list[str], special: set[int]
) -> Iterator[tuple[list[int], str, bool]]:
    """Neighbors of one kind, special tokens apart from others."""
    run: list[int] = []
    key: tuple[str, bool] = ("", False)
    for token, kind in zip(ids.tolist(), kinds, strict=True):
        if run and key != (kind, token in special):
            yield run, key[0], key[1]
            run = []
        key = (kind, token in special)
        run.append(token)
    if run:
        yield run, key[0], key[1]


def _counts(report: Report) -> Table:
    table = Table(title="data", show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "recognized as": report.explanation or report.kind,
        "rows read": report.read,
        "examples kept": report.kept,
        **{f"dropped: {reason}": count for reason, count in sorted(report.dropped.items())},
        "prompts cut": report.truncated_prompts,
        "responses cut": report.truncated_responses,
        "prompt tokens": report.prompt_tokens,
        "response tokens": report.response_tokens,
        "scored tokens": report.scored_tokens,
    }
    if report.flipped:
        rows["labels inverted on purpose"] = report.flipped
    if report.sources:
        rows["sources"] = ", ".join(report.sources)
    if report.attributes:
        rows["attributes"] = ", ".join(report.attributes)
    if report.warnings:
        rows["warnings"] = "\n".join(report.warnings)
    for name, value in rows.items():
        if value != "":
            table.add_row(name, f"{value:,}" if isinstance(value, int) else value)
    return table


def annotators(examples: Examples, most: int = 20) -> Table:
    """How many examples each annotator labeled, the busiest first."""
    names = examples.report.annotators
    counts = np.bincount(np.asarray(examples.extras["annotator"]), minlength=len(names))
    table = Table("annotator", "examples", title=f"{len(names):,} annotators", title_justify="left")
    for i in np.argsort(-counts, kind="stable")[:most]:
        table.add_row(Text(names[i]), f"{counts[i]:,}")
    if len(names) > most:
        table.add_row(f"{len(names) - most:,} others", f"{np.sort(counts)[:-most].sum():,}")
    return table


def _histogram(title: str, lengths: np.ndarray) -> Table:
    """Counts in bins of equal width, as bars, under median, 95th percentile and maximum."""
    p50, p95, top = (int(np.quantile(lengths, q)) if len(lengths) else 0 for q in (0.5, 0.95, 1.0))
    table = Table(
        title=f"{title}: median {p50}, 95% {p95}, max {top}",
        box=None,
        show_header=False,
        title_justify="left",
    )
    if not len(lengths):
        return table
    width = -(-(top + 1) // BINS)
    counts = np.bincount(lengths // width)
    for i, count in enumerate(counts):
        bar = "#" * int(np.ceil(BAR * count / counts.max()))
        table.add_row(f"{i * width}-{(i + 1) * width - 1}", bar, f"{count:,}")
    return table
