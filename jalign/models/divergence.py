"""KL and Jensen-Shannon divergence between two models' next-token distributions.

As in `jalign.models.logprobs` the vocabulary is swept in blocks (`jalign.models.vocabulary`), so
neither pass holds a [tokens, vocabulary] array. Per token, with p and q the two
distributions, z the logits of p and m = b q + (1 - b) p:

           value                                      gradient by z_v
    kl     KL(p || q)                                 p_v (log p_v - log q_v - kl)
                                                      by the logits of q: q_v - p_v
    jsd    b KL(q || m) + (1 - b) KL(p || m)          (1 - b) p_v (log p_v - log m_v - KL(p || m))
                                                      by the logits of q: the same with p, q and
                                                      b, 1 - b exchanged

Shape letters: S streams (an optional leading axis, which may be sharded), Q tokens per stream, D
and E widths, V vocabulary.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float

from jalign.models.logprobs import LOWEST, with_streams
from jalign.models.vocabulary import Head, gradients, over_blocks, sweep


def kl(
    hidden: Float[Array, "*S Q D"],
    weight: Array,
    other_hidden: Float[Array, "*S Q E"],
    other_weight: Array,
    *,
    vocab_axis: int,
    other_vocab_axis: int,
    **head_options: Any,
) -> Float[Array, "*S Q"]:
    """KL(p || q) = sum_v p_v (log p_v - log q_v), nats, float32; p from the first head, q from the
    other.

    Both sides have gradients; a side that is not differentiated costs nothing in the backward pass.

    Args:
      hidden, weight, vocab_axis: as in `logprobs.token_logps`.
      other_hidden, other_weight, other_vocab_axis: of the second model.
      numbers: softcap, scale, other_softcap, other_scale; temperature and block for both.

    Raises:
      ValueError: when the heads have different vocabularies.
    """
    p, q, h, u = _sides(
        (hidden, weight, vocab_axis), (other_hidden, other_weight, other_vocab_axis), **head_options
    )
    values: Any = _kl(p, q, h, weight, u, other_weight)
    return values.reshape(hidden.shape[:-1])


def jsd(
    hidden: Float[Array, "*S Q D"],
    weight: Array,
    other_hidden: Float[Array, "*S Q E"],
    other_weight: Array,
    *,
    beta: float,
    vocab_axis: int,
    other_vocab_axis: int,
    **head_options: Any,
) -> Float[Array, "*S Q"]:
    """Generalized Jensen-Shannon divergence b KL(q || m) + (1 - b) KL(p || m), m = b q + (1 - b) p.

    Agarwal et al. 2023 (GKD), https://arxiv.org/abs/2306.13649, Eq. 1, with p the student (first
    head) and q the teacher (other head), nats, float32. At the ends, where the formula gives 0, it
    is the limit after division by b or 1 - b: KL(q || p) for b = 0 and KL(p || q) for b = 1, as in
    TRL.

    Args:
      beta: b, in [0, 1]. The others as in `kl`.

    Raises:
      ValueError: beta out of range, or heads with different vocabularies.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], got {beta}")
    first, second = (hidden, weight, vocab_axis), (other_hidden, other_weight, other_vocab_axis)
    p, q, h, u = _sides(first, second, **head_options)
    values: Any
    if beta == 0:
        values = _kl(q, p, u, other_weight, h, weight)
    elif beta == 1:
        values = _kl(p, q, h, weight, u, other_weight)
    else:
        values = _jsd(p, q, float(beta), h, weight, u, other_weight)
    return values.reshape(hidden.shape[:-1])


def _sides(
    first: tuple,
    second: tuple,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
    other_softcap: float | None = None,
    other_scale: float = 1.0,
    temperature: float = 1.0,
    block: tuple[int, int] | None = None,
) -> tuple[Head, Head, Array, Array]:
    """Both heads, cut alike, and both hidden states as [S, Q, .]."""
    sizes = [weight.shape[axis] for _, weight, axis in (first, second)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"a divergence needs one vocabulary, but the heads have {sizes[0]} and {sizes[1]} "
            "entries"
        )
    same = {"temperature": temperature, "block": block}
    h, u = with_streams(first[0]), with_streams(second[0])
    p = Head.of(h, first[1], vocab_axis=first[2], softcap=softcap, scale=scale, **same)
    q = Head.of(
        u, second[1], vocab_axis=second[2], softcap=other_softcap, scale=other_scale, **same
    )
    return p, q, h, u


# ---- kl: one sweep, with running maxima and sums of both sides


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _kl(p: Head, q: Head, h: Array, w: Array, other_h: Array, other_w: Array) -> Array:
    return _kl_forward(p, q, h, w, other_h, other_w)["kl"]


def _kl_forward(
    p: Head, q: Head, h: Array, w: Array, other_h: Array, other_w: Array
) -> dict[str, Array]:
    """ "kl" and both logsumexps, "total" and "other", [S, Q]."""

    def update(h, other_h, c, first, block, other_block):
        z, u = p.logits(p.times(h, block)), q.logits(q.times(other_h, other_block))
        top, other = jnp.maximum(c["top"], z.max(-1)), jnp.maximum(c["other"], u.max(-1))
        shrink, other_shrink = jnp.exp(c["top"] - top), jnp.exp(c["other"] - other)
        e = jnp.exp(z - top[:, None])
        apart = (z - top[:, None]) - (u - other[:, None])
        # e * (z - u) was summed relative to the old maxima; both shifts are corrected here.
        moved = (c["apart"] + c["sum"] * ((c["top"] - top) - (c["other"] - other))) * shrink
        return {
            "top": top,
            "sum": c["sum"] * shrink + e.sum(-1),
            "other": other,
            "other_sum": c["other_sum"] * other_shrink + jnp.exp(u - other[:, None]).sum(-1),
            "apart": moved + (e * apart).sum(-1),
        }

    def run(hidden):
        zero = jnp.zeros(hidden[0].shape[0], jnp.float32)
        start = {"top": zero + LOWEST, "sum": zero, "other": zero + LOWEST}
        start |= {"other_sum": zero, "apart": zero}
        c = sweep([(p, w), (q, other_w)], functools.partial(update, *hidden), start)
        log_sum, other_log_sum = jnp.log(c["sum"]), jnp.log(c["other_sum"])
        return {
            "kl": c["apart"] / c["sum"] - log_sum + other_log_sum,
            "total": c["top"] + log_sum,
            "other": c["other"] + other_log_sum,
        }

    out = over_blocks(run, (p.cut(h), q.cut(other_h)))
    return {name: p.join(x, *h.shape[:2]) for name, x in out.items()}


def _kl_fwd(p: Head, q: Head, *primals):
    h, w, other_h, other_w = (x.value for x in primals)
    out = _kl_forward(p, q, h, w, other_h, other_w)
    # Not booleans: residuals are pytrees, and a bool would come back as a traced array.
    marks = tuple(() if x.perturbed else None for x in primals)
    return out["kl"], (h, w, other_h, other_w, out, marks)


def _kl_bwd(p: Head, q: Head, residuals, g):
    h, w, other_h, other_w, saved, marks = residuals
    if isinstance(g, SymbolicZero):
        g = jnp.zeros(h.shape[:2], jnp.float32)
    tokens = {n: p.cut(x) for n, x in saved.items()} | {"g": p.cut(g)}

    def to_p(t, first, size, z, u):
        log_p = z - t["total"]
        return t["g"] * jnp.exp(log_p) * (log_p - (u - t["other"]) - t["kl"])

    def to_q(t, first, size, u, z):
        return t["g"] * (jnp.exp(u - t["other"]) - jnp.exp(z - t["total"]))

    sides, states = [(p, w), (q, other_w)], [p.cut(h), q.cut(other_h)]
    ours = _side(sides, states, tokens, to_p, marks[:2], h.shape)
    theirs = _side(sides[::-1], states[::-1], tokens, to_q, marks[2:], h.shape)
    return *ours, *theirs


# symbolic_zeros shows which inputs are differentiated: a frozen side costs no backward pass.
_kl.defvjp(_kl_fwd, _kl_bwd, symbolic_zeros=True)


def _side(sides, states, tokens, dz, marks, shape) -> tuple[Array | None, Array | None]:
    """Gradients by hidden states and weight of the first side; None where they are not needed."""
    if marks == (None, None):
        return None, None
    head = sides[0][0]
    dh, dw = gradients(sides, states, tokens, dz, to_weight=marks[1] is not None)
    return head.join(dh, *shape[:2]).astype(states[0].dtype), dw


# ---- jsd: a second sweep, since the mixture needs both normalizers


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _jsd(p: Head, q: Head, beta: float, h: Array, w: Array, other_h: Array, other_w: Array):
    return _jsd_forward(p, q, beta, h, w, other_h, other_w)["jsd"]


def _logs(beta: float, z: Array, total: Array, u: Array, other: Array) -> tuple[Array, ...]:
    """log p, log q and log m of a block."""
    log_p, log_q = z - total, u - other
    # In logs, since p and q underflow at unlikely tokens.
    return log_p, log_q, jnp.logaddexp(math.log(beta) + log_q, math.log1p(-beta) + log_p)


def _jsd_forward(
    p: Head, q: Head, beta: float, h: Array, w: Array, other_h: Array, other_w: Array
) -> dict[str, Array]:
    """ "jsd", its parts "p_to_m" and "q_to_m", and both logsumexps, [S, Q]."""
    sides = [(p, w), (q, other_w)]

    def log_sums(h, other_h, c, first, block, other_block):
        z, u = p.logits(p.times(h, block)), q.logits(q.times(other_h, other_block))
        return {
            "total": jnp.logaddexp(c["total"], jax.nn.logsumexp(z, -1)),
            "other": jnp.logaddexp(c["other"], jax.nn.logsumexp(u, -1)),
        }

    def divergences(h, other_h, total, other, c, first, block, other_block):
        z, u = p.logits(p.times(h, block)), q.logits(q.times(other_h, other_block))
        log_p, log_q, log_m = _logs(beta, z, total[:, None], u, other[:, None])
        return {
            "p_to_m": c["p_to_m"] + (jnp.exp(log_p) * (log_p - log_m)).sum(-1),
            "q_to_m": c["q_to_m"] + (jnp.exp(log_q) * (log_q - log_m)).sum(-1),
        }

    def run(states):
        zero = jnp.zeros(states[0].shape[0], jnp.float32)
        start = {"total": zero + LOWEST, "other": zero + LOWEST}
        c = sweep(sides, functools.partial(log_sums, *states), start)
        body = functools.partial(divergences, *states, c["total"], c["other"])
        return c | sweep(sides, body, {"p_to_m": zero, "q_to_m": zero})

    blocks = over_blocks(run, (p.cut(h), q.cut(other_h)))
    out = {name: p.join(x, *h.shape[:2]) for name, x in blocks.items()}
    return out | {"jsd": beta * out["q_to_m"] + (1 - beta) * out["p_to_m"]}


def _jsd_fwd(p: Head, q: Head, beta: float, *primals):
    h, w, other_h, other_w = (x.value for x in primals)
    out = _jsd_forward(p, q, beta, h, w, other_h, other_w)
    marks = tuple(() if x.perturbed else None for x in primals)
    return out["jsd"], (h, w, other_h, other_w, out, marks)


def _jsd_bwd(p: Head, q: Head, beta: float, residuals, g):
    h, w, other_h, other_w, saved, marks = residuals
    if isinstance(g, SymbolicZero):
        g = jnp.zeros(h.shape[:2], jnp.float32)
    tokens = {n: p.cut(x) for n, x in saved.items()} | {"g": p.cut(g)}

    def to_p(t, first, size, z, u):
        log_p, _, log_m = _logs(beta, z, t["total"], u, t["other"])
        return t["g"] * (1 - beta) * jnp.exp(log_p) * (log_p - log_m - t["p_to_m"])

    def to_q(t, first, size, u, z):
        _, log_q, log_m = _logs(beta, z, t["total"], u, t["other"])
        return t["g"] * beta * jnp.exp(log_q) * (log_q - log_m - t["q_to_m"])

    sides, states = [(p, w), (q, other_w)], [p.cut(h), q.cut(other_h)]
    ours = _side(sides, states, tokens, to_p, marks[:2], h.shape)
    theirs = _side(sides[::-1], states[::-1], tokens, to_q, marks[2:], h.shape)
    return *ours, *theirs


_jsd.defvjp(_jsd_fwd, _jsd_bwd, symbolic_zeros=True)
