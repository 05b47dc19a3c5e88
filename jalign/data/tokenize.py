"""Records become examples: one BOS, an EOS where a response ends, no token over a border.

Rules, each of which has a test:

* The BOS stands once, first in the prompt: of a text where the tokenizer adds one by default, of a
  chat where its template writes it, as when the model is asked.
* The EOS belongs to the response and is scored. It is the template's end-of-turn token where it has
  one, else the tokenizer's EOS. Nothing here looks at the pad token.
* Prompt and response are tokenised apart, as when the model is asked; their ids are those of the
  text of both (`jalign.data.encoder`).
* Prompts are cut at the front (the BOS stays), responses at the end, where a cut one has no EOS.
* A text without a prompt is a response to [BOS]; without a BOS its first token is not scored.
* The answer of a joint record is one token without an EOS, and its prompt is never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from jalign.data.chat import TURNS, Segment, Template, ends_of, joined
from jalign.data.encoder import NEARBY, Encoder
from jalign.data.examples import Example, Examples, Report
from jalign.data.kinds import nearest
from jalign.data.parsing import ERRORS, RowError
from jalign.data.records import Message, Record

Tokens = tuple[list[int], list[bool]]  # ids, and which are scored

OVER_LONG = ("truncate", "drop", "error")
TRAIN_ON = ("response", "all")
CHUNK = 2000  # records tokenised in one call: enough for all cores, small against the data


@dataclass
class Limits:
    """Most tokens of a prompt, a response, a prompt with its longest response; None: any."""

    max_len: int | None = None
    max_prompt_len: int | None = None
    max_response_len: int | None = None
    over_long: str = "truncate"
    keep_eos: bool = False

    def __post_init__(self):
        for name, least in (("max_len", 4), ("max_prompt_len", 1), ("max_response_len", 2)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} must be at least {least} tokens, got {value}")
        _check_choice("over_long", self.over_long, OVER_LONG)


@dataclass
class Draft:
    """An example on its way: texts first, then ids."""

    record: Record
    prompt_text: str
    segments: list[list[Segment]]  # of each response
    eos: int | None  # ends every response; None: steps and letters, which have no end
    bos: int | None  # stands first, also in a prompt that is cut
    ends: frozenset[int]  # a response that ends with one of them gets no EOS


def tokenize(
    records: Iterable[Record],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_len: int | None = None,
    max_prompt_len: int | None = None,
    max_response_len: int | None = None,
    over_long: str = "truncate",
    keep_eos: bool = False,
    train_on: str = "response",
    turns: str = "last",
    template: str | None = None,
    bad_rows: str = "error",
    report: Report | None = None,
) -> Examples:
    """Token ids and masks of every record worth keeping; the report counts the others.

    Extras of an example: those of its record as float32, `row` (number of the row, int32) and, in a
    mixture, `source` (place in `report.sources`, int32). In stepwise examples only the last token
    of each step is scored, so that `step_labels` [steps] line up with the scored tokens.

    Args:
      max_len: most tokens of a prompt with its longest response. The prompt is cut first, but not
        below half of it; then the responses.
      max_prompt_len: most tokens of a prompt, the BOS included.
      max_response_len: most tokens of a response, the EOS included.
      over_long: what happens to a record over a limit: "truncate", "drop" (and count) or "error".
        A joint record is dropped where others are truncated.
      keep_eos: a response that is cut keeps its EOS as its last token, as if it ended there; False:
        it ends where it was cut, and no end is learnt. Steps and prompts have no EOS.
      train_on: "response", or "all": the prompt is scored too (one response per prompt only).
      turns: which assistant turns of messages are scored: "last" or "all". With one response per
        record the prompt is everything before the first scored turn.
      template: chat template by name or .jinja file; None: the tokenizer's own. Text refuses it.
      bad_rows: a record that the template refuses is an "error", or "drop": left out and counted.
      report: continued when given (as made by `to_records`).

    Raises:
      ValueError: an option out of range, a tokenizer without EOS, messages without a template, an
        extra that some records have and others lack, or joint records with a tokenizer to which
        the answers are not one token each.
    """
    limits = Limits(max_len, max_prompt_len, max_response_len, over_long, keep_eos)
    _check_choice("train_on", train_on, TRAIN_ON)
    _check_choice("turns", turns, TURNS)
    records = list(records)
    report = report or Report(read=len(records))
    encoder = Encoder(tokenizer)
    chat, ends = _template(records, tokenizer, template), ends_of(tokenizer)
    if turns != "last" and chat is None and records:
        raise ValueError(f"turns {turns!r} cannot apply: the data is text, not messages")
    names = _extra_names(records)
    if train_on == "all" and (
        "step_labels" in names or any(len(r.responses) != 1 for r in records)
    ):
        raise ValueError('train_on "all" is for supervised data: one response per prompt, no steps')

    def examples() -> Iterator[Example]:
        for start in range(0, len(records), CHUNK):
            drafts: list[Draft] = []
            for record in records[start : start + CHUNK]:
                try:
                    drafts.append(_draft(record, chat, turns, encoder, ends))
                except RowError as error:
                    if bad_rows != "drop":
                        raise
                    report.drop(error.reason)
            for draft, prompt, responses in _encode(drafts, encoder):
                fitted = _fit(draft, prompt, responses, limits, report)
                if fitted is not None:
                    example = _example(*fitted, draft.bos, train_on)
                    yield example._replace(extras=_extras(draft.record, names, example, report))

    out = Examples.from_list(examples(), report)
    lengths = out.lengths()
    report.kept = len(out)
    report.prompt_tokens = int(lengths.prompt_len.sum())
    report.response_tokens = int(lengths.response_lens.sum())
    report.scored_tokens = int(lengths.scored_lens.sum())
    report.warnings += _chat_warnings(records, chat, encoder) if chat else []
    report.warnings += _cut_warnings(report, limits, int((lengths.response_lens > 0).sum()))
    return out


def _template(records: list[Record], tokenizer: Any, template: str | None) -> Template | None:
    conversational = any(_is_chat(r) for r in records)
    if template is not None and not conversational and records:
        raise ValueError(f"template {template!r} cannot apply: the data is text, not messages")
    return Template.of(tokenizer, template) if conversational else None


def _is_chat(record: Record) -> bool:
    if not isinstance(record.prompt, str):
        return True
    first = record.responses[0] if record.responses else ""
    return isinstance(first, list) and bool(first) and isinstance(first[0], dict)


def _draft(
    record: Record, chat: Template | None, turns: str, encoder: Encoder, ends: frozenset[int]
) -> Draft:
    none: frozenset[int] = frozenset()
    if record.joint:
        space, letters = encoder.answers
        segments = [[(letters[response], True)] for response in record.responses]
        return Draft(record, cast(str, record.prompt) + space, segments, None, encoder.bos, none)
    steps = any(isinstance(r, list) and isinstance(r[0], str) for r in record.responses if r)
    if isinstance(record.prompt, str) and not _is_chat(record):
        last = tuple(cast("list[str]", encoder.tokenizer.convert_ids_to_tokens(sorted(ends))))
        segments = [_plain(response, last) for response in record.responses]
        eos = None if steps else encoder.eos
        return Draft(record, record.prompt, segments, eos, encoder.bos, none if steps else ends)
    assert chat is not None
    try:
        if steps:
            text = chat.render(cast("list[Message]", record.prompt), record.tools, open_turn=True)
            segments = [_plain(response) for response in record.responses]
        else:
            text, segments = _conversation(record, chat, turns)
    except ERRORS as error:
        raise RowError(error, record.where) from error
    eos = encoder.id(chat.end_of_turn) if chat.end_of_turn else encoder.eos
    first = chat.tokenizer.bos_token if chat.leads_with_bos else None
    bos = encoder.id(first) if first and text.startswith(cast(str, first)) else None
    if steps:
        return Draft(record, text, segments, None, bos, none)
    return Draft(record, text, segments, eos, bos, frozenset([eos]))


def _plain(response: str | list[str], ends: tuple[str, ...] = ()) -> list[Segment]:
    """Text is one segment, which may bring its own end; steps are one each, with a line break as
    theirs. Blanks are none.
    """
    if isinstance(response, str):
        stripped = response.rstrip()
        response = stripped if stripped.endswith(ends) else response
        return [(response, True)] if stripped else []
    return [(step if step.endswith("\n") else step + "\n", True) for step in response]


def _conversation(record: Record, chat: Template, turns: str) -> tuple[str, list[list[Segment]]]:
    prompt = list(cast("list[Message]", record.prompt))
    responses: list[list[Message]] = list(record.responses)
    if not responses:
        return chat.render(prompt, record.tools, open_turn=True) if prompt else "", []
    if not all(any(_says_something(m) for m in response) for response in responses):
        return "", [[] for _ in responses]  # dropped, and counted, later
    begun = bool(prompt) and prompt[-1]["role"] == "assistant"
    if len(responses) == 1 and turns == "last":
        (response,) = responses
        said = [i for i, m in enumerate(response) if m["role"] == "assistant"]
        last = max((i for i in said if response[i].get("train") is not False), default=said[-1])
        if begun and last and said[0] == 0:
            response = [joined(prompt.pop(), response[0]), *response[1:]]
        prompt, responses = [*prompt, *response[:last]], [response[last : last + 1]]
        begun = begun and not last
    done = [
        chat.split(prompt, r, turns=turns, tools=record.tools, continues=begun) for r in responses
    ]
    texts = {text for text, _ in done}
    if len(texts) > 1:
        raise ValueError("the chat template renders the prompt in another way for each response")
    return texts.pop(), [segments for _, segments in done]


def _says_something(m: Message) -> bool:
    return m["role"] == "assistant" and bool(m["content"].strip() or m.get("tool_calls"))


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
    start_ids = iter(encoder.starts(starts))
    rest_ids = iter(encoder.continuations(rests, before))
    for d in drafts:
        prompt = next(start_ids)
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
                mask[0] = False  # nothing stands before it that could predict it
            responses.append((ids, mask))
        yield d, prompt, responses


def _fit(
    d: Draft, prompt: list[int], responses: list[Tokens], limits: Limits, report: Report
) -> tuple[list[int], list[Tokens]] | None:
    """Prompt and responses within the limits, or None (counted) when nothing is left to learn."""
    if not prompt and (d.eos is None or not responses):
        return report.drop("empty prompt")
    if any(len(ids) > 1 and not any(mask) for ids, mask in responses):
        return report.drop("no assistant turn is trained on")
    if not all(_has_content(tokens, d.ends) for tokens in responses):
        return report.drop("empty response")
    longest = max((len(ids) for ids, _ in responses), default=0)
    prompt_limit = _least(len(prompt), limits.max_prompt_len)
    response_limit = _least(longest, limits.max_response_len)
    if limits.max_len is not None and prompt_limit + response_limit > limits.max_len:
        prompt_limit = min(prompt_limit, max(limits.max_len - response_limit, limits.max_len // 2))
        response_limit = min(response_limit, limits.max_len - prompt_limit)
    if len(prompt) > prompt_limit or longest > response_limit:
        what = f"prompt of {len(prompt)} and response of {longest} tokens"
        if limits.over_long == "error":
            raise ValueError(f"{d.record.where}: {what}, over the limits {_set(limits)}")
        if limits.over_long == "drop" or d.record.joint:
            return report.drop("over the length limits")
    cut = [_cut_response(tokens, response_limit, d.eos, limits.keep_eos) for tokens in responses]
    if not all(_has_content(tokens, d.ends) for tokens in cut):
        return report.drop("response cut to nothing")
    if len(cut) > 1 and all(tokens == cut[0] for tokens in cut):
        return report.drop("equal responses")
    report.truncated_prompts += len(prompt) > prompt_limit
    report.longest_prompt = max(report.longest_prompt, len(prompt))
    report.longest_response = max(report.longest_response, longest)
    for before, after in zip(responses, cut, strict=True):
        if len(before[0]) > response_limit:
            report.truncated_responses += 1
            report.lost_tokens += max(sum(before[1]) - sum(after[1]), 1)
            report.lost_turns += _turns(before) - _turns(after)
    return _cut_prompt(prompt, prompt_limit, d.bos), cut


def _turns(tokens: Tokens) -> int:
    """Scored stretches: assistant turns, or steps."""
    mask = tokens[1]
    return sum(b and not a for a, b in zip([False, *mask], mask, strict=False))


def _chat_warnings(records: list[Record], chat: Template, encoder: Encoder) -> list[str]:
    """What a person should know of how a template renders these conversations."""
    notes = set(chat.notes)
    if chat.tail.strip():
        notes.add(
            f"the chat template ends an assistant turn with {chat.tail.strip()!r}, which is no "
            f"token of this tokenizer: responses end with {encoder.tokenizer.eos_token} instead"
        )
    control = [t for record in records if (t := _control_token(record, encoder))]
    if control:
        notes.add(
            f"{len(control):,} of {len(records):,} rows have a message with text that the "
            f"tokenizer reads as a control token, such as {control[0]}: whoever writes it can end "
            "a turn or begin one"
        )
    return sorted(notes)


def _control_token(record: Record, encoder: Encoder) -> str | None:
    """The first control token in the text of a message."""
    for messages in (record.prompt, *record.responses):
        for m in messages if isinstance(messages, list) else ():
            if isinstance(m, dict) and (match := encoder.control.search(m["content"])):
                return match.group()
    return None


def _cut_warnings(report: Report, limits: Limits, responses: int) -> Iterator[str]:
    """What was lost to the limits, and which of them to raise."""

    def said(cut: int, of: int, what: str) -> str:
        return f"{cut:,} of {of:,} {what} ({max(100 * cut / of, 0.1):.1f} %) are over the limits"

    if report.truncated_responses:
        turns = f" and {report.lost_turns:,} turns or steps" if report.lost_turns else ""
        end = "" if limits.keep_eos else ", and the model does not learn where those end"
        yield (
            f"{said(report.truncated_responses, responses, 'responses')} ({_set(limits)}): "
            f"{report.lost_tokens:,} scored tokens{turns} at their ends are lost{end}; the longest "
            f"has {report.longest_response:,} tokens: raise data.max_response_len"
        )
    if report.truncated_prompts:
        yield (
            f"{said(report.truncated_prompts, report.kept, 'prompts')} ({_set(limits)}) and lose "
            f"their front; the longest has {report.longest_prompt:,} tokens: raise "
            "data.max_prompt_len"
        )


def _has_content(tokens: Tokens, ends: frozenset[int]) -> bool:
    """Whether anything but a final EOS is scored."""
    ids, mask = tokens
    return sum(mask) > (bool(ids) and ids[-1] in ends and mask[-1])


def _cut_prompt(ids: list[int], limit: int, bos: int | None) -> list[int]:
    """The end of a prompt, behind its BOS."""
    if len(ids) <= limit:
        return ids
    head = ids[:1] if ids[0] == bos else []
    return head + ids[len(ids) - (limit - len(head)) :]


def _cut_response(tokens: Tokens, limit: int, eos: int | None, keep_eos: bool) -> Tokens:
    """The start of a response and its EOS, less what would stand unscored at its end."""
    ids, mask = tokens
    if len(ids) <= limit:
        return tokens
    keep = limit - 1 if eos is not None and keep_eos else limit
    while keep and not mask[keep - 1]:
        keep -= 1
    ids, mask = ids[:keep], mask[:keep]
    if keep and eos is not None and keep_eos and ids[-1] != eos:
        ids, mask = [*ids, eos], [*mask, True]
    return ids, mask


def _example(prompt: list[int], responses: list[Tokens], bos: int | None, train_on: str) -> Example:
    if train_on == "all":
        head = prompt[:1] if prompt[:1] == [bos] else []
        ids = prompt[len(head) :] + responses[0][0]
        prompt, responses = head, [(ids, [bool(head)] + [True] * (len(ids) - 1))]
    ids = tuple(np.asarray(ids, np.int32) for ids, _ in responses)
    masks = tuple(np.asarray(mask, bool) for _, mask in responses)
    return Example(np.asarray(prompt, np.int32), ids, masks, {})


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
    record: Record, names: tuple[str, ...], example: Example, report: Report
) -> dict[str, np.ndarray]:
    extras: dict[str, np.ndarray] = {
        name: np.asarray(record.extras[name], np.float32) for name in names
    }
    if "step_labels" in extras:
        extras["step_labels"] = extras["step_labels"][: int(example.scored[0].sum())]
    extras["row"] = np.asarray(record.row, np.int32)
    if report.sources:
        extras["source"] = np.asarray(report.sources.index(record.source), np.int32)
    return extras


def _least(length: int, limit: int | None) -> int:
    return length if limit is None else min(length, limit)


def _set(limits: Limits) -> str:
    names = ("max_len", "max_prompt_len", "max_response_len")
    return ", ".join(f"{n} {v}" for n in names if (v := getattr(limits, n)) is not None)


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(allowed)}, got {value!r}{nearest(value, allowed)}"
        )
