"""Length limits of prompts and responses, and how longer ones are cut or dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jalign.data.drafts import Draft
from jalign.data.examples import Report
from jalign.signatures import nearest

Tokens = tuple[list[int], list[bool]]  # ids, and which are scored

OVER_LONG = ("truncate", "drop", "error")


@dataclass
class Limits:
    """Maximum tokens of a prompt, a response, and a prompt with its longest response; None: any."""

    max_len: int | None = None
    max_prompt_len: int | None = None
    max_response_len: int | None = None
    over_long: str = "truncate"
    keep_eos: bool = False

    def __post_init__(self):
        for name, least in (("max_len", 4), ("max_prompt_len", 1), ("max_response_len", 2)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} must be at least {least} tokens, got {value}")
        check_choice("over_long", self.over_long, OVER_LONG)


def fit(
    d: Draft, prompt: list[int], responses: list[Tokens], limits: Limits, report: Report
) -> tuple[list[int], list[Tokens]] | None:
    """Cut prompt and responses to the limits; None (counted) if no scored token is left."""
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
        # The prompt gives way first, down to half: what is learned is in the response.
        prompt_limit = min(prompt_limit, max(limits.max_len - response_limit, limits.max_len // 2))
        response_limit = min(response_limit, limits.max_len - prompt_limit)
    if len(prompt) > prompt_limit or longest > response_limit:
        what = f"prompt of {len(prompt)} and response of {longest} tokens"
        if limits.over_long == "error":
            raise ValueError(f"{d.record.where}: {what}, over the limits {_set(limits)}")
        # A joint prompt that is cut would lose a candidate.
        if limits.over_long == "drop" or d.record.joint:
            return report.drop("over the length limits")
    cut = responses
    if longest > response_limit:
        cut = [_cut_response(ids, response_limit, d.eos, limits.keep_eos) for ids in responses]
        if not all(_has_content(tokens, d.ends) for tokens in cut):
            return report.drop("response cut to nothing")
    # A pair that differs only behind the limit has no preference to learn.
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
    return prompt if len(prompt) <= prompt_limit else _cut_prompt(prompt, prompt_limit, d.bos), cut


def _turns(tokens: Tokens) -> int:
    """Number of scored spans: assistant turns, or steps."""
    mask = tokens[1]
    return sum(b and not a for a, b in zip([False, *mask], mask, strict=False))


def cut_warnings(report: Report, limits: Limits, responses: int) -> Iterator[str]:
    """Warnings: how many tokens the limits cost, and which limit to raise."""

    def share(cut: int, of: int, what: str) -> str:
        return f"{cut:,} of {of:,} {what} ({max(100 * cut / of, 0.1):.1f} %) are over the limits"

    if report.truncated_responses:
        turns = f" and {report.lost_turns:,} turns or steps" if report.lost_turns else ""
        end = "" if limits.keep_eos else ", and the model does not learn where those end"
        yield (
            f"{share(report.truncated_responses, responses, 'responses')} ({_set(limits)}): "
            f"{report.lost_tokens:,} scored tokens{turns} at their ends are lost{end}; the longest "
            f"has {report.longest_response:,} tokens: raise data.max_response_len"
        )
    if report.truncated_prompts:
        yield (
            f"{share(report.truncated_prompts, report.kept, 'prompts')} ({_set(limits)}) and lose "
            f"their front; the longest has {report.longest_prompt:,} tokens: raise "
            "data.max_prompt_len"
        )


def _has_content(tokens: Tokens, ends: frozenset[int]) -> bool:
    """Whether anything but a final EOS is scored."""
    ids, mask = tokens
    return sum(mask) > (bool(ids) and ids[-1] in ends and mask[-1])


def _cut_prompt(ids: list[int], limit: int, bos: int | None) -> list[int]:
    """The BOS, then the last tokens of a prompt that is longer than `limit`."""
    # The front goes: a chat begins with its oldest turn and ends with the question.
    head = ids[:1] if ids[0] == bos else []
    return head + ids[len(ids) - (limit - len(head)) :]


def _cut_response(tokens: Tokens, limit: int, eos: int | None, keep_eos: bool) -> Tokens:
    """The start of a response and its EOS, without unscored tokens at the end."""
    ids, mask = tokens
    if len(ids) <= limit:  # another response is over it
        return tokens
    keep = limit - 1 if eos is not None and keep_eos else limit
    while keep and not mask[keep - 1]:
        keep -= 1
    ids, mask = ids[:keep], mask[:keep]
    if keep and eos is not None and keep_eos and ids[-1] != eos:
        ids, mask = [*ids, eos], [*mask, True]
    return ids, mask


def _least(length: int, limit: int | None) -> int:
    return length if limit is None else min(length, limit)


def _set(limits: Limits) -> str:
    names = ("max_len", "max_prompt_len", "max_response_len")
    return ", ".join(f"{n} {v}" for n in names if (v := getattr(limits, n)) is not None)


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(allowed)}, got {value!r}{nearest(value, allowed)}"
        )
