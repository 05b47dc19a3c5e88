"""How the tokens of a batch lie in memory. Built by `data`, read by `models/score.py`; nobody else
looks inside.

A batch is K responses to each of B prompts. Its tokens lie in S independent streams (one or more
per data-parallel device), each N tokens long.

Two shapes of the same record:

* flat (`rows` given): a stream holds many examples, and a prompt shared by its K responses stands
  once. Linear layers run on the stream; attention runs on M right-padded rows of T tokens (prompt +
  one response) gathered from it by `rows`; `inverse` says where in those rows each stream token
  went, so that both gathers have gather-only gradients.
* padded (`rows is None`): every stream IS one right-padded row (S = B*K, N = T).

Shape letters: B prompts, K responses per prompt, R scored tokens per response, S streams, N tokens
  per stream, M rows per stream, T tokens
per row, Q scored tokens per stream, P prompts per stream (B = S*P for flat).
"""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any  # numpy on the host, jax on the device; this module imports neither


class Layout(NamedTuple):
    """Token positions of one micro-batch; every index is local to its stream.

    Attributes:
      tokens: [S, N] int32 token ids; unused places hold 0.
      positions: [S, N] int32 position of each token in its row (prompt tokens 0..p-1, each response
        p..).
      before: [S, Q] int32 place in the stream whose hidden state predicts the scored token.
      at: [S, Q] int32 place in the stream of the scored token itself; unused entries of `before`
        and `at` are 0.
      slots: [S, P, K, R] int32 entry of Q that holds the r-th scored token of a response; unused 0
        (and False in the batch's mask). Reshaped to [B, K, R] it lines up with `Batch.mask`.
      rows: [S, M, T] int32 place in the stream of each row's tokens, or None (padded). Unused
        places hold N - 1, which is never a real token.
      inverse: [S, N, K] int32 places in the flattened rows [M*T] where a stream token stands, first
        K; unused entries hold M*T.
    """

    tokens: Array
    positions: Array
    before: Array
    at: Array
    slots: Array
    rows: Array | None = None
    inverse: Array | None = None
