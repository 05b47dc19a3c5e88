"""Hardware by its cloud name."""

from pathlib import Path

import pytest

from jalign.config.read import read_config
from jalign.kernels.devices import ACCELERATORS
from jalign.plan.gpus import gpu_config
from jalign.plan.suggest import suggestions
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


def of(name, *more):
    file = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    return read_config([str(file), *more])


def test_suggestions_go_on_to_adapters_where_the_reference_was_moved_to_the_host():
    said = [words for words, _ in suggestions(of("ppo/llama3_8b_full_v5p32"), target("v5p-32"))]
    assert any(words.endswith("LoRA (model.lora: {})") for words in said)
    assert said[-1].endswith("QLoRA (model.quant: nf4)")


@pytest.mark.parametrize(
    "goal, mesh",
    [
        ("v5p-16", ["--mesh.fsdp", "2", "--mesh.context", "4"]),
        ("2xv5e-16", ["--mesh.data", "2", "--mesh.fsdp", "16"]),
    ],
)
def test_what_is_split_over_all_devices_is_not_told_to_be(goal, mesh):
    config = of("sft/llama3_8b_full_v5p16", *mesh)
    first, _ = next(suggestions(config, target(goal)))
    assert "mesh.fsdp" not in first
