"""`jalign init FILE --algorithm NAME --model M --data D`: a config to start from."""

from collections.abc import Sequence

from rich.console import Console

from jalign.config.init import write_config
from jalign.config.read import read_as
from jalign.options.init import InitConfig


def init(args: Sequence[str], console: Console) -> None:
    """Write a config, and print what to do with it."""
    file = write_config(read_as(InitConfig, args, "init", {"file": "?"}))
    for line in (
        f"{file} is written. Next:",
        f"  jalign data {file}     # what the model will see",
        f"  jalign train {file} --steps 10 --out runs/first-look     # check that everything fits",
        f"  jalign train {file}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
