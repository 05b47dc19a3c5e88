"""Compute reference log-probs once, before training, and cache them on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jalign import store
from jalign.core import Frozen
from jalign.kernels.compiler_options import compiler_options
from jalign.log import RunLog
from jalign.run.setup import Setup
from jalign.train.reference import reference_columns
from jalign.train.source import Offline

if TYPE_CHECKING:
    from jalign.checkpoint.manifest import Facts


def with_cached_reference(
    setup: Setup,
    sources: tuple[Offline | None, ...],
    frozen: Frozen,
    identity: Facts,
    out: store.StorePath,
    log: RunLog,
) -> Frozen:
    """Add the reference's log-probs to the batches of the sources; return `frozen` without the
    reference, so that its memory is freed.
    """
    roles = setup.roles
    for source in sources:
        if source is None:
            continue
        # everything that the values depend on: with another of these the files on disk are stale
        key = {
            "data": source.batches.examples.fingerprint,
            "tokenizer": identity["tokenizer"],
            "reference": identity["reference"],
            "base_model": identity["base_model"],
            # policy and reference are equal at step 0 in one type only
            "dtype": str(roles.decoder.dtype),
        }
        source.columns = reference_columns(
            source,
            setup.options.algorithm,
            roles.apply,
            frozen,
            folder=out / "reference",
            key=key,
            say=log.say,
            # as the training step is compiled, for the same reason
            compiler_options=compiler_options(roles.decoder.dtype),
        )
    return Frozen(frozen.base, None)
