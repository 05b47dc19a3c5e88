"""The data of a run: rows from files or from memory, records, tokenized examples.

`load` does everything; the other functions serve commands that need only a part.
"""

from jalign.run.data.examples import (
    RunData,
    examples_of,
    held_of,
    load,
    pretraining_of,
    tokenize_prompts,
)
from jalign.run.data.records import converted, prompt_records, prompts_of
from jalign.run.data.sources import (
    MemoryRow,
    all_rows,
    as_rows,
    described_splits,
    held_rows,
    names_of,
    rows_of,
)

__all__ = [
    "MemoryRow",
    "RunData",
    "all_rows",
    "as_rows",
    "converted",
    "described_splits",
    "examples_of",
    "held_of",
    "held_rows",
    "load",
    "names_of",
    "pretraining_of",
    "prompt_records",
    "prompts_of",
    "rows_of",
    "tokenize_prompts",
]
