"""MXFP4 tensors of a checkpoint are decoded as the format says, slice by slice."""

import json
import shutil

import numpy as np
import pytest
from fixtures_of_models import GOLDEN
from safetensors.numpy import load_file, save_file

from jalign.models import hub
from jalign.models.mxfp4 import Mxfp4
from jalign.models.safetensors_io import Checkpoint

RNG = np.random.default_rng(0)
BLOCKS = RNG.integers(0, 256, (2, 6, 3, 16), dtype=np.uint8)  # experts, outputs, inputs / 32
SCALES = RNG.integers(120, 130, (2, 6, 3), dtype=np.uint8)
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)


def by_hand(expert, row, column):
    """The entry of an input (row) and an output (column)."""
    byte = BLOCKS[expert, column, row // 32, row % 32 // 2]
    code = byte >> 4 if row % 2 else byte & 15
    sign = -1 if code & 8 else 1
    return sign * E2M1[code & 7] * 2.0 ** (int(SCALES[expert, column, row // 32]) - 127)


@pytest.fixture
def checkpoint(tmp_path):
    save_file({"w_blocks": BLOCKS, "w_scales": SCALES}, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        yield checkpoint


def test_entries_are_signed_4_bit_floats_times_a_power_of_two(checkpoint):
    assert checkpoint.shapes == {"w": (2, 96, 6)} and checkpoint.dtypes == {"w": "BF16"}
    dense = checkpoint.read("w", (slice(None),) * 3).astype(np.float32)
    for index in ((0, 0, 0), (1, 33, 5), (0, 95, 2), (1, 64, 3), (1, 31, 1)):
        assert dense[index] == by_hand(*index)
    assert len(np.unique(np.abs(dense))) > 20


def test_a_slice_holds_the_same_entries(checkpoint):
    dense = checkpoint.read("w", (slice(None),) * 3)
    part = (slice(1, 2), slice(20, 70), slice(2, 6))  # cuts blocks of 32
    np.testing.assert_array_equal(checkpoint.read("w", part), dense[part])


def test_transformers_decodes_the_same(checkpoint):
    torch = pytest.importorskip("torch")
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    theirs = mxfp4.convert_moe_packed_tensors(torch.tensor(BLOCKS), torch.tensor(SCALES))
    dense = checkpoint.read("w", (slice(None),) * 3).astype(np.float32)
    np.testing.assert_array_equal(dense, theirs.float().numpy())


def test_a_model_with_packed_experts_loads_and_is_saved_plain(tmp_path):
    """gate_up_proj as blocks of zeros but for one expert's bias: what remains is the bias."""
    shutil.copytree(GOLDEN / "gpt_oss", tmp_path / "packed")
    tensors = load_file(tmp_path / "packed" / "model.safetensors")
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    name = "model.layers.1.mlp.experts.gate_up_proj"
    experts, inputs, outputs = tensors.pop(name).shape
    blocks = RNG.integers(0, 256, (experts, outputs, inputs // 32, 16), dtype=np.uint8)
    scales = RNG.integers(122, 127, (experts, outputs, inputs // 32), dtype=np.uint8)
    tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    save_file(tensors, tmp_path / "packed" / "model.safetensors", {"format": "pt"})
    quantization = {"quantization_config": {"quant_method": "mxfp4"}}
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config | quantization))
    model = hub.load(tmp_path / "packed")
    hub.save(model, tmp_path / "plain")
    saved = load_file(tmp_path / "plain" / "model.safetensors")[name]
    assert "quantization_config" not in json.loads((tmp_path / "plain/config.json").read_text())
    up = np.asarray(model.layers.mlp.experts.up.kernel[1])
    np.testing.assert_array_equal(saved[..., 1::2], up)  # interleaved, the gate first
    assert saved.shape == (experts, inputs, outputs) and len(np.unique(saved)) > 20


def test_one_part_alone_is_refused(tmp_path):
    save_file({"w_scales": SCALES}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="w is MXFP4 and needs both w_blocks and w_scales"):
        Checkpoint(tmp_path)
    with pytest.raises(ValueError, match="do not fit"):
        Mxfp4("w", _Shape((2, 6, 3, 8)), _Shape((2, 6, 3)))


class _Shape:
    def __init__(self, shape):
        self.shape = shape

    def get_shape(self):
        return list(self.shape)
