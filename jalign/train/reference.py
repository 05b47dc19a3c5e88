"""Cache of reference log-probs on disk, keyed by everything they depend on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from jalign import store
from jalign.core import Algorithm, Frozen
from jalign.parallel import hosts
from jalign.train.objective import Apply, Objective
from jalign.train.source import Offline


def reference_columns(
    source: Offline,
    algorithm: Algorithm,
    apply: Apply,
    frozen: Frozen,
    *,
    folder: store.StorePath,
    key: dict[str, object],
    say: Callable[[str], None],
    compiler_options: Mapping[str, bool | str] | None = None,
    **hyper: float,
) -> dict[str, np.ndarray]:
    """`{ref_name: [examples]}` for every reference array the algorithm reads.

    Args:
      source: the data set, without cached columns.
      folder: where `ref-<digest>.npz` files are kept.
      key: fingerprints of data, tokenizer and reference, and anything else the values depend on.
      compiler_options: those of the training step (`jalign.kernels.compiler_options`).
    Raises:
      ValueError: the algorithm's reference arrays are not one number per example.
    """
    objective = Objective.of(algorithm, **hyper)
    names = [n for n in objective.inputs if n.startswith("ref_")]
    digest = hashlib.sha256(json.dumps(key | {"names": names}, sort_keys=True).encode()).hexdigest()
    path = folder / f"ref-{digest[:16]}.npz"
    n_examples = len(source.batches.examples)
    # Process 0 decides: a shared folder may show a new file to some hosts earlier than to others.
    if hosts.broadcast_int(path.exists()):
        kept, why = _read(path, names, n_examples)
        if not hosts.any_process(kept is None):
            say(f"reference log-probs: read from {path}")
            return kept or {}
        say(f"warning: {path} is damaged ({why or 'on another process'}): computed again")

    @partial(jax.jit, compiler_options=dict(compiler_options or {}))
    def reference(frozen: Frozen, batch: Any) -> Any:
        return objective.reference_fields(apply, frozen, batch)

    # NaN, so that an example in no batch is noticed below.
    columns = {n: np.full(n_examples, np.nan, np.float32) for n in names}
    for data in source.eval_batches():
        for stack in data:
            for i in range(int(stack.count)):
                batch = stack.micro_batch(i)
                fields = jax.tree.map(hosts.gather, reference(frozen, batch))
                index = hosts.gather(batch.extras["index"])
                for name, values in fields.items():
                    if values.ndim != 1:
                        raise ValueError(
                            f"{algorithm.name}: {name} is not one number per example, so it "
                            "cannot be cached"
                        )
                    # Empty slots have index -1, which numpy takes for the last example.
                    columns[name][index[index >= 0]] = values[index >= 0]
    missing = int(sum((~np.isfinite(c)).sum() for c in columns.values()))
    if missing:
        raise ValueError(f"{missing} reference log-probs are missing or not finite")
    if hosts.is_main():
        try:
            store.write(path, lambda file: np.savez(file, allow_pickle=False, **columns))
        except OSError as error:  # a run does not need its cache
            say(f"warning: reference log-probs: computed, and not kept in {path}: {error}")
            return columns
    say(f"reference log-probs: computed once, kept in {path}")
    return columns


def _read(
    path: store.StorePath, names: list[str], count: int
) -> tuple[dict[str, np.ndarray] | None, str]:
    """The columns of a file, or None and the reason if the file is damaged."""
    try:
        # No pickle: reading a cache must not be able to run code.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            columns = {n: saved[n] for n in names}
    except Exception as error:  # zip, numpy and file systems share no error class for damage
        return None, f"{type(error).__name__}: {error}"
    if not all(c.shape == (count,) and np.isfinite(c).all() for c in columns.values()):
        return None, "it does not hold one finite number per example"
    return columns, ""
