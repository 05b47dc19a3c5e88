"""What waits in the host's memory: donated, fetched, put back, and bit for bit the same."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jalign.algorithms import get
from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.fingerprint import fingerprint
from jalign.core import Frozen
from jalign.optim.optimizer import make_optimizer
from jalign.parallel.memory import on_host, to_host
from jalign.parallel.mesh import make_mesh
from jalign.train.state import init_state
from jalign.train.step import make_train_step
from tests.train._toy import apply, batch, cut
from tests.train._toy import params as parameters


def start(offload):
    mesh, row = make_mesh(fsdp=8), get("dpo")
    params = jax.device_put(parameters(), NamedSharding(mesh, P()))
    optimizer = make_optimizer("adamw", 1e-2)
    state = init_state(mesh, params, optimizer, row, 7, offload=offload)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(
        make_train_step(row, apply, optimizer), donate_argnums=0, out_shardings=(shardings, None)
    )
    frozen = Frozen(None, jax.device_put(parameters(1), NamedSharding(mesh, P())))
    return step, state, frozen


@pytest.fixture
def compiled():
    """Grows by one for every program that is compiled."""
    seen = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def kinds(tree):
    return {x.sharding.memory_kind for x in jax.tree.leaves(tree) if x.ndim}


def test_a_step_with_its_optimizer_on_the_host_gives_the_same_bits_compiles_once_and_donates(
    compiled,
):
    seen = []
    for offload in (False, True):
        step, state, frozen = start(offload)
        where = "pinned_host" if offload else "device"
        assert kinds(state.opt_state) == {where} and kinds(state.params) == {"device"}
        compiled.clear()
        for seed in range(3):
            old = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
            state, metrics = step(state, frozen, cut(batch(seed=seed), 4))
            assert all(x.is_deleted() for x in old)
            assert kinds(state.opt_state) == {where} and kinds(state.params) == {"device"}
        assert len(compiled) == 1
        seen.append((jax.tree.map(np.asarray, (state.params, state.opt_state)), metrics["loss"]))
    chex.assert_trees_all_equal(*seen)
    assert float(np.abs(seen[0][0][0]["w"] - np.asarray(parameters()["w"])).max()) > 0.01


def test_a_step_that_is_not_finite_leaves_the_state_on_the_host_as_it_was():
    step, state, frozen = start(offload=True)
    state, _ = step(state, frozen, batch())
    before = fingerprint(state.opt_state)
    broken = frozen.replace(ref=jax.tree.map(lambda x: x * jnp.nan, frozen.ref))
    state, metrics = step(state, broken, batch())
    assert int(metrics["skipped"]) == 1 and kinds(state.opt_state) == {"pinned_host"}
    assert fingerprint(state.opt_state) == before


def test_a_checkpoint_does_not_depend_on_where_the_optimizer_waits(tmp_path):
    _, there, _ = start(offload=True)
    _, here, _ = start(offload=False)
    assert fingerprint(there.opt_state) == fingerprint(here.opt_state)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, there, {})
    for wanted in (there, here):
        found = Checkpointer(tmp_path).restore(wanted)
        assert found is not None
        assert kinds(found[1].opt_state) == kinds(wanted.opt_state)


def test_arrays_are_copied_to_the_host_and_devices_without_its_memory_are_refused():
    x = jax.device_put(jnp.arange(16.0), NamedSharding(make_mesh(fsdp=8), P("fsdp")))
    moved = to_host({"x": x})["x"]
    assert moved.sharding == on_host(x.sharding) and not x.is_deleted()
    np.testing.assert_array_equal(moved, x)

    class Deaf:
        memory_kind = None
        device_set = frozenset(jax.devices())

        def with_memory_kind(self, kind):
            return self

    with pytest.raises(ValueError, match="JAX knows no memory of the host"):
        on_host(Deaf())
