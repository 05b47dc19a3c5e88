"""FLOPs and memory traffic of a step, counted from the architecture and the shapes.

XLA's own cost analysis counts the body of a loop once. This module counts multiplications and
additions of matrix products, attention over visible tokens only, and the minimum reads of weights,
states and KV cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jalign.kernels.delta_rule import CHUNK
from jalign.models.spec import Spec


class Forward(NamedTuple):
    """FLOPs of one forward pass."""

    linear: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        return self.linear + self.attention + self.head


class Rows(NamedTuple):
    """Sizes of a step, over all devices and micro-batches.

    Attributes:
      tokens: positions in streams, on which the linear layers run.
      rows, row_len: number and length of the rows for attention.
      scored: tokens whose log-probs are computed.
    """

    tokens: int
    rows: int
    row_len: int
    scored: int


def layer_parameters(spec: Spec, experts: float | None = None) -> int:
    """Number of parameters of the matrices of all layers.

    Args:
      experts: how many experts of a layer count; None: all. `active_parameters` has those of a
        token.
    """
    if (mixture := spec.experts) is None:
        inside = (2 + spec.gated) * spec.mlp_width
    else:
        used = mixture.count if experts is None else experts
        inside = 3 * (used * mixture.width + (mixture.shared_width or 0)) + mixture.count
    return _mixing_parameters(spec) + round(spec.depth * spec.width * inside)


def _mixing_parameters(spec: Spec) -> int:
    """Number of parameters of the matrices of attention and gated delta nets."""
    q = 3 if spec.attn_gate else 2  # with the output, and the gate
    attention = spec.width * spec.head_dim * (q * spec.heads + 2 * spec.kv_heads)
    total = len(spec.layers_of("attn")) * attention
    if (delta := spec.delta) is None:
        return total
    columns = 2 * delta.key_width + 3 * delta.value_width + 2 * delta.value_heads
    return total + len(spec.layers_of("delta")) * spec.width * columns


def active_parameters(spec: Spec) -> int:
    """Number of parameters of the layers' matrices that one token passes."""
    return layer_parameters(spec, spec.experts.top_k if spec.experts else None)


def head_parameters(spec: Spec) -> int:
    """Number of parameters of the unembedding."""
    return spec.width * spec.vocab_size


def parameters(spec: Spec) -> int:
    """Number of parameters of all matrices and tables."""
    tables = (1 if spec.tied else 2) * head_parameters(spec)
    return layer_parameters(spec) + tables + (spec.learned_positions or 0) * spec.width


def seen(length: int, window: int | None) -> float:
    """Number of (query, key) pairs in a row under causal or windowed attention."""
    if window is None or window >= length:
        return length * (length + 1) / 2
    return window * (window + 1) / 2 + (length - window) * window


def forward(spec: Spec, shapes: Sequence[Rows], *, vocabulary: bool = True) -> Forward:
    """FLOPs of a forward pass over these rows; without `vocabulary`, without log-probs."""
    linear = attention = head = 0.0
    for s in shapes:
        linear += 2.0 * active_parameters(spec) * s.tokens
        for kind in spec.kinds:
            if kind.delta:
                attention += s.rows * s.row_len * _delta_flops(spec)
                continue
            # q k^T and p v, a multiplication and an addition each
            attention += 4.0 * spec.heads * spec.head_dim * s.rows * seen(s.row_len, kind.window)
        head += 2.0 * head_parameters(spec) * s.scored * vocabulary
    return Forward(linear, attention, head)


def _delta_flops(spec: Spec) -> float:
    """FLOPs of the gated delta rule for a token: its state is read twice and written once, and in a
    chunk queries and keys meet all keys, and are applied to what all of them write.
    """
    assert spec.delta is not None
    k, v = spec.delta.key_dim, spec.delta.value_dim
    return spec.delta.value_heads * (6.0 * k * v + CHUNK * (4.0 * k + 3.0 * v))


def step(
    spec: Spec,
    shapes: Sequence[Rows],
    *,
    adapters: bool,
    remat: str = "none",
    reference: bool = False,
    again: bool = False,
    vocabulary: bool = True,
) -> tuple[float, float]:
    """FLOPs of an optimizer step: without and with recomputation.

    Args:
      adapters: whether the matrices are frozen and get no gradient.
      remat: of `jalign.kernels.remat`. "full" recomputes every layer except for its last product,
        which no gradient needs; "attention_output" all but attention itself, "attention" products
        of the MLP only, "dots" none.
      reference: whether a reference model runs forward.
      again: whether a batch-coupled loss runs the policy forward twice.
    """
    f = forward(spec, shapes, vocabulary=vocabulary)
    # the gradient of inputs, and of weights unless they are frozen; attention has no weights
    backward = (1 if adapters else 2) * (f.linear + f.head) + 2 * f.attention
    useful = f.total + backward + reference * f.total
    mixture, inside = spec.experts, spec.mlp_width
    if mixture is not None:
        inside = mixture.top_k * mixture.width + (mixture.shared_width or 0)
    tokens = sum(s.tokens for s in shapes)
    last = 2.0 * spec.depth * inside * spec.width * tokens
    mixing = 2.0 * _mixing_parameters(spec) * tokens
    twice = {
        "none": 0.0,
        "dots": 0.0,
        "attention": f.linear - last - mixing,
        "attention_output": f.linear - last,
        "full": f.linear - last + f.attention,
    }[remat]
    return useful, useful + twice + again * f.total


def decode_bytes(spec: Spec, rows: int, prompt: int, new: int, itemsize: int) -> float:
    """Bytes read to decode `new` tokens in each of `rows` rows: all weights once per token, of
    experts those that any row uses if all are equally likely, and the KV cache of each row.
    """
    used = None
    if spec.experts:
        count, k = spec.experts.count, spec.experts.top_k
        used = count * (1 - (1 - k / count) ** rows)
    weights = (layer_parameters(spec, used) + head_parameters(spec)) * itemsize
    cache = cache_entry(spec, itemsize) * (new * prompt + new * new / 2)
    return new * weights + rows * (cache + 2 * new * state_bytes(spec))


def cache_entry(spec: Spec, itemsize: int) -> int:
    """Bytes of one token's keys and values."""
    return 2 * len(spec.layers_of("attn")) * spec.kv_heads * spec.head_dim * itemsize


def state_bytes(spec: Spec) -> int:
    """Bytes of a row's states of gated delta nets, which each token reads and writes."""
    if (delta := spec.delta) is None:
        return 0
    return len(spec.layers_of("delta")) * delta.value_heads * delta.key_dim * delta.value_dim * 4
