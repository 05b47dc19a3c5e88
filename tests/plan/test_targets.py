"""Hardware by its cloud name."""

import pytest

from jalign.kernels.devices import ACCELERATORS
from jalign.plan.gpus import gpu_config
from jalign.plan.targets import names, target


@pytest.mark.parametrize(
    "name, devices, topology, slices",
    [
        ("v5e-8", 8, "2x4", 1),
        ("v5litepod-16", 16, "4x4", 1),
        ("v5p-128", 64, "4x4x4", 1),  # named by cores, two per chip
        ("v6e-256", 256, "16x16", 1),
        ("tpu7x-8", 8, "2x2x1", 1),  # JAX counts its cores
        ("2xv5e-16", 32, "4x4", 2),
        ("h100", 1, "1x1x1", 1),
        ("8xH200", 8, "1x1x8", 1),
    ],
)
def test_a_name_says_how_many_devices_lie_how(name, devices, topology, slices):
    found = target(name)
    assert (found.devices, found.topology, found.slices) == (devices, topology, slices)


@pytest.mark.parametrize("name", ["v5e-12", "v5p-7", "v4-8", "3xh100", "h300", "", "v5e", "h100-8"])
def test_an_unknown_name_is_refused_and_all_are_named(name):
    with pytest.raises(ValueError, match=r"no target .*v5e-16"):
        target(name)


def test_the_nearest_name_is_proposed():
    with pytest.raises(ValueError, match="did you mean 'h200'"):
        target("h2000")


def test_every_name_is_a_target():
    for name in names():
        assert target(name).devices >= 1


def test_every_cuda_card_has_a_description_for_its_compiler():
    for card in ACCELERATORS.values():
        if card.platform == "cuda":
            text = gpu_config(card)
            assert card.kind in text
            assert f"device_memory_size: {int(card.memory)}" in text
            assert text.count("{") == text.count("}")
