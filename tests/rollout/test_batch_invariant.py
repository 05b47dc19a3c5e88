"""A batch-invariant policy: the sampler's log-probs are the trainer's, bit by bit."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.core import Frozen
from jalign.kernels.rounding import same_rounding
from jalign.layout import Layout
from jalign.models.functional import functional
from jalign.models.invariant import set_batch_invariant
from jalign.models.quant import quantize
from jalign.models.rope_stretched import DynamicNTK
from jalign.models.score import score
from jalign.parallel.mesh import make_mesh
from jalign.rollout.groups import respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from jalign.train.micro_batches import MicroBatchPacker
from jalign.train.scoring import ResponseScorer
from tests.rollout._tiny import KEY, SPEC, tiny

# A window, norms of queries and keys, soft-capped logits: all that a token passes through.
RICH = dataclasses.replace(SPEC, window=9, windowed=(True, False), qk_norm=True)
PROMPTS = [np.random.default_rng(n).integers(3, 23, n).astype(np.int32) for n in (5, 17, 2, 40, 9)]
SETTINGS = Settings(max_new_tokens=9, temperature=0.7, responses=2, eos=(2,))


def decoder(dtype=jnp.float32, *, batch_invariant=True):
    model = nnx.merge(*tiny(spec=RICH))
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "dtype"):
            module.dtype = dtype
    if batch_invariant:
        set_batch_invariant(model)
    return model


def scored(model, rollout, max_tokens):
    """Log-probs by the trainer's program, in micro-batches of at most so many tokens."""
    apply, params, base = functional(model, nnx.Param)
    mesh = make_mesh(devices=jax.devices()[:1])
    packer = MicroBatchPacker(mesh, 40, SETTINGS.max_new_tokens, max_tokens, 8)
    scorer = ResponseScorer(apply, SETTINGS.temperature, packer, same_rounding(model.dtype))
    with jax.set_mesh(mesh):
        name = "old_token_logps"
        return scorer(rollout, (name,), params, Frozen(base, None))[name][rollout.mask]


@pytest.fixture(scope="module")
def model():
    return decoder()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_sampler_records_the_log_probs_that_the_scorer_computes(model, batch_size):
    prompts = [PROMPTS[i % 5] for i in range(batch_size)]
    settings = dataclasses.replace(SETTINGS, eos=())
    rollout = respond(model, prompts, settings, KEY, batch_size=batch_size)
    for max_tokens in (64, 512):  # other streams, rows and padding
        want = scored(model, rollout, max_tokens)
        np.testing.assert_array_equal(rollout.token_logps[rollout.mask], want)
    assert len(set(want.tolist())) > 8


def test_refilled_rows_record_them_too_and_their_number_changes_nothing(model):
    three, four = (
        respond_refilling(model, PROMPTS, SETTINGS, KEY, rows=rows, chunk=4) for rows in (3, 4)
    )
    np.testing.assert_array_equal(three.tokens, four.tokens)
    np.testing.assert_array_equal(three.token_logps, four.token_logps)
    np.testing.assert_array_equal(three.token_logps[three.mask], scored(model, three, 64))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_ordinary_decoder_rounds_differently_and_in_16_bits_this_one_does_not(dtype):
    ordinary, invariant = (decoder(dtype, batch_invariant=x) for x in (False, True))
    for model, equal in ((ordinary, False), (invariant, True)):
        rollout = respond(model, PROMPTS, SETTINGS, KEY, batch_size=5)
        got, want = rollout.token_logps[rollout.mask], scored(model, rollout, 64)
        assert np.array_equal(got, want) is equal
        np.testing.assert_allclose(got, want, atol=0.1 if dtype == jnp.bfloat16 else 1e-4)


def test_a_differentiated_program_has_the_same_bits_and_the_ordinary_gradients(model):
    """So a ratio in the training step is 1, and what is learned is what an ordinary run learns."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(3, 23, (2, 20)))
    at = jnp.broadcast_to(jnp.arange(4, 20), (2, 16))
    slots = jnp.arange(16).reshape(1, 1, 1, 16).repeat(2, 0)
    positions = jnp.broadcast_to(jnp.arange(20), (2, 20))
    layout = Layout(tokens, positions, at - 1, at, slots)

    def loss(state, graphdef):
        logps = score(nnx.merge(graphdef, state), layout, ("token_logps",))["token_logps"]
        return (logps * jnp.cos(jnp.arange(16))).sum(), logps

    (_, logps), grads = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)(
        *nnx.split(model)[::-1]
    )
    alone = jax.jit(loss, static_argnums=1)(*nnx.split(model)[::-1])[1]
    np.testing.assert_array_equal(logps, alone)
    ordinary = nnx.split(decoder(batch_invariant=False))[::-1]
    (_, near), want = jax.value_and_grad(loss, has_aux=True)(*ordinary)
    np.testing.assert_allclose(logps, near, atol=1e-4)
    chex.assert_trees_all_close(grads, want, rtol=1e-3, atol=1e-4)


def test_what_it_cannot_hold_for_is_refused(model):
    with pytest.raises(ValueError, match="top_k must be None, got 5"):
        respond(model, PROMPTS, dataclasses.replace(SETTINGS, top_k=5), KEY, batch_size=5)
    with pytest.raises(ValueError, match=r"min_p must be 0\.0, got 0\.2"):
        respond_refilling(model, PROMPTS, dataclasses.replace(SETTINGS, min_p=0.2), KEY, rows=2)
    stretched = dataclasses.replace(SPEC, rope=DynamicNTK(factor=2.0, original_tokens=8))
    with pytest.raises(ValueError, match="angles depend on the length of the row"):
        set_batch_invariant(nnx.merge(*tiny(spec=stretched)))
    with pytest.raises(ValueError, match="no quantized matrices"):
        set_batch_invariant(quantize(decoder(), "int8"))
