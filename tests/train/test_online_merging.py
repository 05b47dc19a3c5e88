"""Online merging: each step is merged with what fine-tuning changed before."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jalign.algorithms import get
from jalign.optim.online_merging import online_merging
from jalign.parallel.axes import FSDP
from jalign.parallel.mesh import make_mesh
from jalign.run.identity import update_digest
from jalign.train.state import init_state

BASE = {"w": jnp.array([0.5, -1.0, 0.25, 2.0])}
START = {"w": jnp.array([0.75, -1.5, 0.375, 1.0])}
GRADIENTS = [[0.1, -0.2, -0.3, 0.4], [0.4, -0.3, 0.2, 0.1]]


def steps(optimizer, gradients):
    params, state = START, optimizer.init(START)
    update = jax.jit(optimizer.update)
    for g in gradients:
        updates, state = update({"w": jnp.array(g)}, state, params)
        params = optax.apply_updates(params, updates)
        yield params["w"]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("dare", [[0.72, -1.52, 0.48, 0.72], [0.69925022, -1.54073560, 0.51656151, 0.45355234]]),
        ("ties", [[0.8, -1.6, 0.48, 0.72], [0.85, -1.7, 0.51656151, 0.45355228]]),
    ],
)
def test_two_steps_of_adam_equal_the_authors_code(method, expected):
    inner = optax.adam(0.1)
    optimizer = online_merging(inner, BASE, alpha=0.2, density=1.0, method=method)
    np.testing.assert_allclose(list(steps(optimizer, GRADIENTS)), expected, rtol=5e-6)


def test_ties_keeps_the_largest_entries_and_of_these_one_sign():
    """tau (.25, -.5, .125, -1) keeps two entries; delta (-.1, -.2, .3, .4) those of .3 and .4."""
    optimizer = online_merging(optax.sgd(1.0), BASE, alpha=0.25, density=0.5, method="ties")
    (after,) = steps(optimizer, [[0.1, 0.2, -0.3, -0.4]])
    np.testing.assert_allclose(after, [0.75, -1.5 - 0.125, 0.375 + 0.225, 1.0 - 0.25], rtol=1e-6)


def test_dare_keeps_a_share_of_entries_without_bias_and_draws_anew():
    n = 4000
    start = {"w": jnp.zeros(n)}
    optimizer = online_merging(optax.sgd(1.0), start, alpha=0.0, density=0.25, seed=3)
    state = optimizer.init(start)
    seen = []
    for _ in range(2):
        updates, state = optimizer.update({"w": -jnp.ones(n)}, state, start)
        seen.append(np.asarray(updates["w"]))
    assert set(np.unique(seen)) == {0.0, 4.0}
    np.testing.assert_allclose(np.mean(seen), 1.0, atol=0.06)
    assert (seen[0] != seen[1]).any()


@pytest.fixture
def constants():
    """JAX warns of a program with more than 1,000 bytes of them, and a warning is an error."""
    before = jax.config.jax_captured_constants_warn_bytes
    jax.config.update("jax_captured_constants_warn_bytes", 1000)
    yield
    jax.config.update("jax_captured_constants_warn_bytes", before)


@pytest.mark.parametrize("method", ["dare", "ties"])
def test_a_run_tells_two_settings_apart_though_the_optimizer_is_bound_to_its_model(method):
    def digest(**changed):
        options = {"alpha": 1e-6, "density": 0.5, "method": method} | changed
        base = options.pop("base", BASE)
        optimizer = online_merging(optax.sgd(options.pop("rate", 1.0)), base, **options)
        start = SimpleNamespace(params=START, opt_state=optimizer.init(START))
        return update_digest(optimizer, start)

    others = {"alpha": 0.5}, {"density": 0.25}, {"rate": 0.1}, {"base": {"w": jnp.ones(4)}}
    assert digest() == digest()
    assert len({digest(), *(digest(**changed) for changed in others)}) == 1 + len(others)


@pytest.mark.usefixtures("constants")
def test_a_base_on_all_devices_is_an_argument_of_the_program_that_makes_the_state():
    """Not a constant of it, which would be as large as the model."""
    mesh = make_mesh(fsdp=8)
    cut = NamedSharding(mesh, P(FSDP))
    start, base = jax.device_put(({"w": jnp.arange(800.0)}, {"w": jnp.ones(800)}), cut)
    optimizer = online_merging(optax.sgd(1.0), base, method="ties", density=1.0)
    state = init_state(mesh, start, optimizer, get("dpo"), 0)
    tau = state.opt_state.reference_delta["w"]
    np.testing.assert_array_equal(tau, np.arange(800.0) - 1)
    assert tau.sharding == cut


def test_numbers_out_of_range_are_refused():
    for bad in ({"alpha": 1.0}, {"density": 0.0}, {"method": "slerp"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            online_merging(optax.sgd(1.0), BASE, **bad)
