"""A batch-invariant policy: the sampler's log-probs are the trainer's, bit by bit."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.core import Frozen
from jalign.kernels.compiler_options import compiler_options
from jalign.layout import Layout
from jalign.models.experts.spec import Experts
from jalign.models.functional import functional
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

# Windows, norms of queries and keys, soft-capped logits: all that a token passes through.
RICH = dataclasses.replace(SPEC, depth=1, window=9, qk_norm=True)
# One bucket of prompts, and rows of two blocks of keys.
LENGTHS = (35, 47, 33, 60, 39, 63, 51, 41)
PROMPTS = [np.random.default_rng(n).integers(3, 23, n).astype(np.int32) for n in LENGTHS]
SETTINGS = Settings(max_new_tokens=9, temperature=0.7, responses=2, eos=(2, 5))


MIXTURE = Experts(count=5, top_k=2, width=12, normalize=True, bias=True, shared_width=7)


@functools.cache
def decoder(dtype=jnp.float32, *, batch_invariant=True, experts=None):
    spec = dataclasses.replace(RICH, experts=experts, attn_sinks=experts is not None)
    model = nnx.merge(*tiny(spec=spec))
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "dtype"):
            module.dtype = dtype
    if batch_invariant:
        model.set_batch_invariant()
    return model


@functools.cache
def scorer(model, max_tokens):
    """The trainer's program, in micro-batches of at most so many tokens."""
    apply, params, base = functional(model, nnx.Param)
    mesh = make_mesh(devices=jax.devices()[:1])
    packer = MicroBatchPacker(mesh, max(LENGTHS), SETTINGS.max_new_tokens, max_tokens, 8)
    run = ResponseScorer(apply, SETTINGS.temperature, packer, compiler_options(model.dtype))

    def logps(rollout):
        with jax.set_mesh(mesh):
            fields = run(rollout, ("old_token_logps",), params, Frozen(base, None))
        return fields["old_token_logps"][rollout.mask]

    return logps


@pytest.mark.parametrize(
    ("batch_size", "dtype", "max_tokens", "experts"),
    [
        (1, jnp.float32, 128, None),
        (3, jnp.bfloat16, 128, MIXTURE),
        (3, jnp.bfloat16, 128, None),
        (8, jnp.float32, 512, None),
    ],
)
def test_the_sampler_records_the_log_probs_that_the_scorer_computes(
    batch_size, dtype, max_tokens, experts
):
    """In batches of other sizes rows have other neighbors and places, in other micro-batches
    streams and rows have other lengths.
    """
    model = decoder(dtype, experts=experts)
    rollout = respond(model, PROMPTS, SETTINGS, KEY, batch_size=batch_size)
    want = scorer(model, max_tokens)(rollout)
    np.testing.assert_array_equal(rollout.token_logps[rollout.mask], want)
    assert len(set(want.tolist())) > 20 and not rollout.finished.all()


def test_rows_that_are_refilled_record_them_too():
    rollout = respond_refilling(decoder(), PROMPTS, SETTINGS, KEY, rows=3, chunk=4)
    want = scorer(decoder(), 128)(rollout)
    np.testing.assert_array_equal(rollout.token_logps[rollout.mask], want)
    assert len(set(rollout.lengths.ravel().tolist())) > 2  # rows were refilled at different times


def test_the_log_probs_of_the_ordinary_sampler_differ_from_the_scorers():
    model = decoder(batch_invariant=False)
    rollout = respond(model, PROMPTS, SETTINGS, KEY, batch_size=8)
    got, want = rollout.token_logps[rollout.mask], scorer(model, 512)(rollout)
    assert (got != want).any()
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_differentiated_program_has_the_same_bits_and_the_ordinary_gradients():
    """So a ratio in the training step is 1, and what is learned is what an ordinary run learns."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(3, 23, (2, 20)))
    at = jnp.broadcast_to(jnp.arange(4, 20), (2, 16))
    slots = jnp.arange(16).reshape(1, 1, 1, 16).repeat(2, 0)
    positions = jnp.broadcast_to(jnp.arange(20), (2, 20))
    layout = Layout(tokens, positions, at - 1, at, slots)

    def loss(state, graphdef):
        logps = score(nnx.merge(graphdef, state), layout, ("token_logps",))["token_logps"]
        return (logps * jnp.cos(jnp.arange(16))).sum(), logps

    learn = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, logps), grads = learn(*nnx.split(decoder())[::-1])
    alone = jax.jit(loss, static_argnums=1)(*nnx.split(decoder())[::-1])[1]
    np.testing.assert_array_equal(logps, alone)
    (_, near), want = learn(*nnx.split(decoder(batch_invariant=False))[::-1])
    np.testing.assert_allclose(logps, near, atol=1e-4)
    chex.assert_trees_all_close(grads, want, rtol=1e-3, atol=1e-4)


def test_what_it_cannot_hold_for_is_refused():
    cut, least = (dataclasses.replace(SETTINGS, **x) for x in ({"top_k": 5}, {"min_p": 0.2}))
    with pytest.raises(ValueError, match="top_k must be None, got 5"):
        respond(decoder(), PROMPTS, cut, KEY, batch_size=5)
    with pytest.raises(ValueError, match=r"min_p must be 0\.0, got 0\.2"):
        respond_refilling(decoder(), PROMPTS, least, KEY, rows=2)
    stretched = dataclasses.replace(SPEC, rope=DynamicNTK(factor=2.0, original_tokens=8))
    with pytest.raises(ValueError, match="angles depend on the length of the row"):
        nnx.merge(*tiny(spec=stretched)).set_batch_invariant()
    with pytest.raises(ValueError, match="no quantized matrices"):
        quantize(decoder(), "int8").set_batch_invariant()
