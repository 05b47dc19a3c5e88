"""Generate new prompts from few-shot examples.

Wang et al. 2022, "Self-Instruct", https://arxiv.org/abs/2212.10560, section 2.2: the model
continues a list of eight tasks, six by people and two of its own, and near-duplicates are left out.
Self-rewarding models (Yuan et al. 2024, https://arxiv.org/abs/2401.10020, section 2.3) get their
prompts this way. There is no list of forbidden words here, and no top-p. Wording is our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jalign.data.journal import Made
from jalign.rewards.judge import Judge
from jalign.rewards.template import load

_NEXT = re.compile(r"\n\s*Task \d+:")


def generate_prompts(
    judge: Judge,
    seeds: Sequence[str],
    generated: Sequence[str],
    attempts: Sequence[int],
    *,
    template: str | Path = "instruct",
    shots: int = 8,
    own_shots: int = 2,
    most_alike: float = 0.7,
    min_words: int = 3,
    max_words: int = 150,
    seed: int = 0,
    temperature: float = 0.6,
    max_tokens: int = 128,
) -> list[Made]:
    """One try at a new prompt per attempt, as a row with the column prompt.

    Args:
      judge: the model that writes.
      seeds: prompts of people.
      generated: prompts that were made so far.
      attempts: numbers; which prompts are shown follows from the seed and the number.
      template: with the fields examples ("Task 1: ...") and number, that of the next task.
      shots: prompts that are shown.
      own_shots: maximum of generated prompts among them.
      most_alike: a new prompt is left out if its ROUGE-L (F1, of words) to an existing one is at
        least this.
      min_words, max_words: shorter and longer prompts are left out.
      temperature, max_tokens: of the generated text.

    Raises:
      ValueError: numbers out of range, or fewer seeds than are shown.
    """
    if not 0 <= own_shots < shots or not 0 < most_alike <= 1 or not 0 < min_words <= max_words:
        raise ValueError(
            "own_shots must be in [0, shots), most_alike in (0, 1] and min_words in [1, max_words],"
            f" got {own_shots}, {shots}, {most_alike}, {min_words} and {max_words}"
        )
    if len(seeds) < shots:
        raise ValueError(f"there must be {shots} prompts to show, got {len(seeds)}")
    text = load(template, ("examples", "number"))
    requests = []
    for attempt in attempts:
        rng = np.random.default_rng([seed, attempt])
        mine = min(own_shots, len(generated))
        own = rng.choice(len(generated), mine, replace=False) if mine else ()
        shown = [generated[i] for i in own]
        shown += [seeds[i] for i in rng.choice(len(seeds), shots - mine, replace=False)]
        shown = [shown[i] for i in rng.permutation(shots)]
        examples = "\n\n".join(f"Task {i}: {prompt}" for i, prompt in enumerate(shown, 1))
        requests.append(text.fill(examples=examples, number=str(shots + 1)))
    known = [words(prompt) for prompt in (*seeds, *generated)]
    results = []
    for reply in judge.complete(requests, max_tokens=max_tokens, temperature=temperature):
        prompt = _NEXT.split(reply or "")[0].strip()
        mine = words(prompt)
        if not min_words <= len(mine) <= max_words:
            limits = f"a prompt is not of {min_words} to {max_words} words"
            results.append(Made([], [limits if prompt else "the model wrote nothing"]))
        elif any(rouge_l(mine, other) >= most_alike for other in known):
            results.append(Made([], ["a prompt is too like one that is there"]))
        else:
            # New prompts count at once: requests of one batch often give the same prompt.
            known.append(mine)
            results.append(Made([{"prompt": prompt}], []))
    return results


def words(text: str) -> list[str]:
    """Words in lower case."""
    return re.findall(r"\w+", text.lower())


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004, "ROUGE", section 3).

    >>> round(rouge_l("the cat sat down".split(), "the dog sat".split()), 4)
    0.5714
    """
    if not a or not b:
        return 0.0
    at: dict[str, int] = {}
    for i, word in enumerate(a):
        at[word] = at.get(word, 0) | 1 << i
    rows = full = (1 << len(a)) - 1  # a column of the usual table in the bits of one number
    for word in b:
        matches = rows & at.get(word, 0)
        rows = (rows + matches | rows - matches) & full
    return 2 * (len(a) - rows.bit_count()) / (len(a) + len(b))
