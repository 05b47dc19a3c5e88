"""The command line called as a user calls it."""

import pytest

from jalign.cli.main import main

CHEAP = {"mesh.data": 1, "mesh.fsdp": -1, "mesh.tensor": 1, "algorithm": "simpo"}


def call(args, capsys=None):
    """Exit code and what was printed."""
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in args])
    return int(exit_.value.code or 0), capsys.readouterr() if capsys else None
