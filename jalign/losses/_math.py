"""Float32 helpers shared by several losses."""

import jax.numpy as jnp
from jax import Array
from jax.core import Tracer


def f32(*arrays: Array) -> tuple[Array, ...]:
    """The arrays in float32: loss arithmetic in bfloat16 loses differences of log-probabilities."""
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def require(ok: bool | Array, message: str) -> None:
    """Raise ValueError if a concrete condition is False; traced values are not checked."""
    # a hyper-parameter may be traced, and bool() of a tracer raises
    if not isinstance(ok, Tracer) and not bool(ok):
        raise ValueError(message)


def log1mexp(x: Array) -> Array:
    """log(1 - exp(x)) for x < 0, without cancellation near 0 or far below it (Maechler 2012).

    Both branches are evaluated, so each gets an argument at which its gradient is finite.
    """
    # -log 2: above it 1 - exp(x) cancels, below it log1p has the digits that expm1 loses
    near = x > -0.6931472
    small = jnp.log(-jnp.expm1(jnp.where(near, x, -0.5)))
    large = jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x)))
    return jnp.where(near, small, large)
