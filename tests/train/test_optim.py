"""Schedules reach the numbers they promise; every option of an optimizer counts or is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.train.optim import decayed, make_optimizer, make_schedule

PARAMS = {
    "embed": {"weight": jnp.full((6, 4), 0.5)},
    "layers": {
        "attn": {"q": {"kernel": jnp.full((2, 4, 4), 0.5), "bias": jnp.full((2, 4), 0.5)}},
        "attn_norm": {"weight": jnp.full((2, 4), 0.5)},
    },
}


def test_warm_up_then_cosine_reaches_the_peak_and_the_end():
    rate = make_schedule("cosine", 2e-3, steps=110, warmup_steps=10, final=0.1)
    got = [float(rate(i)) for i in (0, 4, 9, 10, 60, 110)]
    np.testing.assert_allclose(got, [2e-4, 1e-3, 2e-3, 2e-3, 1.1e-3, 2e-4], rtol=1e-5)


def test_linear_and_constant_schedules():
    linear = make_schedule("linear", 1.0, steps=10)
    np.testing.assert_allclose([linear(i) for i in (0, 5, 10)], [1.0, 0.5, 0.0])
    constant = make_schedule("constant", 1.0, steps=10, warmup_steps=2)
    np.testing.assert_allclose([constant(i) for i in (0, 1, 2, 9)], [0.5, 1.0, 1.0, 1.0])


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match=r"warmup_steps must be in 0..10"):
        make_schedule("cosine", 1.0, steps=10, warmup_steps=11)
    with pytest.raises(ValueError, match="learning_rate must be >= 0"):
        make_schedule("cosine", -1.0, steps=10)
    with pytest.raises(ValueError, match="final is a fraction"):
        make_schedule("cosine", 1.0, steps=10, final=2.0)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "muon", "sgd"])
def test_every_optimizer_lowers_a_quadratic(name):
    optimizer = make_optimizer(name, 0.01)
    params, state = PARAMS, optimizer.init(PARAMS)

    def loss(p):
        return sum(jnp.sum((x - 0.1) ** 2) for x in jax.tree.leaves(p))

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    before = loss(params)
    for _ in range(20):
        params, state = step(params, state)
    assert loss(params) < before


def test_norms_and_biases_are_not_decayed():
    assert decayed(PARAMS) == {
        "embed": {"weight": True},
        "layers": {
            "attn": {"q": {"kernel": True, "bias": False}},
            "attn_norm": {"weight": False},
        },
    }


def test_weight_decay_shrinks_matrices_when_there_is_no_gradient():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    for name in ("adamw", "adafactor", "lion", "muon"):
        optimizer = make_optimizer(name, 0.1, weight_decay=0.5)
        updates, _ = optimizer.update(zero, optimizer.init(PARAMS), PARAMS)
        assert (updates["layers"]["attn"]["q"]["kernel"] < 0).all(), name
        assert (updates["layers"]["attn_norm"]["weight"] == 0).all(), name


def test_clipping_bounds_the_global_norm():
    optimizer = make_optimizer("sgd", 1.0, clip_norm=0.5)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    norm = np.sqrt(sum(float(jnp.sum(u**2)) for u in jax.tree.leaves(updates)))
    np.testing.assert_allclose(norm, 0.5, rtol=1e-5)


def test_muon_treats_each_layer_by_itself():
    optimizer = make_optimizer("muon", 1.0, clip_norm=None)
    g = jax.random.normal(jax.random.key(0), (2, 4, 4))
    grads = jax.tree.map(jnp.zeros_like, PARAMS)
    grads["layers"]["attn"]["q"]["kernel"] = g
    both = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)[0]["layers"]["attn"]["q"][
        "kernel"
    ]
    grads["layers"]["attn"]["q"]["kernel"] = g.at[1].multiply(5.0)
    scaled = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)[0]["layers"]["attn"]["q"][
        "kernel"
    ]
    np.testing.assert_allclose(both[0], scaled[0], rtol=1e-5)
    np.testing.assert_allclose(
        both[1], scaled[1], rtol=1e-2, atol=1e-3
    )  # orthogonalised: scale is gone


def test_an_option_that_cannot_apply_is_refused():
    with pytest.raises(ValueError, match="weight_decay does not apply to sgd"):
        make_optimizer("sgd", 0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="momentum does not apply to adamw, which reads b1"):
        make_optimizer("adamw", 0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"b2 does not apply to sgd, .*: leave it at 0\.999"):
        make_optimizer("sgd", 0.1, b2=0.95)
    with pytest.raises(ValueError, match="final does not apply to a constant schedule"):
        make_schedule("constant", 0.1, steps=10, final=0.1)
    with pytest.raises(ValueError, match="clip_norm must be > 0"):
        make_optimizer("adamw", 0.1, clip_norm=0.0)
