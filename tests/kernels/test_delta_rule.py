"""The gated delta rule by chunks is its recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.kernels.delta_rule import gated_delta_rule

B, G, H, K, V = 2, 2, 4, 3, 5


def inputs(tokens, seed=0):
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, B, tokens, G, K)) / K**0.5
    v = rng.normal(size=(B, tokens, H, V))
    log_decay = -rng.exponential(0.3, size=(B, tokens, H))
    beta = rng.uniform(size=(B, tokens, H))
    return [jnp.asarray(x, jnp.float32) for x in (q, k, v, log_decay, beta)]


def by_recurrence(q, k, v, log_decay, beta, state):
    """Token by token, as the formula says."""
    q, k, v, log_decay, beta, state = (
        np.asarray(x, np.float64) for x in (q, k, v, log_decay, beta, state)
    )
    state, out = state.copy(), np.zeros(v.shape)
    for b in range(B):
        for h in range(H):
            g = h // (H // G)
            for t in range(v.shape[1]):
                s = np.exp(log_decay[b, t, h]) * state[b, h]
                error = v[b, t, h] - s.T @ k[b, t, g]
                state[b, h] = s + beta[b, t, h] * np.outer(k[b, t, g], error)
                out[b, t, h] = state[b, h].T @ q[b, t, g]
    return out, state


@pytest.mark.parametrize("tokens", [1, 7, 130])
def test_chunks_give_what_the_recurrence_gives(tokens):
    x = inputs(tokens)
    start = jnp.asarray(np.random.default_rng(1).normal(size=(B, H, K, V)), jnp.float32)
    expected = by_recurrence(*x, start)
    for found, should in zip(jax.jit(gated_delta_rule)(*x, start), expected, strict=True):
        np.testing.assert_allclose(found, should, atol=2e-5)


def test_a_row_may_be_continued_from_its_state_and_padding_changes_none():
    q, k, v, log_decay, beta = inputs(40)
    out, state = gated_delta_rule(q, k, v, log_decay, beta)
    first, middle = gated_delta_rule(*(x[:, :25] for x in (q, k, v, log_decay, beta)))
    then, last = gated_delta_rule(*(x[:, 25:] for x in (q, k, v, log_decay, beta)), middle)
    np.testing.assert_allclose(jnp.concatenate([first, then], 1), out, atol=1e-5)
    np.testing.assert_allclose(last, state, atol=1e-5)
    real = jnp.arange(40) < 25
    masked = (jnp.where(real[:, None], x, 0.0) for x in (log_decay, beta))
    np.testing.assert_allclose(gated_delta_rule(q, k, v, *masked)[1], middle, atol=1e-5)


def test_gradients_are_finite_and_those_of_the_recurrence():
    x = inputs(9)

    def loss(*x):
        out, state = gated_delta_rule(*x)
        return jnp.sum(jnp.sin(out)) + jnp.sum(state)

    gradients = jax.jit(jax.grad(loss, argnums=range(5)))(*x)
    zero, step = np.zeros((B, H, K, V)), 1e-4
    for i, gradient in enumerate(gradients):
        at = (1, 4, *(0,) * (gradient.ndim - 2))
        sides = []
        for sign in (1, -1):
            moved = [np.asarray(y, np.float64).copy() for y in x]
            moved[i][at] += sign * step
            out, state = by_recurrence(*moved, zero)
            sides.append(np.sin(out).sum() + state.sum())
        np.testing.assert_allclose(gradient[at], (sides[0] - sides[1]) / (2 * step), rtol=2e-3)
