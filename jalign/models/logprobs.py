"""Token log-probs, entropy and related statistics without a [tokens, vocabulary] array.

The vocabulary is swept in blocks (`jalign.models.vocabulary`): forward with a running maximum and
sum (online softmax), backward by recomputing each block of logits. Arithmetic on logits is float32
whatever the inputs are. Per token, with L = logsumexp(z) and p = exp(z - L):

                       value                    gradient by z_v
    token_logps        z_y - L                  1[v = y] - p_v
    entropy            L - sum p z              -p_v (log p_v + entropy)
    log_sum_p_squared  log sum p^2              2 (p_v^2 / sum p^2 - p_v)

Shape letters: S streams (an optional leading axis, which may be sharded), Q tokens per stream, D
width, V vocabulary.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float, Int

from jalign.models.vocabulary import Head, gradients, over_blocks, sweep

LOWEST = -1e30  # the running maximum's start: finite, so that 0 times it is 0

STATISTICS = ("token_logps", "entropy", "log_sum_p_squared")


def token_logps(
    hidden: Float[Array, "*S Q D"],
    weight: Float[Array, "V D"] | Float[Array, "D V"],
    targets: Int[Array, "*S Q"],
    *,
    vocab_axis: int,
    softcap: float | None = None,
    scale: float = 1.0,
    temperature: float = 1.0,
    block: tuple[int, int] | None = None,
) -> Float[Array, "*S Q"]:
    """log p(target), nats, float32.

    When the head is not trained (LoRA), the gradient by `hidden` is computed in the forward pass
    and only scaled in the backward pass: 2 matrix products instead of 4.

    Args:
      hidden: states after the final norm.
      weight: the unembedding; `vocab_axis` says which of its axes is the vocabulary.
      softcap, scale, temperature: the logits are softcap * tanh(scale * h W / softcap) /
        temperature.
      block: (tokens, vocabulary entries) per block; None chooses by size.
    """
    head_options = {"softcap": softcap, "scale": scale, "temperature": temperature, "block": block}
    out = statistics(
        hidden, weight, targets, names=("token_logps",), vocab_axis=vocab_axis, **head_options
    )
    return out["token_logps"]


def unembed(
    hidden: Float[Array, "*P D"],
    weight: Array,
    *,
    vocab_axis: int,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Float[Array, "*P V"]:
    """All logits in float32, scaled and soft-capped, of a few positions."""
    contracted = (((hidden.ndim - 1,), (1 - vocab_axis,)), ((), ()))
    z = jax.lax.dot_general(hidden, weight, contracted, preferred_element_type=jnp.float32) * scale
    return z if softcap is None else softcap * jnp.tanh(z / softcap)


def entropy(
    hidden: Float[Array, "*S Q D"],
    weight: Array,
    *,
    vocab_axis: int,
    **head_options: Any,
) -> Float[Array, "*S Q"]:
    """-sum_v p_v log p_v, nats, float32. Arguments as in `token_logps`."""
    out = statistics(
        hidden, weight, None, names=("entropy",), vocab_axis=vocab_axis, **head_options
    )
    return out["entropy"]


def log_sum_p_squared(
    hidden: Float[Array, "*S Q D"],
    weight: Array,
    *,
    vocab_axis: int,
    **head_options: Any,
) -> Float[Array, "*S Q"]:
    """log sum_v p_v^2, float32: what WPO subtracts from a token's log-probability. Arguments as in
    `token_logps`.
    """
    names = ("log_sum_p_squared",)
    return statistics(hidden, weight, None, names=names, vocab_axis=vocab_axis, **head_options)[
        names[0]
    ]


def statistics(
    hidden: Float[Array, "*S Q D"],
    weight: Array,
    targets: Int[Array, "*S Q"] | None,
    *,
    names: tuple[str, ...],
    vocab_axis: int,
    **head_options: Any,
) -> dict[str, Float[Array, "*S Q"]]:
    """Several of `STATISTICS` from one sweep over the vocabulary. Arguments as in `token_logps`.

    Raises:
      ValueError: for an unknown statistic, missing targets, or shapes that do not fit.
    """
    for name in names:
        if name not in STATISTICS:
            raise ValueError(f"statistic {name!r} is unknown; there is: {', '.join(STATISTICS)}")
    if targets is None and "token_logps" in names:
        raise ValueError("token_logps needs targets")
    shape, hidden = hidden.shape[:-1], with_streams(hidden)
    targets = jnp.zeros(hidden.shape[:-1], jnp.int32) if targets is None else targets
    head = Head.of(hidden, weight, vocab_axis=vocab_axis, **head_options)
    targets = targets.reshape(hidden.shape[:-1])
    values: Any = _statistics(head, tuple(names), hidden, weight, targets)
    return {name: value.reshape(shape) for name, value in zip(names, values, strict=True)}


def with_streams(x: Array) -> Array:
    """[Q, D] as one stream."""
    return x if x.ndim == 3 else x[None]


# ---- token_logps, entropy, log_sum_p_squared: one custom gradient for any set of them


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _statistics(head: Head, names: tuple[str, ...], hidden: Array, weight: Array, targets: Array):
    return _forward(head, names, hidden, weight, targets, direction=False)["values"]


def _forward(
    head: Head,
    names: tuple[str, ...],
    hidden: Array,
    weight: Array,
    targets: Array,
    direction: bool,
) -> dict[str, Any]:
    """The values, L ("total"), and, if asked for, d token_logps / d hidden ("direction"); each [S,
    Q, ...].
    """

    def run(blk):
        zero = jnp.zeros(blk["h"].shape[0], jnp.float32)
        start = {"top": zero + LOWEST, "sum": zero}
        if "entropy" in names:
            start["first"] = zero  # sum e (z - top)
        if "log_sum_p_squared" in names:
            start["squares"] = zero  # sum e^2
        if direction:
            start["mean"] = jnp.zeros(blk["h"].shape, jnp.float32)  # sum e dz/dx W
        c = sweep([(head, weight)], functools.partial(_update, head, blk["h"]), start)
        log_sum, values, out = jnp.log(c["sum"]), {}, {}
        if "token_logps" in names:
            # The target's logit by itself: in the sweep every block would have to look for it.
            own = head.own(weight, blk["y"])
            z = head.logits(jnp.sum(blk["h"].astype(jnp.float32) * own, -1))
            # The two ways to z round differently, and above 0 an odds ratio's log(1 - p) would be
            # NaN.
            values["token_logps"] = jnp.minimum(z - c["top"] - log_sum, 0.0)
            if direction:
                slope = jnp.broadcast_to(head.slope(z), z.shape)[:, None]
                mean = c["mean"] / c["sum"][:, None]
                out["direction"] = (slope * own - mean).astype(blk["h"].dtype)
        if "entropy" in names:
            values["entropy"] = log_sum - c["first"] / c["sum"]
        if "log_sum_p_squared" in names:
            values["log_sum_p_squared"] = jnp.log(c["squares"]) - 2 * log_sum
        return out | {"total": c["top"] + log_sum, "values": tuple(values[n] for n in names)}

    # Gradient at 1,024 tokens and V = 131,072: 22 MiB of temporaries; 1.5 GiB with all logits.
    out = over_blocks(run, {"h": head.cut(hidden), "y": head.cut(targets)})
    return jax.tree.map(lambda x: head.join(x, *hidden.shape[:2]), out)


def _update(
    head: Head, h: Array, c: dict[str, Array], first: Any, block: Array
) -> dict[str, Array]:
    """One step of the online softmax: sums of e = exp(z - top), rescaled as the maximum rises."""
    z = head.logits(head.times(h, block))
    top = jnp.maximum(c["top"], z.max(-1))
    shrink = jnp.exp(c["top"] - top)
    e = jnp.exp(z - top[:, None])
    new = {"top": top, "sum": c["sum"] * shrink + e.sum(-1)}
    if "first" in c:
        moved = (c["first"] + c["sum"] * (c["top"] - top)) * shrink
        new["first"] = moved + (e * (z - top[:, None])).sum(-1)
    if "squares" in c:
        new["squares"] = c["squares"] * jnp.square(shrink) + jnp.square(e).sum(-1)
    if "mean" in c:
        new["mean"] = c["mean"] * shrink[:, None] + head.back(e * head.slope(z), block)
    return new


def _statistics_fwd(head: Head, names: tuple[str, ...], hidden, weight, targets):
    # A head that is not trained needs no second sweep: the direction of the gradient is known now,
    # its length later.
    direction = "token_logps" in names and not weight.perturbed
    out = _forward(head, names, hidden.value, weight.value, targets.value, direction)
    saved = {"h": hidden.value, "y": targets.value, **out}
    # () and not True: residuals are pytrees, and a bool would come back as a traced array.
    return out["values"], (saved, weight.value, () if weight.perturbed else None)


def _statistics_bwd(head: Head, names: tuple[str, ...], residuals, cotangents):
    saved, weight, trained = residuals
    # A statistic that the loss does not differentiate costs nothing in the backward pass.
    given = {
        n: g for n, g in zip(names, cotangents, strict=True) if not isinstance(g, SymbolicZero)
    }
    values = dict(zip(names, saved["values"], strict=True))
    shape = saved["h"].shape
    dh, dw = jnp.zeros(shape, jnp.float32), None
    if "direction" in saved and "token_logps" in given:
        dh = saved["direction"] * given.pop("token_logps")[..., None]
    if given:
        tokens = {"y": saved["y"], "total": saved["total"]} | {n: values[n] for n in given}
        tokens |= {f"d {n}": g for n, g in given.items()}

        def dz(t: dict[str, Array], first: Any, size: int, z: Array) -> Array:
            log_p = z - t["total"]
            p = jnp.exp(log_p)
            out = jnp.zeros_like(z)
            if "token_logps" in given:
                own = t["y"] == head.ids(weight, first, size)
                out += t["d token_logps"] * (own - p)
            if "entropy" in given:
                out -= t["d entropy"] * p * (log_p + t["entropy"])
            if "log_sum_p_squared" in given:
                ratio = jnp.exp(log_p - t["log_sum_p_squared"])  # p / sum p^2
                out += t["d log_sum_p_squared"] * 2 * p * (ratio - 1)
            return out

        blocks = {n: head.cut(x) for n, x in tokens.items()}
        more, dw = gradients(
            [(head, weight)], [head.cut(saved["h"])], blocks, dz, to_weight=trained is not None
        )
        dh = dh + head.join(more, *shape[:2])
    if dw is None and trained is not None:
        dw = jnp.zeros_like(weight)
    return dh.astype(saved["h"].dtype), dw, None


_statistics.defvjp(_statistics_fwd, _statistics_bwd, symbolic_zeros=True)
