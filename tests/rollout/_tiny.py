"""A decoder small enough to sample from without compiling its initialization."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jalign.models.decoder import Decoder
from jalign.models.spec import Spec

SPEC = Spec(
    vocab_size=23,
    width=16,
    depth=2,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp_width=24,
    logit_softcap=4.0,
    logit_scale=3.0,
)
KEY = jax.random.key(0)


def tiny(seed=0, spec=SPEC):
    """A decoder, split, with parameters that numpy drew: nothing to compile."""
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: Decoder(spec, rngs=nnx.Rngs(0))))
    draw = np.random.default_rng(seed).normal
    fill = lambda x: jnp.asarray(draw(size=x.shape) * 0.25, jnp.float32)  # noqa: E731
    return graphdef, jax.tree.map(fill, abstract)
