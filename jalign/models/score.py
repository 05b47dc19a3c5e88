"""Scores of responses: one run of a model over a layout, read at every scored token.

Only the scored tokens reach the vocabulary, and what reaches it never exists for all tokens at once
(`jalign.models.logprobs`).

Shape letters: S streams, N tokens per stream, Q scored tokens per stream, P prompts per stream, B =
S * P prompts, K responses per prompt, R scored tokens per response, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jalign.core import did_you_mean
from jalign.layout import Layout
from jalign.models.logprobs import STATISTICS, kl, statistics

HEADS = {"values": "before", "scores": "at"}  # scalar-head outputs and the hidden state each reads
OUTPUTS = (*STATISTICS, *HEADS)
PAIR_OUTPUTS = ("kl_to_ref", "kl_from_ref")

Scores = dict[str, Float[Array, "B K R"]]


def score(
    model: Any,
    layout: Layout,
    outputs: Sequence[str],
    *,
    key: Array | None = None,
    temperature: float = 1.0,
) -> Scores:
    """The named quantities of every scored token, float32 [B, K, R]; only what is named is
    computed.

    token_logps: log p(token | what stands before it), nats. entropy: of that distribution, nats.
      log_sum_p_squared: log of its sum
    of squares. values: the scalar head before the token. scores: the scalar head at the token
    itself. Where the batch's mask is False the result is arbitrary but finite.

    Args:
      model: a `jalign.models.decoder.Decoder`.
      outputs: names out of `OUTPUTS`.
      key: for dropout; None is none, as a reference must be.
      temperature: the logits are divided by it, as when sampling.

    Raises:
      ValueError: for an unknown output, or one that needs a head the model does not have.
    """
    _check(outputs, OUTPUTS)
    if (missing := [n for n in outputs if n in HEADS]) and model.value is None:
        raise ValueError(
            f"{', '.join(missing)} need a model with a scalar head, and this one has none"
        )
    hidden = _hidden(model, layout, key)
    found: dict[str, Array] = {}
    of_vocabulary = tuple(n for n in STATISTICS if n in outputs)
    if of_vocabulary:
        weight, numbers = _head(model)
        targets = _take(layout.tokens, layout.at)
        before = _take(hidden, layout.before)
        numbers["temperature"] = temperature
        found |= statistics(before, weight, targets, names=of_vocabulary, **numbers)
    for name, place in HEADS.items():
        if name in outputs:
            # One number per token: cheaper to compute for all of them than to gather their states.
            found[name] = _take(model.value(hidden), getattr(layout, place))
    return {name: _by_response(found[name], layout.slots) for name in outputs}


def score_pair(
    model: Any,
    ref_model: Any,
    layout: Layout,
    outputs: Sequence[str] = ("kl_to_ref",),
    *,
    key: Array | None = None,
    temperature: float = 1.0,
) -> Scores:
    """Exact divergences between two models over the whole vocabulary, nats per scored token,
    float32 [B, K, R].

    kl_to_ref: KL(model || reference). kl_from_ref: KL(reference || model). Both models have one
      vocabulary; the reference has no
    gradient. Arguments as in `score`.
    """
    _check(outputs, PAIR_OUTPUTS)
    sides = []
    for m, k in ((model, key), (ref_model, None)):
        weight, numbers = _head(m)
        sides.append((_take(_hidden(m, layout, k), layout.before), weight, numbers))
    sides[1] = (*jax.lax.stop_gradient(sides[1][:2]), sides[1][2])
    found = {}
    for name in outputs:
        (h, w, first), (other_h, other_w, second) = sides if name == "kl_to_ref" else sides[::-1]
        numbers = first | {f"other_{n}": x for n, x in second.items()}
        found[name] = kl(h, w, other_h, other_w, temperature=temperature, **numbers)
    return {name: _by_response(found[name], layout.slots) for name in outputs}


def functional(
    model: nnx.Module, trainable: Any
) -> tuple[Callable[..., Scores], nnx.State, nnx.State]:
    """(apply, params, base): the model as a pure function and two plain pytrees, split once.

    `apply(params, base, layout, outputs, key=None, temperature=1.0)` is `score` of the model with
    these weights.

    Args:
      trainable: an nnx filter, such as `nnx.Param` (full fine-tuning) or `nnx.LoRAParam`; what it
        selects is `params`.

    Raises:
      ValueError: when it selects nothing.
    """
    graphdef, params, base = nnx.split(model, trainable, ...)
    if not jax.tree.leaves(params):
        raise ValueError(f"nothing in this model is selected by the trainable filter {trainable!r}")

    def apply(
        params: nnx.State,
        base: nnx.State,
        layout: Layout,
        outputs: Sequence[str],
        key: Array | None = None,
        temperature: float = 1.0,
    ) -> Scores:
        merged = nnx.merge(graphdef, params, base)
        return score(merged, layout, outputs, key=key, temperature=temperature)

    return apply, params, base


def _check(outputs: Sequence[str], known: Sequence[str]) -> None:
    for name in outputs:
        if name not in known:
            near = did_you_mean(name, known)
            raise ValueError(f"the scorer has no output {name!r}{near} (all: {', '.join(known)})")


def _hidden(model: Any, layout: Layout, key: Array | None) -> Float[Array, "S N D"]:
    hidden, _ = model(
        layout.tokens, layout.positions, rows=layout.rows, inverse=layout.inverse, key=key
    )
    return hidden


def _head(model: Any) -> tuple[Array, dict[str, Any]]:
    weight, vocab_axis = model.head()
    spec = model.spec
    return weight, {
        "vocab_axis": vocab_axis,
        "softcap": spec.logit_softcap,
        "scale": spec.logit_scale,
    }


def _take(x: Array, places: Array) -> Array:
    """x [S, N, ...] at `places` [S, ...], in every stream its own."""
    return jax.vmap(lambda x, i: x.at[i].get(mode="promise_in_bounds"))(x, places)


def _by_response(x: Float[Array, "S Q"], slots: Int[Array, "_ P K R"]) -> Float[Array, "B K R"]:
    """Scored tokens of a stream -> of a response. Padded rows may have `slots` [B, 1, K, R]: stream
    b * K + k holds response k.
    """
    k, r = slots.shape[2:]
    if slots.shape[0] == x.shape[0]:
        return _take(x, slots).reshape(-1, k, r)
    rows = x.reshape(-1, k, x.shape[-1])
    return jnp.take_along_axis(rows, slots.reshape(-1, k, r), axis=-1)
