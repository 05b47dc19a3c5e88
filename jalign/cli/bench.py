"""`jalign bench step|head|sample|rl|parts`: one table, and the same figures as a line of JSON."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from jalign.bench.run import BENCHES, step, step_in_turns, step_work
from jalign.cli.bench_parts import bench_parts
from jalign.config.read import read_as, read_config
from jalign.core import did_you_mean

_HELP = """usage: jalign bench WHAT [--option VALUE ...]

Measure on this machine; a table, and the same figures as a line of JSON.

  step     an optimizer step: of a random tiny model, or of --config FILE
  head     the log-probs of a large vocabulary, value and gradient
  sample   tokens per second of sampling
  rl       a whole online step: sample, reward, learn
  parts    any commands within a time budget, resumable: what launch/gpu_check.sh runs

jalign bench WHAT --help lists the options of one.

examples:
  jalign bench step
  jalign bench step --config dpo/tinyllama_1b_full_h200 --random -- --batch_size 16"""


def bench(args: Sequence[str], console: Console) -> int | None:
    """Measure one thing on this machine."""
    if not args or args[0] in ("-h", "--help"):
        console.print(_HELP, markup=False, highlight=False)
        return
    what, *rest = args
    if what == "parts":
        return bench_parts(rest, console)
    if what not in BENCHES:
        raise ValueError(f"no benchmark {what!r}{did_you_mean(what, [*BENCHES, 'parts'])}")
    # both sides have options of the same names: behind -- are those of the config
    end = rest.index("--") if "--" in rest else len(rest)
    rest, changes = rest[:end], rest[end + 1 :]
    kind, measure = BENCHES[what]
    options = read_as(kind, rest, f"bench {what}", {})
    if what != "step":
        rows = measure(options)
    elif not options.config and (options.random or changes):
        raise ValueError(f"{' '.join(changes) or '--random'} needs --config")
    else:
        run = read_config([options.config, *changes]) if options.config else None
        if options.turns:
            return step_in_turns(step_work(options, run), options.warmup)
        rows = step(options, run)
    for row in rows:
        table = Table("figure", "value")
        for name, value in row.items():
            table.add_row(name, str(value))
        console.print(table)
        print(json.dumps(row), flush=True)  # a later, larger size may be killed for its memory
