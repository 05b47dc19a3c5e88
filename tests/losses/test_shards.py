"""A loss that looks at the whole batch does so inside `jax.shard_map`, too."""

import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jalign.algorithms import ALGORITHMS
from jalign.core import arrays_of, hyper_of

COUPLED = [row for row in ALGORITHMS.values() if row.batch_coupled]
N = 16  # two examples on each of eight devices
COTANGENT = jnp.asarray(np.random.default_rng(5).normal(size=N), jnp.float32)


def fields_of(row):
    """Examples of which one is missing; every device sees another mean."""
    rng = np.random.default_rng(3)
    made = {}
    for name in arrays_of(row.loss):
        if row.carry and name in row.carry.names:
            made[name] = jnp.float32(0.7 if name == "eta" else 1.5)
        elif name == "present":
            made[name] = jnp.arange(N) != 5
        elif name in ("label", "kl_present"):
            made[name] = jnp.asarray(rng.random(N) < 0.6)
        elif name == "density_ratio":
            made[name] = jnp.asarray(rng.uniform(0.1, 12, N), jnp.float32)
        else:
            made[name] = jnp.asarray(rng.normal(size=N) * 3 + (name == "kl_logps"), jnp.float32)
    return made


def whole(fn, fields):
    """Losses, metrics, and the gradient of a weighted sum of the losses."""

    def weighted(logps):
        loss, metrics = fn(**fields | logps)
        return jnp.sum(loss * COTANGENT), (loss, metrics)

    logps = {n: x for n, x in fields.items() if n.endswith("logps") and not n.startswith("ref_")}
    (_, out), grads = jax.value_and_grad(weighted, has_aux=True)(logps)
    return out, grads


def on_eight_devices(loss, fields, axes):
    names = list(fields)
    specs = tuple(P(axes) if x.ndim else P() for x in fields.values())
    mesh = jax.make_mesh((2, 4), axes, axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def sharded(**given):
        by_place = jax.shard_map(
            lambda *x: loss(**dict(zip(names, x, strict=True))),
            mesh=mesh,
            in_specs=specs,
            out_specs=P(axes),
        )
        return by_place(*(given[n] for n in names))

    return whole(jax.jit(sharded), fields)


@pytest.mark.parametrize("row", COUPLED, ids=lambda row: row.name)
def test_eight_devices_have_the_losses_and_gradients_of_one_batch(row):
    fields, axes = fields_of(row), ("data", "fsdp")
    expected = whole(row.loss, fields)
    got = on_eight_devices(partial(row.loss, axis_name=axes), fields, axes)
    chex.assert_trees_all_close(got, expected, rtol=2e-5, atol=2e-6)
    alone = on_eight_devices(row.loss, fields, axes)  # without the name each device is a batch
    assert not np.allclose(alone[0][0], expected[0][0], rtol=1e-3)


@pytest.mark.parametrize("row", ALGORITHMS.values(), ids=lambda row: row.name)
def test_only_batch_coupled_losses_ask_for_an_axis_and_it_is_no_hyperparameter(row):
    takes = "axis_name" in inspect.signature(row.loss).parameters
    assert takes == row.batch_coupled
    assert "axis_name" not in hyper_of(row.loss) and "axis_name" not in row.hyperparameters
    if takes:
        assert "axis_name:" in inspect.getdoc(row.loss)
