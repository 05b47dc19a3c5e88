"""Seconds by the cycles that the TPU compiler notes, summed over loops."""

from pathlib import Path

import pytest

from jalign.plan.compile import Memory, Program
from jalign.plan.cycles import cycles
from jalign.plan.hlo import Module
from jalign.plan.report import Report
from jalign.plan.targets import target

PROGRAM = (Path(__file__).parent / "programs" / "collective_matmul_v5e8.hlo").read_text()


def test_what_a_loop_calls_counts_as_often_as_the_loop_runs():
    # two fusions of the loop's body, which runs twice, and a sine behind it
    c = cycles(PROGRAM)
    assert c.total == 2 * (48_530 + 45_540) + 126_432
    assert [(p.kind, p.line) for p in c.costs] == [
        ("product", "models/linear.py:7"), ("sine", "models/linear.py:7"),
    ]  # fmt: skip
    assert c.share("product") == pytest.approx(188_140 / 314_572) and c.kernels == 0


def test_kernels_and_copies_are_told_apart_and_fusions_are_not_counted_twice():
    text = """HloModule m

FileNames
1 "/site-packages/jax/numpy.py"
2 "/site-packages/jalign/kernels/flat.py"

FileLocations
1 {file_name_id=2 function_name_id=1 line=41 end_line=41 column=1 end_column=2}
2 {file_name_id=1 function_name_id=1 line=9 end_line=9 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

%moved (p: bf16[8,2]) -> bf16[8,2] {
  %p = bf16[8,2]{1,0} parameter(0)
  ROOT %c = bf16[8,2]{0,1} copy(%p), backend_config={"window_config":{"estimated_cycles":"7"}}
}

ENTRY %main (x: bf16[8,2]) -> bf16[8,2] {
  %x = bf16[8,2]{1,0} parameter(0)
  %f = bf16[8,2]{0,1} fusion(%x), kind=kLoop, calls=%moved, metadata={op_name="a" stack_frame_id=2}, backend_config={"window_config":{"estimated_cycles":"300"}}
  %y = bf16[8,2]{1,0} copy(%f), backend_config={"window_config":{"estimated_cycles":"40"}}
  ROOT %k.3 = bf16[8,2]{1,0} custom-call(%y), custom_call_target="tpu_custom_call"
}
"""  # noqa: E501
    c = cycles(text)
    assert c.costs == [("copy", "kernels/flat.py:41", 300), ("copy", "y", 40)]
    assert c.share("copy") == 1 and c.kernels == 1
    module = Module.of(text)
    fusion = module.computations["main"].operations["f"]
    assert module.place(fusion) == "/site-packages/jax/numpy.py:9"


def test_a_report_says_the_seconds_at_the_clock_of_the_chip():
    memory = Memory(1.0, 1.0, 0.0, 1.0, 1.0, 2.0)
    step = Program("train step", memory, cycles=cycles(PROGRAM))
    report = Report("c", target("v5e-8"), {}, {}, programs=[step], beside=[0.0])
    (line,) = [x for x in report.lines() if "by the compiler's cycles" in x]
    assert line.startswith("  train step: 0.00021 s by")  # 314,572 cycles at 1.5 GHz
    predicted = report.record()["programs"][0]["predicted"]
    assert predicted["seconds_by_cycles"] == pytest.approx(314_572 / 1.5e9)
    assert predicted["costs"][0]["line"] == "models/linear.py:7"
    without = Report("c", target("h200"), {}, {}, programs=[step], beside=[0.0])
    assert without.record()["programs"][0]["predicted"] is None
