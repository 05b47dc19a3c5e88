"""`jalign algorithms [NAME]`: the catalogue as a table, or one row with its hyper-parameters."""

import inspect
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from jalign import about, losses
from jalign.algorithms import ALGORITHMS, get
from jalign.algorithms.elsewhere import elsewhere
from jalign.core import TWO_MODELS, Algorithm, arrays_of

COLUMNS = (
    "algorithm", "feedback", "reward", "level", "reference", "policy", "SFT", "length", "negative",
    "Nash", "paper",
)  # fmt: skip
_HEADS = ("algorithm", "data", "reward", "level", "ref", "paper")
_WIDTHS = (23, 6, 8, 8, 7, 10)
_HELP = """usage: jalign algorithms [NAME ... | WORD ...]

The catalogue, a line for each; or one algorithm with its description, hyper-parameters and loss; or
the lines that hold a word.

examples:
  jalign algorithms
  jalign algorithms simpo
  jalign algorithms file.py:row      # one of your own
  jalign algorithms list             # those that learn from lists
  jalign algorithms oaif             # what people know by another name, and where it is"""
_MEANING = """data: what is known of responses (none: demonstrations; score: a reward)
reward: explicit (a model or head of rewards) or implicit in the policy
level: whether the loss looks at whole responses or at tokens
ref: a frozen copy of the policy (yes), one that moves, a teacher, or none (no)
online: responses are sampled from the policy itself, other data are fixed
SFT: a likelihood term is part of the loss; length: lengths enter it
negative: only dispreferred responses drive it
Nash: it seeks the equilibrium of a game
jalign algorithms NAME shows one with its numbers, jalign algorithms WORD some"""


def taxonomy(row: Algorithm) -> tuple[str, ...]:
    """A row's place in the survey's table (arXiv 2407.16216, Table 1), derived from the row and
    its tags.
    """
    arrays = arrays_of(row.loss)
    outputs = row.outputs(arrays)
    supervised = row.format.feedback == "none"
    explicit = row.needs_value_head or row.format.joint_prompt or row.format.policy_samples
    by_token = row.format.token_fields & set(arrays) or any(o in TWO_MODELS for o in outputs)
    if row.format.policy_samples:  # all read tokens; some add them up first
        by_token = row.loss_per_token
    hyper = row.hyperparameters
    with_sft = hyper.get("nll_coef", 0) != 0 or "sft" in row.tags or row.loss is losses.sft
    responses = [n for n in arrays if "chosen" in n or "rejected" in n]
    negative = bool(responses) and all("rejected" in n for n in responses)
    return (
        row.name,
        _feedback(row),
        "explicit" if explicit else "-" if supervised else "implicit",
        "token" if by_token else "response",
        _reference(row),
        "on" if row.experience else "off",
        _yes(with_sft),
        _yes("length" in row.tags or any(n.endswith(("len", "lens")) for n in arrays)),
        _yes(negative or "negative" in row.tags),
        _yes("nash" in row.tags),
        f"[{row.paper}](https://arxiv.org/abs/{row.paper})",
    )


def _feedback(row: Algorithm) -> str:
    """Of an online method it is what its experience reads of the judged samples."""
    judged = set(row.rollout_inputs())
    if "win_probs" in judged:
        return "pair"
    if "step_scores" in judged:
        return "steps"
    return "score" if "scores" in judged else row.format.feedback


def _reference(row: Algorithm) -> str:
    if row.needs_teacher:
        return "teacher"
    if not row.needs_reference():
        return "no"
    return "moving" if row.moves_reference() else "yes"


def _yes(x: bool) -> str:
    return "yes" if x else "-"


def markdown() -> str:
    """The whole catalogue as a Markdown table, as it stands in the README."""
    lines = [
        COLUMNS,
        tuple("---" for _ in COLUMNS),
        *(taxonomy(row) for row in ALGORITHMS.values()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(args: Sequence[str], console: Console) -> None:
    """Print one line per algorithm; with names, each one's description, hyper-parameters and
    loss; with other words the lines that hold them.
    """
    if {"-h", "--help"} & set(args):
        print(_HELP)
        return
    if "--markdown" in args:
        print(markdown())
        return
    words = [arg for arg in args if not arg.startswith("--")]
    if unknown := [arg for arg in args if arg.startswith("--")]:
        raise ValueError(f"jalign algorithms takes --markdown, and no {unknown[0]}")
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    lines = {name: _line(row) for name, row in ALGORITHMS.items()}
    if words and any(_named(word) for word in words):
        for word in words:
            _one(get(word), console)
        return
    chosen = [x for x in lines.values() if all(w.lower() in x.lower() for w in words)]
    known = {word: here for word in words if (here := elsewhere(word))}
    if not chosen and not known:
        get(words[0])  # says what is near
    for line in (_set(_HEADS, "is"), *chosen) if chosen else ():
        say(line)
    for word, here in known.items() if not chosen else ():
        say(f"{word} is here: {here}")
    if not words:
        say(f"\n{_MEANING}")


def _named(word: str) -> bool:
    return word in ALGORITHMS or ":" in word


def _line(row: Algorithm) -> str:
    """Its place in the table, in 80 columns; what is marked with yes there stands at the end."""
    cells = dict(zip(COLUMNS, taxonomy(row), strict=True))
    marks = [name for name in ("SFT", "length", "negative", "Nash") if cells[name] == "yes"]
    marks = ["online", *marks] if cells["policy"] == "on" else marks
    paper = row.paper or "-"
    return _set(
        [*(cells[n] for n in ("algorithm", "feedback", "reward", "level", "reference")), paper],
        " ".join(marks),
    )


def _set(words: Sequence[str], last: str) -> str:
    cells = [f"{word:<{n}}" for word, n in zip(words, _WIDTHS, strict=True)]
    return " ".join([*cells, last]).rstrip()


def _one(row: Algorithm, console: Console) -> None:
    say = partial(console.print, markup=False, highlight=False)
    paper = f", arXiv {row.paper}" if row.paper else ""
    console.print(Text.assemble((row.name, "bold"), f"  ({row.format.name} data{paper})"))
    if row.about:
        say(f"\n{row.about}")
    say("\nhyper-parameters (--algorithm.NAME VALUE), each with its default:")
    for name, (default, meaning) in about.hyperparameters(row).items():
        say(f"  {name} {default!r}")
        if meaning:
            say(Padding(Text(meaning), (0, 0, 0, 6)))
    for term, mean in about.reductions(row).items():
        say(f"mean of {term}: {mean}")
    module = row.loss.__module__
    where = "jalign.losses" if module.startswith("jalign.losses") else module
    say(f"\nThe loss, from {where} import {row.loss.__name__}:")
    say(inspect.getdoc(row.loss) or "", soft_wrap=True)
    if row.experience:
        opponent = row.experience.opponent
        last = "" if opponent == "policy" else f", the last by {opponent}"
        say(f"\n{row.experience.responses} responses per prompt{last}:")
        say(inspect.getdoc(row.experience.fn) or "", soft_wrap=True)
