import importlib.util

import jax
import pytest

from jalign.parallel.mesh import make_mesh
from jalign.plan.targets import target, topology


def test_the_axes_are_data_fsdp_expert_context_tensor_in_that_order():
    mesh = make_mesh(data=1, fsdp=2, tensor=4)
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "expert": 1, "context": 1, "tensor": 4}
    assert mesh.axis_names == ("data", "fsdp", "expert", "context", "tensor")
    assert dict(make_mesh(context=8).shape)["context"] == 8


def test_minus_one_takes_the_devices_that_are_left():
    assert make_mesh(2, -1).axis_sizes == (2, 4, 1, 1, 1)
    assert make_mesh(devices=jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2, 2), "data=2, fsdp=2, expert=1, context=1, tensor=1 does not fit 8 devices"),
        ((3, -1), "data=3, fsdp=-1, expert=1, context=1, tensor=1 does not fit 8 devices"),
        ((-1, -1), "only one mesh axis may be -1"),
        ((0, 8), "at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(*sizes)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("sizes", [{"fsdp": 8, "tensor": 2}, {"fsdp": 2, "expert": 8}])
def test_an_axis_may_take_a_part_of_a_side_of_the_slice(sizes):
    """16 chips of a v5e are 4 x 4."""
    mesh = make_mesh(**sizes, devices=topology(target("v5e-16")))
    assert {name: size for name, size in mesh.shape.items() if size > 1} == sizes
    assert len({device.id for device in mesh.devices.flat}) == 16
