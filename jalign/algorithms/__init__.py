"""The catalogue. Adding an algorithm: write its loss, add its row, add its golden test.

A row's `about` says what makes the method beside its loss, and where it departs from the paper and
from TRL; `jalign algorithms NAME` prints it, the loss's docstring and every hyper-parameter.
"""

from jalign import naming
from jalign.algorithms.games import GAMES
from jalign.algorithms.lists import LISTWISE
from jalign.algorithms.negative import NEGATIVE
from jalign.algorithms.online import ONLINE
from jalign.algorithms.pairs import WITH_REFERENCE
from jalign.algorithms.policy import POLICY
from jalign.algorithms.reference_free import WITHOUT_REFERENCE
from jalign.algorithms.rewards import REWARDS
from jalign.algorithms.supervised import SUPERVISION
from jalign.algorithms.unpaired import UNPAIRED
from jalign.core import Algorithm

ROWS = (
    *SUPERVISION,
    *WITH_REFERENCE,
    *WITHOUT_REFERENCE,
    *UNPAIRED,
    *LISTWISE,
    *NEGATIVE,
    *REWARDS,
    *POLICY,
    *ONLINE,
    *GAMES,
)
ALGORITHMS = {row.name: row for row in ROWS}
assert len(ALGORITHMS) == len(ROWS), "two rows share a name"


def get(name: str) -> Algorithm:
    """The row of that name, or a user's own, as `file.py:row` or `package.module:row`; an unknown
    one is a ValueError with the nearest.
    """
    return naming.find(name, ALGORITHMS)
