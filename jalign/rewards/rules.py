"""Rewards that a rule computes from the text alone.

A reward function is `f(prompts, responses, **columns) -> list[float | None]`: one number per
response, None where it has no opinion. A keyword without a default is a column of the data, with
one entry per response; one with a default is an option of the rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from jalign.rewards.answers import final_answer, last_number
from jalign.rewards.instructions import ifbench, ifeval

Texts = Sequence[str]
Scores = list[float | None]
_OPEN_TAG = re.compile(r"<[A-Za-z_]\w*>\s*\Z")
THINK_ANSWER = r"<think>.*?</think>\s*<answer>.*?</answer>"


@cache
def _vader() -> SentimentIntensityAnalyzer:
    # Reads its lexicon from disk, hence once per process.
    return SentimentIntensityAnalyzer()


def sentiment(texts: Sequence[str]) -> list[float]:
    """How positive each text sounds, in [-1, 1]: VADER's compound score.

    A lexicon of 7,500 words and a few rules; deterministic. Hutto and Gilbert 2014, ICWSM. An empty
    text scores 0.

    >>> bad, none, good = sentiment(["a sad, terrible day", "", "a happy, wonderful day"])
    >>> bad < none == 0.0 < good
    True
    """
    return [float(_vader().polarity_scores(text)["compound"]) for text in texts]


def sentiment_reward(prompts: Texts, responses: Texts) -> Scores:
    """`sentiment` of the response alone, in [-1, 1]."""
    del prompts
    return [*sentiment(responses)]


def exact_match(prompts: Texts, responses: Texts, *, answer: Sequence[object]) -> Scores:
    r"""1 if the final answer of the response equals that of `answer`, else 0.

    Compares the results of `answers.final_answer` (in `\boxed{}`, behind `####`, else the full
    text) with whitespace normalized. None if the row has no answer.

    >>> exact_match(["2 + 2?"] * 2, ["It is \\boxed{4}", "5"], answer=["4", "4"])
    [1.0, 0.0]
    """
    del prompts
    pairs = zip(responses, answer, strict=True)
    return [None if a is None else float(_plain(r) == _plain(str(a))) for r, a in pairs]


def numeric_match(
    prompts: Texts, responses: Texts, *, answer: Sequence[object], tolerance: float = 0.0
) -> Scores:
    """1 if the last number of the response equals that of `answer`, else 0 (also without a number).

    How numbers are read: `answers.last_number`. Without a number in the answer: None.

    Args:
      answer: numbers, or texts that end in one.
      tolerance: share of the answer by which a number may be off, >= 0; 0 compares exactly.

    >>> numeric_match(["?"] * 3, ["so 0.75", "1,000", "none"], answer=["#### 3/4", 1000, 2])
    [1.0, 1.0, 0.0]
    """
    del prompts
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")
    out: Scores = []
    for response, a in zip(responses, answer, strict=True):
        wanted = None if a is None else last_number(str(a))
        number = None if wanted is None else last_number(response)
        if wanted is None:
            out.append(None)
        else:
            # Fractions: at tolerance 0 no rounding decides whether an answer is right.
            near = number is not None and abs(number - wanted) <= tolerance * abs(wanted)
            out.append(float(near))
    return out


def format_match(
    prompts: Texts,
    responses: Texts,
    *,
    policy_prompt: Texts | None = None,
    pattern: str = THINK_ANSWER,
) -> Scores:
    r"""1 if the full response, stripped, matches a regular expression, else 0.

    Where the prompt ends with a tag, such as the <think> that many templates open the reply with,
    the response begins with that tag.

    Args:
      policy_prompt: the prompts as the policy reads them; `prompts` where they are not known.
      pattern: its dot also matches line breaks.

    >>> format_match(["?"] * 2, ["<think>2</think> <answer>4</answer>", "4"])
    [1.0, 0.0]
    >>> format_match(["?\n<think>\n"], ["2</think> <answer>4</answer>"])
    [1.0]
    """
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
    begun = [_OPEN_TAG.search(prompt) for prompt in (policy_prompt or prompts)]
    texts = [(tag[0] if tag else "") + text for tag, text in zip(begun, responses, strict=True)]
    return [float(compiled.fullmatch(text.strip()) is not None) for text in texts]


def response_length_words(prompts: Texts, responses: Texts) -> Scores:
    """Words of the response, as a metric or, with a negative weight, a length penalty."""
    del prompts
    return [float(len(text.split())) for text in responses]


def length_target(prompts: Texts, responses: Texts, *, target: int = 100) -> Scores:
    """-min(1, |words - target| / target), in [-1, 0].

    >>> length_target(["?"] * 3, ["one two", "one", "a b c d e"], target=2)
    [0.0, -0.5, -1.0]
    """
    del prompts
    if target < 1:
        raise ValueError(f"target must be at least 1 word, got {target}")
    # 0.0 - x: -x would be -0.0 for a response on target.
    return [0.0 - min(1.0, abs(len(text.split()) - target) / target) for text in responses]


def repetition(prompts: Texts, responses: Texts, *, n: int = 3) -> Scores:
    """different / all - 1 over the n-grams of words, in (-1, 0]; 0 for fewer than n words.

    >>> repetition(["?"] * 2, ["a b a b a", "a b c"], n=2)
    [-0.5, 0.0]
    """
    del prompts
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    out: Scores = []
    for text in responses:
        words = text.split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        out.append(len(set(grams)) / len(grams) - 1.0 if grams else 0.0)
    return out


def soft_over_long(
    prompts: Texts,
    responses: Texts,
    *,
    response_tokens: Sequence[int],
    max_length: int = 20480,
    buffer: int = 4096,
) -> Scores:
    """DAPO's soft over-long punishment (https://arxiv.org/abs/2503.14476, Eq. 13), in [-1, 0]:

    0 up to max_length - buffer tokens, then linear to -1 at max_length, -1 beyond.

    Args:
      response_tokens: tokens of each response, its EOS included.
      max_length: L_max, tokens.
      buffer: L_cache, tokens, in [1, max_length].

    >>> tokens = [80, 90, 101]
    >>> soft_over_long([""] * 3, [""] * 3, response_tokens=tokens, max_length=100, buffer=20)
    [0.0, -0.5, -1.0]
    """
    del prompts, responses
    if not 1 <= buffer <= max_length:
        raise ValueError(f"buffer must be in [1, max_length = {max_length}], got {buffer}")
    start = max_length - buffer
    # 0.0 - x: -x would be -0.0 for a short response.
    return [0.0 - min(1.0, max(0.0, (tokens - start) / buffer)) for tokens in response_tokens]


def _plain(text: str) -> str:
    return " ".join(final_answer(text).split())


_SHIPPED = (
    sentiment_reward, exact_match, numeric_match, format_match, response_length_words,
    length_target, repetition, soft_over_long, ifeval, ifbench,
)  # fmt: skip
RULES: dict[str, Callable[..., Any]] = {rule.__name__: rule for rule in _SHIPPED}
"""The built-in reward functions by name."""
