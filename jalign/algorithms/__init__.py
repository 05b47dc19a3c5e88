"""The catalogue. To add an algorithm, write its loss, its row here, and a test with values computed
by hand.

A row's `about` describes the method besides its loss, and where it deviates from the paper and from
TRL; `jalign algorithms NAME` prints it, the loss's docstring and every hyper-parameter.
"""

import difflib
from dataclasses import replace

from jalign.algorithms import custom
from jalign.algorithms.baselines import BASELINES
from jalign.algorithms.distillation import DISTILLATION
from jalign.algorithms.dpo import DPO
from jalign.algorithms.dpo_regularized import DPO_REGULARIZED
from jalign.algorithms.elsewhere import elsewhere, normalized
from jalign.algorithms.games import GAMES
from jalign.algorithms.grpo import GRPO
from jalign.algorithms.humanline import humanline
from jalign.algorithms.lists import LISTWISE
from jalign.algorithms.magnets import MAGNETS
from jalign.algorithms.negative import NEGATIVE
from jalign.algorithms.online import ONLINE
from jalign.algorithms.policy import POLICY
from jalign.algorithms.reference_free import WITHOUT_REFERENCE
from jalign.algorithms.regressions import REGRESSIONS
from jalign.algorithms.rewards import REWARDS
from jalign.algorithms.robust import ROBUST, robust
from jalign.algorithms.self_imitation import SELF_IMITATION
from jalign.algorithms.self_play import SELF_PLAY
from jalign.algorithms.supervised import SUPERVISION
from jalign.algorithms.targets import TARGETS
from jalign.algorithms.trust_region import TRUST_REGION
from jalign.algorithms.unpaired import UNPAIRED
from jalign.algorithms.verifiers import VERIFIERS
from jalign.core import Algorithm, Format, LossFn

__all__ = ["ALGORITHMS", "ROWS", "custom", "get", "humanline", "name_of", "robust"]

# the order of the table that `jalign algorithms` prints
ROWS = (
    *SUPERVISION,
    *DPO,
    *DPO_REGULARIZED,
    *TARGETS,
    *ROBUST,
    *SELF_PLAY,
    *WITHOUT_REFERENCE,
    *UNPAIRED,
    *LISTWISE,
    *NEGATIVE,
    *REWARDS,
    *VERIFIERS,
    *POLICY,
    *GRPO,
    *TRUST_REGION,
    *BASELINES,
    *REGRESSIONS,
    *ONLINE,
    *SELF_IMITATION,
    *DISTILLATION,
    *GAMES,
    *MAGNETS,
)
ALGORITHMS = {row.name: row for row in ROWS}
# a dict keeps the last of two equal names without a word
assert len(ALGORITHMS) == len(ROWS), "two rows share a name"

WRAPPERS = {"re_po": robust, "humanline": humanline}
"""Name of a wrapper -> the function of rows: `re_po+simpo` is `robust(get("simpo"))`."""


def get(name: str | Algorithm | LossFn, format: Format | str | None = None) -> Algorithm:
    """The row of a name, or a user's own row.

    Args:
      name: a name of the catalogue; `file.py:row` or `package.module:row`, where `row` is an
        `Algorithm` or a loss function; `re_po+NAME` or `humanline+NAME`, the row of NAME
        with its loss wrapped (`robust`, `humanline`); or such an object itself.
      format: of a loss function whose arrays are those of several formats.

    Raises:
      ValueError: an unknown name; the message has the nearest, or how to get a known method.
      TypeError: no row can be made of the object.
    """
    if isinstance(name, Algorithm):
        return name
    if callable(name):
        return custom.from_loss(name, format)
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    wrapper, plus, inner = str(name).partition("+")
    if plus and wrapper in WRAPPERS:
        return WRAPPERS[wrapper](get(inner, format))
    # after the catalogue, whose names have no colon: a file cannot hide a row
    if ":" in str(name):
        return custom.from_file(str(name))
    if plus:
        allowed = " or ".join(f"{x}+NAME" for x in WRAPPERS)
        raise ValueError(f"no algorithm {str(name)!r}: before + stands a wrapper, {allowed}")
    raise ValueError(f"no algorithm {str(name)!r}{_what_else(str(name))}")


def name_of(row: Algorithm) -> str:
    """The name by which `get` finds a row again in this process."""
    wrapper, _, inner = row.name.partition("+")
    # a wrapped row of the catalogue is found by its name, as in any other process
    if wrapper in WRAPPERS and inner.rpartition("+")[2] in ALGORITHMS:
        try:
            same = replace(row, hyper={}) == get(row.name)
        except (TypeError, ValueError):  # a user's row, named as a wrapper would refuse it
            same = False
        if same:
            return row.name
    return custom.registered_name(row, ALGORITHMS)


def _what_else(name: str) -> str:
    """The end of the error for an unknown name."""
    # before the nearest names: a known method is not a misspelling of a row
    if here := elsewhere(name):
        return f"; here it is {here}"
    near = difflib.get_close_matches(normalized(name), ALGORITHMS, n=4)
    if not near:
        return (
            "; jalign algorithms lists them, and one of your own is named file.py:row or "
            "package.module:row"
        )
    more = f" Also near: {', '.join(near[1:])}." if near[1:] else ""
    return f"; did you mean {near[0]!r}?{more} jalign algorithms lists them all"
