"""Bytes of a fusion: of a stack that it slices or updates, the slice."""

import pytest

from jalign.plan.hlo import Module
from jalign.plan.memory_traffic import moved_bytes

HEAD = "HloModule m\n\n"
ENTRY = """
ENTRY %main (s: f32[7,64], i: s32[], u: f32[1,64]) -> f32[7,64] {
  %s = f32[7,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %u = f32[1,64]{1,0} parameter(2)
"""


def moved(body: str, last: str) -> float:
    module = Module.of(f"{HEAD}{body}{ENTRY}  ROOT {last}\n}}\n")
    main = module.computations["main"]
    assert main.root is not None
    return moved_bytes(module, main.root, main)


def test_a_fusion_that_slices_a_stack_reads_the_slice():
    body = """%f (p: f32[7,64], q: s32[]) -> f32[1,64] {
  %p = f32[7,64]{1,0} parameter(0)
  %q = s32[] parameter(1)
  %b = f32[7,64]{1,0} bitcast(%p)
  %d = f32[1,64]{1,0} dynamic-slice(%b, %q, %q), dynamic_slice_sizes={1,64}
  ROOT %n = f32[1,64]{1,0} negate(%d)
}
"""
    # the slice, the index, the result
    assert moved(body, "%r = f32[1,64]{1,0} fusion(%s, %i), kind=kLoop, calls=%f") == 256 + 4 + 256


def test_a_fusion_that_reads_all_of_it_reads_the_stack():
    body = """%f (p: f32[7,64], q: s32[]) -> f32[7,64] {
  %p = f32[7,64]{1,0} parameter(0)
  %q = s32[] parameter(1)
  %d = f32[1,64]{1,0} dynamic-slice(%p, %q, %q), dynamic_slice_sizes={1,64}
  ROOT %n = f32[7,64]{1,0} negate(%p)
}
"""
    assert moved(body, "%r = f32[7,64]{1,0} fusion(%s, %i), kind=kLoop, calls=%f") == 4 + 2 * 1792


def test_a_fusion_that_updates_a_stack_writes_the_update():
    body = """%f (p: f32[7,64], q: s32[], v: f32[1,64]) -> f32[7,64] {
  %p = f32[7,64]{1,0} parameter(0)
  %q = s32[] parameter(1)
  %v = f32[1,64]{1,0} parameter(2)
  %n = f32[1,64]{1,0} negate(%v)
  ROOT %d = f32[7,64]{1,0} dynamic-update-slice(%p, %n, %q, %q)
}
"""
    fusion = "%r = f32[7,64]{1,0} fusion(%s, %i, %u), kind=kLoop, calls=%f"
    assert moved(body, fusion) == 4 + 256 + 256


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ("%r = f32[1,64]{1,0} dynamic-slice(%s, %i, %i), dynamic_slice_sizes={1,64}", 2 * 256),
        ("%r = f32[7,64]{1,0} dynamic-update-slice(%s, %u, %i, %i)", 2 * (256 + 4 + 4)),
        ("%r = f32[7,64]{0,1} copy(%s)", 2 * 1792),
        # on the chip, nothing is written; tiles of 8 x 128 pad 7 x 64
        ("%r = f32[7,64]{1,0:T(8,128)S(1)} copy(%s)", 1792),
        ("%r = f32[7,64]{1,0:T(8,128)} copy(%s)", 1792 + 4 * 8 * 128),
    ],
)
def test_an_operation_alone_moves_what_it_reads_and_writes(operation, size):
    assert moved("", operation) == size
