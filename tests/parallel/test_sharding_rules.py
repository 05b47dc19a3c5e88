import logging

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jalign.parallel.axes import FSDP_AXES
from jalign.parallel.mesh import make_mesh
from jalign.parallel.rules import constrain, shardings


def specs(shapes, rules=None):
    """Path -> PartitionSpec on a 2 x 2 x 2 mesh."""
    state = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}
    return {k: s.spec for k, s in shardings(make_mesh(2, 2, 2), state, rules).items()}


def test_the_default_is_megatron_with_fsdp_on_the_other_side():
    up, down = "layers.mlp.up.kernel", "layers.mlp.down.kernel"
    found = specs({up: (3, 8, 12), down: (3, 12, 8), "embed.weight": (10, 8)})
    assert found[up] == P(None, FSDP_AXES, "tensor")
    assert found[down] == P(None, "tensor", FSDP_AXES)
    assert found["embed.weight"] == P("tensor", FSDP_AXES)


def test_optimizer_moments_are_split_like_their_parameters():
    path = "opt_state.0.mu.layers.mlp.up.kernel"
    assert specs({path: (3, 8, 12)})[path] == P(None, FSDP_AXES, "tensor")


def test_an_axis_that_does_not_divide_is_not_split_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert specs({"embed.weight": (11, 8)})["embed.weight"] == P(None, FSDP_AXES)
    assert "embed.weight (11, 8): axis of 11 is not split over tensor" in caplog.text


def test_a_parameter_without_a_rule_is_replicated_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert specs({"other.kernel": (4, 4)})["other.kernel"] == P()
    assert "no sharding rule matches other.kernel (4, 4)" in caplog.text


def test_the_first_rule_that_matches_counts():
    rules = ((r"a\.kernel", P("data")), (r".*kernel", P("tensor")))
    assert specs({"a.kernel": (4,), "b.kernel": (4,)}, rules) == {
        "a.kernel": P("data"),
        "b.kernel": P("tensor"),
    }


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ((r"embed\.wieght", P()), r"match no parameter: embed\\.wieght; there is: embed.weight"),
        ((r"embed\.weight", P(None, None, "data")), "more axes than embed.weight"),
        ((r"embed\.weight", P("model")), "mesh axis 'model' is unknown; there is: data, fsdp"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        specs({"embed.weight": (8, 8)}, (rule,))


def test_constraints_split_only_under_a_mesh_and_only_what_divides():
    x = jnp.ones((8, 3))
    assert constrain(x, "data", "tensor") is x
    with jax.set_mesh(make_mesh(2, 2, 2)):
        y = jax.jit(lambda x: constrain(x, ("data", "fsdp"), "tensor"))(x)
    assert y.sharding.spec == P(("data", "fsdp"))
