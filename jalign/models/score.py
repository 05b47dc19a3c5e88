"""Scores of responses: one run of a model over a layout, read at every scored token.

Only the scored tokens reach the vocabulary, and what reaches it never exists for all tokens at once
(`jalign.models.logprobs`).

Shape letters: S streams, N tokens per stream, Q scored tokens per stream, P prompts per stream, B =
S * P prompts, K responses per prompt, R scored tokens per response, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jalign.core import did_you_mean
from jalign.layout import Layout
from jalign.models import invariant
from jalign.models.divergence import jsd, kl
from jalign.models.experts.statistics import router_statistics
from jalign.models.logprobs import STATISTICS, statistics, token_logps
from jalign.models.spec import Spec
from jalign.models.topk_negatives import topk_negatives
from jalign.parallel.axes import CONTEXT, TOKEN_AXES
from jalign.parallel.rules import constrain, ways

HEADS = {"values": "before", "scores": "at", "attributes": "at"}  # the hidden state each reads
ALONE = (*STATISTICS, "competitor_logps", "router", *HEADS)
WITH_REFERENCE = ("kl_to_ref", "kl_from_ref", "jsd_to_ref", *(f"ref_{n}" for n in STATISTICS))
OUTPUTS = (*ALONE, *WITH_REFERENCE)

Outputs = dict[str, Float[Array, "B K R *A"]]


def score(
    model: Any,
    layout: Layout,
    outputs: Sequence[str],
    *,
    reference: Any = None,
    key: Array | None = None,
    temperature: float = 1.0,
    top_k: int = 1,
    jsd_beta: float = 0.5,
    routes: Float[Array, "B K R E"] | None = None,
) -> Outputs:
    """The named quantities of every scored token, float32 [B, K, R]; only what is named is
    computed.

    token_logps: log p(token | preceding tokens), nats. entropy: of that distribution, nats.
    log_sum_p_squared: log of its sum of squares. competitor_logps: log p of another token, one of
    the `top_k` likeliest (drawn with `key`, the likeliest without). values: the scalar head before
    the token. router: the `jalign.models.experts.statistics` of a model with experts, [B, K, R, 4].
    scores: the scalar head at the token itself. attributes: all outputs of that head,
    [B, K, R, A]. Against `reference`, over the whole vocabulary: kl_to_ref: KL(model || reference),
    kl_from_ref: KL(reference || model), jsd_to_ref: generalized Jensen-Shannon divergence; and the
    first three of the reference itself, as ref_token_logps and so on. Where the batch's mask is
    False the result is arbitrary but finite.

    Args:
      model: a `jalign.models.decoder.Decoder`.
      outputs: names out of `OUTPUTS`.
      reference: another model with the same vocabulary; it has no gradient and no dropout.
      key: for dropout and drawing; None is none, as a reference must be.
      temperature: the logits are divided by it, as when sampling.
      routes: 1 + the expert of a mixture that a response token uses, for each layer and choice, E =
        L * k; 0: the router's own choice, as of prompts and of the reference.

    Raises:
      ValueError: for an unknown output, or one that needs a head or a reference that is not there.
    """
    _check(outputs, model, reference)
    hidden_key, draw_key = (None, None) if key is None else jax.random.split(key)
    out = {}
    replayed = None if routes is None else _replayed(model.spec, layout, routes)
    if "router" in outputs:
        hidden, out["router"] = _hidden_and_router(model, layout, hidden_key, replayed)
    else:
        hidden = _hidden(model, layout, hidden_key, replayed)
    for name in outputs:
        if name in HEADS:
            # A few numbers per token: cheaper to compute for all than to gather their states.
            read = model.value.attributes if name == "attributes" else model.value
            out[name] = _take(read(hidden), getattr(layout, HEADS[name]))
    # A reward model may have no unembedding at all.
    if any(n not in (*HEADS, "router") for n in outputs):
        options: dict[str, Any] = {"temperature": temperature}
        targets = _apart(_take(layout.tokens, layout.at))
        # Scored tokens only: about a quarter of the tokens of real preference pairs.
        before = _apart(_take(hidden, layout.before))
        weight, head = _head(model)
        names = tuple(n for n in STATISTICS if n in outputs)
        if "token_logps" in names and model.batch_invariant:
            out["token_logps"] = invariant.token_logps(model, before, targets, temperature)
            names = tuple(n for n in names if n != "token_logps")
        if names:
            out |= statistics(before, weight, targets, names=names, **head, **options)
        if "competitor_logps" in outputs:
            ids = topk_negatives(
                before, weight, targets, top_k=top_k, key=draw_key, **head, **options
            )
            out["competitor_logps"] = token_logps(before, weight, ids, **head, **options)
        if any(n in WITH_REFERENCE for n in outputs):
            mine = (before, weight, head)
            out |= _against(mine, reference, layout, targets, outputs, jsd_beta, options)
    shape = layout.at.shape  # [S, Q]
    out = {name: x.reshape(*shape, *x.shape[2:]) for name, x in out.items()}
    return {name: _by_response(out[name], layout.slots) for name in outputs}


def _against(
    mine: tuple[Array, Array, dict[str, Any]],
    reference: Any,
    layout: Layout,
    targets: Array,
    outputs: Sequence[str],
    jsd_beta: float,
    options: dict[str, Any],
) -> dict[str, Array]:
    """What needs the reference, from one run of it."""
    (h, w, head), stop = mine, jax.lax.stop_gradient
    ref_w, ref_head = _head(reference)
    # Stopped before the divergence, which then skips the backward pass of that side.
    ref_h = stop(_apart(_take(_hidden(reference, layout, None), layout.before)))
    ref_w = stop(ref_w)
    out = {}
    if names := tuple(n for n in STATISTICS if f"ref_{n}" in outputs):
        of_ref = statistics(ref_h, ref_w, targets, names=names, **ref_head, **options)
        out |= {f"ref_{n}": x for n, x in of_ref.items()}
    forth = (h, w, ref_h, ref_w), head | {f"other_{n}": x for n, x in ref_head.items()} | options
    back = (ref_h, ref_w, h, w), ref_head | {f"other_{n}": x for n, x in head.items()} | options
    if "kl_to_ref" in outputs:
        out["kl_to_ref"] = kl(*forth[0], **forth[1])
    if "kl_from_ref" in outputs:
        out["kl_from_ref"] = kl(*back[0], **back[1])
    if "jsd_to_ref" in outputs:
        out["jsd_to_ref"] = jsd(*forth[0], beta=jsd_beta, **forth[1])
    return out


def _check(outputs: Sequence[str], model: Any, reference: Any) -> None:
    for name in outputs:
        if name not in OUTPUTS:
            near = did_you_mean(name, OUTPUTS)
            raise ValueError(f"the scorer has no output {name!r}{near} (all: {', '.join(OUTPUTS)})")
    if (missing := [n for n in outputs if n in HEADS]) and model.value is None:
        raise ValueError(
            f"{', '.join(missing)} need a model with a scalar head, and this one has none"
        )
    if "router" in outputs and model.spec.experts is None:
        raise ValueError("router statistics need a model with experts, and this one has none")
    if (missing := [n for n in outputs if n in WITH_REFERENCE]) and reference is None:
        raise ValueError(f"{', '.join(missing)} need a reference, and none is given")


def _hidden(
    model: Any, layout: Layout, key: Array | None, replayed: Array | None = None
) -> Float[Array, "S N D"]:
    options = {"rows": layout.rows, "inverse": layout.inverse, "key": key}
    if replayed is not None:
        options["replayed"] = replayed
    hidden, _ = model(layout.tokens, layout.positions, **options)
    return hidden


def _replayed(spec: Spec, layout: Layout, routes: Float[Array, "B K R E"]) -> Int[Array, "L S N k"]:
    """The experts of every token of the streams, -1 where its router chooses."""
    if spec.experts is None:
        raise ValueError("routes are replayed by a model with experts, and this one has none")
    streams, n = layout.tokens.shape
    slots = layout.slots.reshape(streams, -1)
    routes = routes.reshape(streams, slots.shape[1], -1).astype(jnp.int32)
    empty = jnp.zeros((n, routes.shape[-1]), jnp.int32)
    # Unused slots have no route and add nothing to the token that they point to.
    by_token = jax.vmap(lambda at, i, x: empty.at[at[i]].max(x))(layout.at, slots, routes)
    by_layer = by_token.reshape(streams, n, spec.depth, spec.experts.top_k)
    return by_layer.transpose(2, 0, 1, 3) - 1


def _hidden_and_router(
    model: Any, layout: Layout, key: Array | None, replayed: Array | None
) -> tuple[Float[Array, "S N D"], Float[Array, "S Q 4"]]:
    options = {"rows": layout.rows, "inverse": layout.inverse, "key": key, "replayed": replayed}
    hidden, _, logits = model.with_router(layout.tokens, layout.positions, **options)
    return hidden, jnp.stack(router_statistics(logits, layout, model.spec.experts.top_k), -1)


def _head(model: Any) -> tuple[Array, dict[str, Any]]:
    weight, vocab_axis = model.head()
    spec = model.spec
    return weight, {
        "vocab_axis": vocab_axis,
        "softcap": spec.logit_softcap,
        "scale": spec.logit_scale,
    }


def _take(x: Array, slots: Array) -> Array:
    """x [S, N, ...] at `places` [S, ...], in every stream its own."""
    return jax.vmap(lambda x, i: x.at[i].get(mode="promise_in_bounds"))(x, slots)


def _apart(x: Array) -> Array:
    """Scored tokens [S, Q, ...] of streams that lie on several devices each as streams of their
    own, [S * devices, Q / devices, ...].
    """
    devices = ways(CONTEXT)
    if devices == 1 or x.shape[1] % devices:
        return x
    x = x.reshape(-1, x.shape[1] // devices, *x.shape[2:])
    return constrain(x, TOKEN_AXES, *[None] * (x.ndim - 1))


def _by_response(x: Float[Array, "S Q *A"], slots: Int[Array, "_ P K R"]) -> Array:
    """Scored tokens of a stream -> of a response. Padded rows may have `slots` [B, 1, K, R]: stream
    b * K + k holds response k.
    """
    k, r = slots.shape[2:]
    if slots.shape[0] == x.shape[0]:
        return _take(x, slots).reshape(-1, k, r, *x.shape[2:])
    rows = x.reshape(-1, k, *x.shape[1:])
    at = slots.reshape(-1, k, r, *[1] * (x.ndim - 2))
    return jnp.take_along_axis(rows, at, axis=2)
