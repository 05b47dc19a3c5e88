"""Programs of CUDA: each kernel takes its products or its bytes, after a gap for its launch."""

from pathlib import Path

import pytest

from jalign.kernels.devices import ACCELERATORS
from jalign.plan.roofline import BANDWIDTH, LAUNCH_S, PRODUCTS, roofline

H200 = ACCELERATORS["h200"]
MIB = 2**20


def bytes_s(size: float) -> float:
    return size / H200.bandwidth / BANDWIDTH + LAUNCH_S


def test_a_scan_over_layers_reads_the_layer_and_not_the_stack():
    # x = x + silu(x @ w[i]) over six layers of [2048, 2048] in float32, x bfloat16 [4096, 2048];
    # JAX 0.12: per layer a cast of the slice, the counter, the product, the sum
    text = (Path(__file__).parent / "programs" / "layers_h200.hlo").read_text()
    t = roofline(text, H200)
    flops = 2 * 4096 * 2048 * 2048
    assert t.of("product") == pytest.approx(6 * (flops / H200.flops / PRODUCTS + LAUNCH_S))
    casts = bytes_s(16 * MIB + 4 + 8 * MIB)
    assert t.of("fusion") == pytest.approx(6 * (casts + bytes_s(8) + bytes_s(3 * 16 * MIB)))
    assert t.of("copy") == pytest.approx(bytes_s(2 * 16 * MIB) + bytes_s(8))
    assert t.seconds == pytest.approx(t.of("product") + t.of("fusion") + t.of("copy"))
    product, *others = t.costs
    assert product.kind == "product" and product.bound.startswith("arithmetic 7")
    assert others[0].bound.startswith("memory ")
    assert product.line == "models/linear.py:21"


ATTENTION = """HloModule m

ENTRY %main (q: bf16[3,256,8,64], k: bf16[3,256,2,64]) -> bf16[3,256,8,64] {{
  %q = bf16[3,256,8,64]{{3,2,1,0}} parameter(0)
  %k = bf16[3,256,2,64]{{3,2,1,0}} parameter(1)
  ROOT %r = bf16[3,256,8,64]{{3,1,2,0}} custom-call(%q, %k, %k), custom_call_target="__cudnn$fmhaSoftmax{way}", backend_config={{"cudnn_fmha_backend_config":{{"mask_type": "{mask}"}}}}
}}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("way", "mask", "products"),
    [
        ("", "NO_MASK", 2),
        ("", "CAUSAL", 1),
        ("Backward", "CAUSAL", 2.5),
        ("Backward", "PADDING_CAUSAL", 2.5),
    ],
)
def test_attention_takes_its_products_of_which_a_causal_mask_leaves_half(way, mask, products):
    t = roofline(ATTENTION.format(way=way, mask=mask), H200)
    [cost] = t.costs
    assert cost.kind == "kernel"
    assert cost.arithmetic == pytest.approx(products * 2 * 3 * 8 * 256 * 256 * 64 / H200.flops)
