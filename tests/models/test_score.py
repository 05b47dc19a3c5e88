"""Scores do not depend on how the tokens lie in memory, and are what the model's logits say."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.layout import Inverse, Layout
from jalign.models.decoder import Decoder
from jalign.models.functional import functional
from jalign.models.score import ALONE, score
from jalign.models.spec import Spec

NAMES = tuple(n for n in ALONE if n not in ("competitor_logps", "attributes", "router"))

# Two prompts with two responses each; every response token is scored. R is 3.
PROMPTS = [[5, 6, 7], [8, 9]]
RESPONSES = [[[1, 2], [3]], [[4, 1, 6], [2, 7]]]
MASK = np.array([[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [1, 1, 0]]], bool)


def padded(four=True):
    t, q = 6, 4
    shapes = {"tokens": (4, t), "positions": (4, t), "before": (4, q), "at": (4, q)}
    a = {n: np.zeros(s, np.int32) for n, s in shapes.items()}
    slots = np.zeros((2, 1, 2, 3) if four else (4, 1, 1, 3), np.int32)
    for b, prompt in enumerate(PROMPTS):
        for k, response in enumerate(RESPONSES[b]):
            s, p, n = 2 * b + k, len(prompt), len(response)
            a["tokens"][s, : p + n] = prompt + response
            a["positions"][s, : p + n] = np.arange(p + n)
            a["at"][s, :n] = p + np.arange(n)
            a["before"][s, :n] = p - 1 + np.arange(n)
            slots.reshape(4, 3)[s, :n] = np.arange(n)
    return jax.tree.map(jnp.asarray, Layout(slots=slots, **a))


def flat(streams):
    """All in one stream, or a prompt per stream."""
    n, m, t, q = 16, 4 // streams, 6, 12
    s, p = streams, 2 // streams
    shapes = {"tokens": (s, n), "positions": (s, n), "before": (s, q), "at": (s, q)}
    a = {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
    slots, rows = np.zeros((s, p, 2, 3), np.int32), np.full((s, m, t), n - 1, np.int32)
    first, second = np.full((2, s, n), m * t, np.int32)
    for stream in range(s):
        end = entry = 0
        for place in range(p):
            b = stream * p + place
            prompt, start, length = PROMPTS[b], end, len(PROMPTS[b])
            a["tokens"][stream, end : end + length] = prompt
            a["positions"][stream, end : end + length] = np.arange(length)
            end += length
            for k, response in enumerate(RESPONSES[b]):
                row, count = 2 * place + k, len(response)
                here = end + np.arange(count)
                a["tokens"][stream, here] = response
                a["positions"][stream, here] = length + np.arange(count)
                rows[stream, row, :length] = start + np.arange(length)
                rows[stream, row, length : length + count] = here
                (first, second)[k][stream, start : start + length] = row * t + np.arange(length)
                first[stream, here] = row * t + length + np.arange(count)
                entries = entry + np.arange(count)
                a["at"][stream, entries], a["before"][stream, entries] = here, here - 1
                a["before"][stream, entry] = start + length - 1
                slots[stream, place, k, :count] = entries
                end, entry = end + count, entry + count
    inverse = Inverse(first, second[..., None])
    return jax.tree.map(jnp.asarray, Layout(slots=slots, rows=rows, inverse=inverse, **a))


def tiny(seed=0, value_head=True, **changes):
    sizes = {"vocab_size": 11, "width": 16, "depth": 2, "mlp_width": 24}
    spec = Spec(**sizes | {"heads": 2, "kv_heads": 1, "head_dim": 8} | changes)
    return Decoder(spec, value_head=value_head, rngs=nnx.Rngs(seed))


def test_scores_are_those_of_the_models_logits_at_every_scored_token():
    model, layout = tiny(logit_softcap=2.0, logit_scale=3.0), padded()

    @jax.jit
    def plain():
        hidden, _ = model(layout.tokens, layout.positions)
        return jax.nn.log_softmax(model.logits(hidden) / 0.7), model.value(hidden)

    out = jax.jit(lambda: score(model, layout, NAMES, temperature=0.7))()
    logp, scalar = (np.asarray(x) for x in plain())
    for b, prompt in enumerate(PROMPTS):
        for k, response in enumerate(RESPONSES[b]):
            for r, token in enumerate(response):
                row, i = 2 * b + k, len(prompt) + r
                before = logp[row, i - 1]
                expected = {
                    "token_logps": before[token],
                    "entropy": -(np.exp(before) * before).sum(),
                    "log_sum_p_squared": np.log(np.exp(2 * before).sum()),
                    "values": scalar[row, i - 1],
                    "scores": scalar[row, i],
                }
                for name in NAMES:
                    np.testing.assert_allclose(out[name][b, k, r], expected[name], atol=1e-5)


@pytest.mark.parametrize("streams", [1, 2])
def test_flat_streams_and_padded_rows_give_the_same_scores_and_gradients(streams):
    apply, params, base = functional(tiny(), nnx.Param)
    weights = np.random.default_rng(0).normal(size=(len(NAMES), *MASK.shape)) * MASK

    def loss(params, layout):
        out = apply(params, base, layout, NAMES)
        out = {n: jnp.where(MASK, x, 0.0) for n, x in out.items()}
        return sum((out[n] * w).sum() for n, w in zip(NAMES, weights, strict=True)), out

    run = jax.jit(jax.grad(loss, has_aux=True))
    a, b = run(params, padded()), run(params, flat(streams))
    chex.assert_trees_all_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("layout", [padded(), flat(1)])
@pytest.mark.parametrize("head_dim", [8, 64, 128])  # tokens last; heads first, in pairs
def test_the_tpu_kernel_gives_the_scores_and_gradients_of_plain_attention(
    monkeypatch, head_dim, layout, qk_norm
):
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel

    interpreted = functools.partial(kernel.make_splash_mha, interpret=True)
    monkeypatch.setattr(kernel, "make_splash_mha", interpreted)

    def loss(params, base, apply):
        out = apply(params, base, layout, ("token_logps",))["token_logps"]
        return (jnp.where(MASK, out, 0.0) * jnp.arange(MASK.size).reshape(MASK.shape)).sum()

    def result(attention):
        model = tiny(qk_norm=qk_norm, head_dim=head_dim)
        model.attention = attention
        apply, params, base = functional(model, nnx.Param)
        return jax.jit(jax.value_and_grad(loss), static_argnums=2)(params, base, apply)

    chex.assert_trees_all_close(result("splash"), result("xla"), rtol=1e-4, atol=1e-5)


def test_rows_that_are_their_own_streams_are_one_response_each():
    model = tiny()
    names = ("token_logps",)
    run = jax.jit(lambda: [score(model, padded(four), names)[names[0]] for four in (True, False)])
    a, b = run()
    assert a.shape == (2, 2, 3) and b.shape == (4, 1, 3)
    np.testing.assert_array_equal(a.reshape(4, 3), b[:, 0])


def test_only_what_is_named_is_computed():
    model = tiny()
    lowered = jax.jit(lambda: score(model, padded(), ("scores",))).lower()
    assert set(lowered.out_info) == {"scores"}
    text = lowered.as_text()
    assert "x11xf32" not in text.replace("tensor<11x16xf32>", "")  # no logits


def test_divergences_from_a_reference_are_those_of_the_logits_and_zero_to_itself():
    model, other, layout = tiny(0), tiny(1), padded()
    names = ("kl_to_ref", "kl_from_ref")

    @jax.jit
    def run():
        hidden = (m(layout.tokens, layout.positions)[0] for m in (model, other))
        plain = [
            jax.nn.log_softmax(m.logits(h)) for m, h in zip((model, other), hidden, strict=True)
        ]
        itself = score(model, layout, names, reference=model)["kl_to_ref"]
        return itself, score(model, layout, names, reference=other), plain

    itself, out, (a, b) = run()
    np.testing.assert_allclose(itself[MASK], 0.0, atol=1e-6)
    a, b = np.asarray(a)[0, 3], np.asarray(b)[0, 3]  # after the first response's first token
    np.testing.assert_allclose(out["kl_to_ref"][0, 0, 1], (np.exp(a) * (a - b)).sum(), atol=1e-5)
    np.testing.assert_allclose(out["kl_from_ref"][0, 0, 1], (np.exp(b) * (b - a)).sum(), atol=1e-5)


def test_an_unknown_output_or_a_missing_head_is_an_error():
    with pytest.raises(ValueError, match=r"'token_logp'.*did you mean 'token_logps'"):
        score(tiny(), padded(), ("token_logp",))
    with pytest.raises(ValueError, match="scores need a model with a scalar head"):
        score(tiny(value_head=False), padded(), ("token_logps", "scores"))
    with pytest.raises(ValueError, match="no output 'kl'"):
        score(tiny(), padded(), ("kl",))
    with pytest.raises(ValueError, match="kl_to_ref need a reference"):
        score(tiny(), padded(), ("kl_to_ref",))
    with pytest.raises(ValueError, match="trainable filter"):
        functional(tiny(), nnx.LoRAParam)
