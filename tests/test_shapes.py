"""Shapes in signatures are checked while tests run (the import hook in `conftest.py`)."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from jalign import losses
from jalign.kernels.attention import attention
from jalign.models.logprobs import token_logps
from jalign.rollout.draw import pick


def test_a_loss_given_a_shape_other_than_its_signature_says_is_refused():
    pair = jnp.array([-4.0, -9.0])
    with pytest.raises(TypeCheckError, match=r"rejected_logps"):
        losses.dpo(pair, pair[:1], pair, pair)  # would broadcast
    with pytest.raises(TypeCheckError, match=r"rejected_logps"):
        jax.jit(losses.dpo)(pair, pair[:, None], pair, pair)
    with pytest.raises(TypeCheckError, match=r"chosen_len"):
        losses.nll(pair, jnp.array([3, 4]))  # lengths are floats


def test_a_function_of_every_other_checked_part_refuses_a_wrong_shape():
    with pytest.raises(TypeCheckError, match=r"parameter .v."):
        attention(
            jnp.ones((2, 4, 2, 8)),
            jnp.ones((2, 4, 2, 8)),
            jnp.ones((1, 4, 2, 8)),
            scale=1.0,
            implementation="xla",
        )
    with pytest.raises(TypeCheckError, match="targets"):
        token_logps(jnp.ones((3, 4)), jnp.ones((4, 7)), jnp.zeros(1, int), vocab_axis=1)
    with pytest.raises(TypeCheckError, match="uniform"):
        pick(jnp.ones((2, 5)), jnp.ones(1))
