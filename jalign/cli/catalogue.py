"""`jalign algorithms [NAME]`: the catalogue as a table, or one row with its hyper-parameters."""

import inspect
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jalign import about, losses
from jalign.algorithms import ALGORITHMS, get
from jalign.core import TWO_MODELS, Algorithm, arrays_of, mean_over_examples

COLUMNS = (
    "algorithm", "feedback", "reward", "level", "reference", "policy", "SFT", "length", "negative",
    "Nash", "paper",
)  # fmt: skip
_FEEDBACK = {
    "supervised": "none", "pairs": "pair", "joint": "pair", "binary": "binary", "rated": "rating",
    "lists": "list", "stepwise": "steps", "samples": "score",
}  # fmt: skip
_MEANING = """feedback: what is known of responses (none: demonstrations, teacher; score: a reward)
reward: explicit (a scalar head or a preference model is trained) or implicit in the policy
level: whether the loss looks at whole responses or at tokens
reference: a frozen copy of the policy, one that moves, a teacher, or none
policy: off (a fixed data set) or on (responses sampled from the policy itself)
SFT: a likelihood term is part of the loss; length: lengths enter it
negative: only dispreferred responses drive it; Nash: it seeks the equilibrium of a game"""


def taxonomy(row: Algorithm) -> tuple[str, ...]:
    """A row's place in the survey's table (arXiv 2407.16216, Table 1), derived from the row and
    its tags.
    """
    arrays = arrays_of(row.loss)
    outputs = row.outputs(arrays)
    supervised = row.format.name == "supervised"
    explicit = row.needs_value_head or row.format.name in ("joint", "samples")
    by_token = row.format.token_fields & set(arrays) or any(o in TWO_MODELS for o in outputs)
    if row.format.name == "samples":  # all read tokens; some add them up first
        by_token = row.reduce is not mean_over_examples
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
    return "score" if "scores" in judged else _FEEDBACK[row.format.name]


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
    """Print the table; with names, each algorithm's docstring and hyper-parameters."""
    if "--markdown" in args:
        print(markdown())
        return
    if not args or args[0] in ("-h", "--help"):
        table = Table(*COLUMNS)
        for row in ALGORITHMS.values():
            table.add_row(*taxonomy(row)[:-1], row.paper)
        console.print(table)
        console.print(_MEANING, highlight=False)
        console.print(
            "jalign algorithms NAME shows one with its hyper-parameters.", highlight=False
        )
        return
    for name in args:
        row = get(name)
        console.print(f"[bold]{name}[/bold]  ({row.format.name}, arXiv {row.paper})")
        console.print(f"from jalign.losses import {row.loss.__name__}", highlight=False)
        console.print(row.about + "\n", markup=False, highlight=False)
        table = Table("hyper-parameter", "default", "meaning")
        for key, (default, meaning) in about.hyperparameters(row).items():
            table.add_row(key, repr(default), escape(meaning))
        console.print(table)
        for term, mean in about.reductions(row).items():
            console.print(f"mean of {term}: {mean}", markup=False, highlight=False)
        console.print("\nThe loss:", markup=False)
        console.print(inspect.getdoc(row.loss) or "", markup=False, highlight=False)
        if row.experience:
            last = "" if row.experience.last == "policy" else f", the last by {row.experience.last}"
            console.print(f"\n{row.experience.responses} responses per prompt{last}:", markup=False)
            console.print(inspect.getdoc(row.experience.make) or "", markup=False, highlight=False)
