"""Log-probabilities of given responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32

from jalign import algorithms
from jalign.data.kinds import recognize
from jalign.data.rows import Row
from jalign.layout import Batch
from jalign.options import DataConfig, RunOptions
from jalign.parallel import hosts
from jalign.run import data as run_data
from jalign.run.batches import held_source_of
from jalign.run.policy import Policy

if TYPE_CHECKING:
    from jaxtyping import PyTree

_ROWS = {"supervised": "sft", "pairs": "dpo", "binary": "kto", "lists": "dpo_list"}
"""Kind of rows -> an algorithm that reads them; only its data format is used."""


class LogProbs(NamedTuple):
    """Log-probabilities of K responses to each of n prompts, nats.

    Attributes:
      logps: sum over the tokens of a response; for pairs the preferred response is first.
      token_logps: per token; 0 where `mask` is False.
      mask: whether a position holds a token of the response.
    """

    logps: Float32[np.ndarray, "n K"]
    token_logps: Float32[np.ndarray, "n K R"]
    mask: Bool[np.ndarray, "n K R"]


def score(
    policy: Policy, rows: Sequence[Row], *, batch_size: int = 32, data: DataConfig | None = None
) -> LogProbs:
    """log p(response | prompt) under a policy.

    Args:
      rows: prompts with their responses, in any layout that `jalign.offline` reads.
      batch_size: rows per call.
      data: options such as length limits.

    Raises:
      ValueError: rows cannot be read, or have no responses.
    """
    kind, _ = recognize(dict.fromkeys(name for row in rows for name in row), rows[:3])
    if kind not in _ROWS:
        raise ValueError(f"rows of {kind} have no responses to score")
    options = RunOptions(
        algorithm=algorithms.get(_ROWS[kind]),
        # a budget of training may be too small for these rows
        data=replace(data or DataConfig(), max_tokens=None),
        batch_size=min(batch_size, len(rows)),
        mesh=policy.mesh_options,
    )
    examples = run_data.held_of(options, policy.tokenizer, rows)
    assert examples is not None
    apply, params, base = policy.functional()

    # params and base are arguments: captured arrays would be compiled in as constants
    @jax.jit
    def token_logps(params: PyTree, base: PyTree, batch: Batch) -> jax.Array:
        out = apply(params, base, batch.layout, ("token_logps",))["token_logps"]
        return jnp.where(batch.mask, out.reshape(batch.mask.shape), 0.0)

    with jax.set_mesh(policy.mesh):
        source = held_source_of(options, examples, policy.mesh, policy.decoder.spec)
        shape = (len(examples), examples.k or 1, int(examples.lengths.response_lens.max()))
        logps, mask = np.zeros(shape, np.float32), np.zeros(shape, bool)
        for stacks in source.eval_batches():
            for stack in stacks:
                for i in range(int(stack.count)):
                    batch = stack.micro_batch(i)
                    index = hosts.gather(batch.extras["index"])
                    # an empty slot has the index -1
                    real, r = index >= 0, batch.mask.shape[-1]
                    width = min(r, shape[-1])
                    values = hosts.gather(token_logps(params, base, batch))
                    scored = hosts.gather(batch.mask)
                    k = min(shape[1], scored.shape[-2])
                    logps[index[real], :k, :width] = values[real][:, :k, :width]
                    mask[index[real], :k, :width] = scored[real][:, :k, :width]
    return LogProbs(logps.sum(-1), logps, mask)
