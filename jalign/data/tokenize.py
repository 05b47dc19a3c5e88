"""Tokenize records: one BOS, an EOS at the end of responses, no token across a border.

Rules, each of which has a test:

* The prompt starts with exactly one BOS: for text if the tokenizer adds one by default, for a chat
  if its template writes one, as at inference.
* The EOS belongs to the response and is scored. It is the template's end-of-turn token where it has
  one, else the tokenizer's EOS. The pad token is never used.
* Prompt and response are tokenized separately, as at inference; their ids equal those of the
  joined text (`jalign.data.encoder`).
* Prompts are cut at the front (the BOS stays), responses at the end; a cut response has no EOS.
* A text without a prompt is a response to [BOS]; without a BOS its first token is not scored.
* The answer of a joint record is one token without an EOS, and its prompt is never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from transformers import PreTrainedTokenizerBase

from jalign.data.chat import TURNS, Template, ends_of
from jalign.data.drafts import Draft, chat_warnings, draft_of, is_chat
from jalign.data.encoder import NEARBY, Encoder
from jalign.data.examples import Example, Examples, Report
from jalign.data.kinds import ANNOTATOR
from jalign.data.limits import Limits, Tokens, check_choice, cut_warnings, fit
from jalign.data.parsing import RowError
from jalign.data.records import Record

LOSS_ON = ("response", "all")
CHUNK = 2000  # records per call: enough to use all cores, small compared to the data


def tokenize(
    records: Iterable[Record],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_len: int | None = None,
    max_prompt_len: int | None = None,
    max_response_len: int | None = None,
    over_long: str = "truncate",
    keep_eos: bool = False,
    loss_on: str = "response",
    loss_turns: str = "last",
    template: str | None = None,
    bad_rows: str = "error",
    report: Report | None = None,
) -> Examples:
    """Token ids and masks of all usable records; the report counts the dropped ones.

    Extras of an example: those of its record as float32, `row` (number of the row, int32),
    `annotator` (place in `report.annotators`, int32) where there is one and, in a mixture, `source`
    (place in `report.sources`, int32). In stepwise examples only the last token
    of each step is scored, so that `step_labels` [steps] line up with the scored tokens.

    Args:
      max_len: most tokens of a prompt with its longest response. The prompt is cut first, but not
        below half of it; then the responses.
      max_prompt_len: most tokens of a prompt, the BOS included.
      max_response_len: most tokens of a response, the EOS included.
      over_long: what happens to a record over a limit: "truncate", "drop" (and count) or "error".
        A joint record is dropped where others are truncated.
      keep_eos: a response that is cut keeps its EOS as its last token, as if it ended there; False:
        it ends where it was cut, and no end is learned. Steps and prompts have no EOS.
      loss_on: "response", or "all": the prompt is scored too (one response per prompt only).
      loss_turns: which assistant turns of messages are scored: "last" or "all". With one response
        per record the prompt is everything before the first scored turn.
      template: chat template by name or .jinja file; None: the tokenizer's own. Text refuses it.
      bad_rows: a record that the template refuses is an "error", or "drop": left out and counted.
      report: of `to_records`, to be continued; None: a new one.

    Raises:
      ValueError: an option out of range, a tokenizer without EOS, messages without a template, an
        extra that some records have and others lack, or joint records with a tokenizer to which
        the answers are not one token each.
    """
    limits = Limits(max_len, max_prompt_len, max_response_len, over_long, keep_eos)
    check_choice("loss_on", loss_on, LOSS_ON)
    check_choice("loss_turns", loss_turns, TURNS)
    records = list(records)
    report = report or Report(read=len(records))
    encoder = Encoder(tokenizer)
    chat, ends = _template(records, tokenizer, template), ends_of(tokenizer)
    if loss_turns != "last" and chat is None and records:
        raise ValueError(f"loss_turns {loss_turns!r} cannot apply: the data is text, not messages")
    names = _extra_names(records)
    if loss_on == "all" and ("step_labels" in names or any(len(r.responses) != 1 for r in records)):
        raise ValueError('loss_on "all" is for supervised data: one response per prompt, no steps')

    def examples() -> Iterator[Example]:
        for start in range(0, len(records), CHUNK):
            drafts: list[Draft] = []
            for record in records[start : start + CHUNK]:
                try:
                    drafts.append(draft_of(record, chat, loss_turns, encoder, ends))
                except RowError as error:
                    if bad_rows != "drop":
                        raise
                    report.drop(error.reason)
            for draft, prompt, responses in _encode(drafts, encoder):
                if (fitted := fit(draft, prompt, responses, limits, report)) is None:
                    continue
                prompt, responses = fitted
                if loss_on == "all":
                    prompt, responses = _prompt_scored(prompt, responses, draft.bos)
                yield Example(
                    np.asarray(prompt, np.int32),
                    tuple(np.asarray(ids, np.int32) for ids, _ in responses),
                    tuple(np.asarray(mask, bool) for _, mask in responses),
                    _extras(draft.record, names, responses, report),
                )

    out = Examples.from_list(examples(), report)
    lengths = out.lengths
    report.kept = len(out)
    report.prompt_tokens = int(lengths.prompt_len.sum())
    report.response_tokens = int(lengths.response_lens.sum())
    report.scored_tokens = int(lengths.scored_lens.sum())
    report.warnings += chat_warnings(records, chat, encoder) if chat else []
    report.warnings += cut_warnings(report, limits, int((lengths.response_lens > 0).sum()))
    return out


def _template(
    records: list[Record], tokenizer: PreTrainedTokenizerBase, template: str | None
) -> Template | None:
    conversational = any(is_chat(r) for r in records)
    if template is not None and not conversational and records:
        raise ValueError(f"template {template!r} cannot apply: the data is text, not messages")
    return Template.of(tokenizer, template) if conversational else None


def _encode(
    drafts: list[Draft], encoder: Encoder
) -> Iterator[tuple[Draft, list[int], list[Tokens]]]:
    """Ids of each draft: the prompt with its BOS, and each response with its mask."""
    starts, rests, before = [], [], []
    for d in drafts:
        starts.append(d.prompt_text)
        for segments in d.segments:
            place = d.prompt_text[-NEARBY:]
            for text, _ in segments:
                if place:
                    rests.append(text)
                    before.append(place)
                else:
                    starts.append(text)
                place = (place + text)[-NEARBY:]
    # Two calls per chunk: a fast tokenizer spreads a list over the cores, not single texts.
    start_ids = iter(encoder.starts(starts))
    rest_ids = iter(encoder.continuations(rests, before))
    for d in drafts:
        prompt = next(start_ids)
        # The template may have written it: never a second BOS.
        if d.bos is not None and prompt[:1] != [d.bos]:
            prompt = [d.bos, *prompt]
        responses = []
        for segments in d.segments:
            ids: list[int] = []
            mask: list[bool] = []
            for k, (_, scored) in enumerate(segments):
                new = next(start_ids if k == 0 and not d.prompt_text else rest_ids)
                ids += new
                # A step is judged at its last token.
                before_last = scored and d.eos is not None
                mask += [before_last] * (len(new) - 1) + [scored] * bool(new)
            if d.eos is not None and ids and ids[-1] not in d.ends:
                ids, mask = [*ids, d.eos], [*mask, mask[-1]]
            if not prompt and mask:
                mask[0] = False  # no token before it could predict it
            responses.append((ids, mask))
        yield d, prompt, responses


def _prompt_scored(
    prompt: list[int], responses: list[Tokens], bos: int | None
) -> tuple[list[int], list[Tokens]]:
    """The tokens of a prompt moved to the front of its response, where they are scored."""
    # The BOS remains the prompt, as nothing before it could predict it.
    head = prompt[:1] if prompt[:1] == [bos] else []
    ids = prompt[len(head) :] + responses[0][0]
    return head, [(ids, [bool(head)] + [True] * (len(ids) - 1))]


def _extra_names(records: list[Record]) -> tuple[str, ...]:
    names = set(records[0].extras) if records else set()
    for record in records:
        if differing := sorted(names ^ set(record.extras)):
            raise ValueError(
                f"{', '.join(differing)}: given for some records and not for others "
                f"({records[0].where} and {record.where} differ)"
            )
    return tuple(sorted(names))


def _extras(
    record: Record, names: tuple[str, ...], responses: list[Tokens], report: Report
) -> dict[str, np.ndarray]:
    extras: dict[str, np.ndarray] = {
        name: np.asarray(record.extras[name], np.int32 if name == ANNOTATOR else np.float32)
        for name in names
    }
    if "step_labels" in extras:
        # A response that was cut has lost its last steps, and their labels.
        extras["step_labels"] = extras["step_labels"][: sum(responses[0][1])]
    extras["row"] = np.asarray(record.row, np.int32)
    if report.sources:
        extras["source"] = np.asarray(report.sources.index(record.source), np.int32)
    return extras
