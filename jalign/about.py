"""What is to be known of a row: every hyper-parameter with its meaning, and how means are taken."""

import inspect
import re
from collections.abc import Callable

from jalign import losses
from jalign.core import Algorithm, Reduction
from jalign.signatures import hyper_of

_OF_OTHERS = {
    "top_k": "the competitor is drawn among this many of the likeliest tokens except the "
    "response's own; 1 takes the likeliest",
    "jsd_beta": "b of the divergence, in [0, 1]; 0 is KL(teacher || student), 1 is "
    "KL(student || teacher)",
    "temperature": "of both distributions, > 0",
    "ref_sync_steps": "optimizer steps after which the reference moves towards the policy; 0: it "
    "is fixed",
    "ref_mixup_alpha": "the reference becomes alpha * policy + (1 - alpha) * reference when it "
    "moves, in (0, 1]; 1 is a copy",
    "last_sync_steps": "optimizer steps after which the second moving reference (`last`) moves "
    "towards the policy, >= 1",
    "last_mixup_alpha": "as ref_mixup_alpha, of the second moving reference",
    "half_step": "the fraction of an update that the opponent is ahead of the policy, >= 0; 0: no "
    "extragradient",
}
"""Numbers that the scorer or the step reads (`SCORER_HYPER`, `REFERENCE_HYPER`, `LAST_HYPER` of
`core`)."""


def hyperparameters(row: Algorithm) -> dict[str, tuple[float, str]]:
    """{name: (default, meaning)} of every number that can be set; a meaning is "" where nobody
    wrote one.
    """
    return {name: (value, _meaning(row, name)) for name, value in row.hyperparameters.items()}


def reductions(row: Algorithm) -> dict[str, str]:
    """{name: how its mean over the optimizer step is taken} of the loss and of terms whose weight
    is not 0.
    """
    return {term.name: _summary(term.reduce) for term in row.objective_terms()}


def _meaning(row: Algorithm, name: str) -> str:
    if aux := row.available_aux_losses.get(name):
        return f"weight of {_summary(aux.loss)} {_summary(aux.reduce)} 0: left out."
    readers = (row.loss, *((row.experience.fn,) if row.experience else ()))
    for fn in readers:
        if name in hyper_of(fn):
            return arguments_of(fn).get(name, "")
    return _OF_OTHERS.get(name, "")


def arguments_of(fn: Callable) -> dict[str, str]:
    """{parameter: its text in the Args section of the docstring}; "as in `other`" is looked up."""
    meanings: dict[str, str] = {}
    names: list[str] = []
    lines = (inspect.getdoc(fn) or "").splitlines()
    start = lines.index("Args:") + 1 if "Args:" in lines else len(lines)
    for line in lines[start:]:
        if not line.startswith("  "):
            break
        if match := re.match(r"  (\w+(?:, \w+)*): (.*)", line):
            names = match[1].split(", ")
            meanings |= dict.fromkeys(names, match[2])
        else:
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return {name: _looked_up(fn, name, text) for name, text in meanings.items()}


def _looked_up(fn: Callable, name: str, text: str) -> str:
    match = re.match(r"as in `(\w+)`(?:[.;:,]\s*)?(.*)", text)
    if not match:
        return text
    other = getattr(inspect.getmodule(fn), match[1], None) or getattr(losses, match[1])
    meaning = arguments_of(other).get(name, "")
    return f"{meaning.rstrip('.')}; {match[2]}" if match[2] else meaning


def _summary(fn: Callable | Reduction) -> str:
    """The first paragraph of a docstring, in one line that ends with a full stop."""
    first = " ".join((inspect.getdoc(fn) or "").split("\n\n")[0].split())
    return first.rstrip(".") + "."
