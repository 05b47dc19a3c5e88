"""The kinds of data an algorithm learns from, as views of one `[B, K, R]` batch."""

from jalign.formats.binary import BINARY
from jalign.formats.lists import LISTS
from jalign.formats.pairs import JOINT, PAIRS
from jalign.formats.rated import RATED, SCORED
from jalign.formats.samples import SAMPLES
from jalign.formats.stepwise import STEPWISE
from jalign.formats.supervised import SUPERVISED

_ALL = (SUPERVISED, PAIRS, BINARY, RATED, SCORED, LISTS, STEPWISE, SAMPLES, JOINT)
FORMATS = {f.name: f for f in _ALL}

__all__ = [
    "BINARY",
    "FORMATS",
    "JOINT",
    "LISTS",
    "PAIRS",
    "RATED",
    "SAMPLES",
    "SCORED",
    "STEPWISE",
    "SUPERVISED",
]
