"""Collectives take the bytes that a device receives over the links that reach it."""

import pytest

from jalign.kernels.devices import ACCELERATORS
from jalign.plan.links import Links

V5E, V5P, V6E = (ACCELERATORS[name] for name in ("v5e", "v5p", "v6e"))
MB = 1e6


def mesh(accelerator, *sizes, slices=1):
    """The links of a mesh of devices, the first axis fastest."""

    class Device:
        def __init__(self, slice_index, coords):
            self.slice_index, self.coords = slice_index, coords

    coords = [(x, y, z) for z in range(sizes[2]) for y in range(sizes[1]) for x in range(sizes[0])]
    devices = [Device(s, xyz) for s in range(slices) for xyz in coords]
    return Links.of(accelerator, devices)


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("all-gather", 8 * MB * 7 / 8 / 90e9),
        ("reduce-scatter", 8 * MB * 7 / 90e9),
        ("all-reduce", 2 * 8 * MB * 7 / 8 / 90e9),
        ("all-to-all", 8 * MB * 2 / 90e9),
        ("collective-permute", 8 * MB / 45e9),
    ],
)
def test_a_corner_of_a_mesh_receives_over_one_link_along_each_axis(kind, seconds):
    groups = "replica_groups=[1,8]<=[8], dimensions={0}"
    assert mesh(V5E, 2, 4, 1).seconds(kind, 8 * MB, groups) == pytest.approx(seconds)


def test_a_group_along_one_axis_uses_its_links_alone():
    links = mesh(V6E, 4, 4, 1)
    rows = "replica_groups={{0,1,2,3},{4,5,6,7},{8,9,10,11},{12,13,14,15}}"
    columns = "replica_groups=[4,4]<=[4,4]T(1,0)"
    both = "replica_groups=[1,16]<=[16]"
    time = links.seconds("all-gather", 16 * MB, rows)
    assert time == pytest.approx(16 * MB * 3 / 4 / 90e9)
    assert links.seconds("all-gather", 16 * MB, columns) == time
    named = "replica_groups=mesh['data'=4,'fsdp'=4] {'data'}"
    assert links.seconds("all-gather", 16 * MB, named) == time
    assert links.seconds("all-gather", 16 * MB, both) == pytest.approx(16 * MB * 15 / 16 / 180e9)


def test_an_axis_that_is_a_ring_has_two_links():
    # v5p: axes of 4 are rings, those of 2 are not; v6e: only axes of 16 are
    groups = "replica_groups=[1,16]<=[16]"
    size = 16 * MB * 15 / 16
    assert mesh(V5P, 2, 2, 4).seconds("all-gather", 16 * MB, groups) == size / (4 * 90e9)
    assert mesh(V6E, 16, 1, 1).seconds("all-gather", 16 * MB, groups) == size / (2 * 90e9)
    assert mesh(V6E, 8, 2, 1).seconds("all-gather", 16 * MB, groups) == size / (2 * 90e9)


def test_slices_are_connected_by_their_network():
    links = mesh(V5E, 2, 2, 1, slices=2)
    between = "replica_groups={{0,4},{1,5},{2,6},{3,7}}"
    assert links.seconds("all-reduce", 2 * MB, between) == pytest.approx(2 * MB / 3.125e9)
    pairs = "source_target_pairs={{0,4},{4,0}}"
    assert links.seconds("collective-permute", MB, pairs) == pytest.approx(MB / 3.125e9)


def test_a_group_of_one_sends_nothing():
    assert mesh(V5E, 2, 2, 1).seconds("all-reduce", MB, "replica_groups={{0},{1},{2},{3}}") == 0
