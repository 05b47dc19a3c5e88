"""Runs one after the other in the same processes: _in_turn.py ARGUMENTS [then ARGUMENTS ...]."""

import sys
from itertools import groupby

from jalign.config.read import read_config
from jalign.parallel import hosts
from tests._train import train

hosts.initialize()
for then, arguments in groupby(sys.argv[1:], lambda word: word == "then"):
    if not then and (code := train(read_config(list(arguments)), None)):
        sys.exit(code)
