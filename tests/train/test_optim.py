"""Schedules reach the numbers they promise; every option of an optimizer counts or is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jalign.optim.optimizer import decayed, make_optimizer, make_schedule

PARAMS = {
    "embed": {"weight": jnp.full((6, 4), 0.5)},
    "layers": {
        "attn": {"q": {"kernel": jnp.full((2, 4, 4), 0.5), "bias": jnp.full((2, 4), 0.5)}},
        "attn_norm": {"weight": jnp.full((2, 4), 0.5)},
    },
}


def test_warm_up_then_cosine_reaches_the_peak_and_the_end():
    rate = make_schedule("cosine", 2e-3, steps=110, warmup_steps=10, final_lr_fraction=0.1)
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
    with pytest.raises(ValueError, match="final_lr_fraction is a fraction"):
        make_schedule("cosine", 1.0, steps=10, final_lr_fraction=2.0)


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


def test_muon_treats_each_expert_by_itself():
    optimizer = make_optimizer("muon", 1.0, clip_norm=None)
    tree = lambda x: {"layers": {"mlp": {"experts": {"up": {"kernel": x}}}}}  # noqa: E731
    g = jax.random.normal(jax.random.key(0), (1, 2, 4, 3))
    params = tree(jnp.zeros_like(g))

    def update(g):
        return jax.tree.leaves(optimizer.update(tree(g), optimizer.init(params), params)[0])[0]

    both, scaled = update(g), update(g.at[0, 1].multiply(5.0))
    np.testing.assert_allclose(both[0, 0], scaled[0, 0], rtol=1e-5)
    np.testing.assert_allclose(both[0, 1], scaled[0, 1], rtol=1e-2, atol=1e-3)


FACTORS = {"layers": {"q": {"lora": {"a": jnp.array([0.5, -2.0]), "b": jnp.array([0.0, 0.3])}}}}


def stepped(optimizer, grads, params, state):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def test_l1_moves_each_change_towards_0_by_the_rate_of_the_step_times_l1():
    rate = make_schedule("linear", 0.1, steps=2)  # 0.1, then 0.05
    optimizer = make_optimizer("sgd", rate, clip_norm=None, l1=2.0)
    start = {"w": jnp.array([10.0, 10.0, -1.0])}
    grads = {"w": jnp.array([-5.0, 1.0, 3.0])}
    params, state = stepped(optimizer, grads, start, optimizer.init(start))
    # changes 0.5, -0.1, -0.3, each 0.1 * 2 nearer to 0
    np.testing.assert_allclose(params["w"], [10.3, 10.0, -1.1], rtol=1e-6)
    params, _ = stepped(optimizer, grads, params, state)
    # 0.3 + 0.25 - 0.1, -0.05 + 0.1 -> 0, -0.1 - 0.15 + 0.1
    np.testing.assert_allclose(params["w"], [10.45, 10.0, -1.15], rtol=1e-6)


def test_l1_on_adapters_shrinks_the_factors_themselves_and_keeps_no_copy():
    optimizer = make_optimizer("sgd", 0.1, clip_norm=None, l1=4.0)
    state = optimizer.init(FACTORS)
    assert all(x.size == 1 for x in jax.tree.leaves(state))
    zero = jax.tree.map(jnp.zeros_like, FACTORS)
    params, _ = stepped(optimizer, zero, FACTORS, state)
    lora = params["layers"]["q"]["lora"]
    np.testing.assert_allclose(lora["a"], [0.1, -1.6], rtol=1e-6)
    np.testing.assert_array_equal(lora["b"], [0.0, 0.0])


def test_l1_with_sgd_ends_in_the_minimum_of_the_penalized_loss():
    """Of sum (x - c)^2 / 2 + l1 |x - start| it is start + soft(c - start, l1)."""
    key = jax.random.key(0)
    start = {"w": jax.random.normal(key, (400,)), "norm": jnp.ones(10)}
    goal = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), start)
    optimizer = make_optimizer("sgd", 0.3, clip_norm=None, l1=0.1)

    @jax.jit
    def step(params, state):
        return stepped(optimizer, jax.tree.map(jnp.subtract, params, goal), params, state)

    params, state = start, optimizer.init(start)
    for _ in range(60):
        params, state = step(params, state)
    for name in start:
        far = goal[name] - start[name]
        want = jnp.sign(far) * jnp.maximum(jnp.abs(far) - 0.1, 0)
        np.testing.assert_allclose(params[name] - start[name], want, atol=1e-6)
    assert 0.5 < jnp.mean(jnp.abs(params["w"] - start["w"]) <= 1e-6) < 0.9


def test_l1_with_adam_leaves_what_only_noise_moves_where_it_was():
    start = {"w": jax.random.normal(jax.random.key(0), (2000,)).astype(jnp.bfloat16)}
    signal = jnp.arange(2000) < 200

    def moved(l1):
        optimizer = make_optimizer("adamw", 1e-3, clip_norm=None, l1=l1)
        params, state = jax.tree.map(jnp.float32, start), optimizer.init(start)

        @jax.jit
        def step(params, state, key):
            grads = {"w": jax.random.normal(key, (2000,)) + 5.0 * signal}
            return stepped(optimizer, grads, params, state)

        for i in range(100):
            params, state = step(params, state, jax.random.key(i))
        return jnp.abs(params["w"] - start["w"].astype(jnp.float32)) > 1e-5, state

    dense, _ = moved(0.0)
    sparse, state = moved(0.7)
    assert jnp.mean(dense) > 0.99
    assert sparse[:200].all() and jnp.mean(sparse[200:]) < 0.05
    assert state[-1].start["w"].dtype == jnp.float32


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "muon", "sgd"])
def test_without_l1_the_optimizer_and_its_state_are_as_without_the_option(name):
    for clip in (1.0, None):
        plain = make_optimizer(name, 0.1, clip_norm=clip).init(PARAMS)
        off = make_optimizer(name, 0.1, clip_norm=clip, l1=0.0).init(PARAMS)
        on = make_optimizer(name, 0.1, clip_norm=clip, l1=0.1).init(PARAMS)
        assert jax.tree.structure(off) == jax.tree.structure(plain)
        assert jax.tree.structure(on) != jax.tree.structure(plain)
        assert jax.tree.structure(on[0]) == jax.tree.structure(plain)


def test_the_state_without_l1_is_that_of_clipping_and_the_optimizer():
    plain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lambda _: 0.1, mask=decayed))
    ours = make_optimizer("adamw", lambda _: 0.1, l1=0.0)
    a, b = plain.init(PARAMS), ours.init(PARAMS)
    assert jax.tree_util.tree_structure(a) == jax.tree_util.tree_structure(b)


def test_an_option_that_cannot_apply_is_refused():
    with pytest.raises(ValueError, match="weight_decay does not apply to sgd"):
        make_optimizer("sgd", 0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="momentum does not apply to adamw, which reads b1"):
        make_optimizer("adamw", 0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"b2 does not apply to sgd, .*: leave it at 0\.999"):
        make_optimizer("sgd", 0.1, b2=0.95)
    with pytest.raises(ValueError, match="final_lr_fraction does not apply to a constant schedule"):
        make_schedule("constant", 0.1, steps=10, final_lr_fraction=0.1)
    with pytest.raises(ValueError, match="clip_norm must be > 0"):
        make_optimizer("adamw", 0.1, clip_norm=0.0)
    with pytest.raises(ValueError, match=r"l1 must be >= 0, got -0\.1"):
        make_optimizer("adamw", 0.1, l1=-0.1)
