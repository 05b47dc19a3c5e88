"""Programs as text: how often a loop runs is what its counter starts at, grows by and ends at."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jalign.plan.hlo import Module
from jalign.plan.traffic import traffic

PROGRAMS = Path(__file__).parent / "programs"
LOOP = """HloModule loop

%end (p: (u32[], f32[8])) -> pred[] {{
  %p = (u32[]{{:T(128)}}, f32[8]{{0}}) parameter(0)
  %limit = u32[]{{:T(128)}} constant({end})
  %i = u32[]{{:T(128)}} get-tuple-element(%p), index=0
  ROOT %stop = pred[]{{:T(512)}} compare({compared}), direction={direction}
}}

%body (p: (u32[], f32[8])) -> (u32[], f32[8]) {{
  %p.1 = (u32[]{{:T(128)}}, f32[8]{{0}}) parameter(0)
  %by = u32[]{{:T(128)}} constant({by})
  %i.1 = u32[]{{:T(128)}} get-tuple-element(%p.1), index=0
  %i.2 = u32[]{{:T(128)}} copy(%i.1)
  %next = u32[]{{:T(128)}} {opcode}(%i.2, %by), metadata={{op_name="a(b)"}}
  %x = f32[8]{{0}} get-tuple-element(%p.1), index=1
  ROOT %t = (u32[]{{:T(128)}}, f32[8]{{0}}) tuple(%next, %x)
}}

ENTRY %main (x: f32[8]) -> (u32[], f32[8]) {{
  %x.1 = f32[8]{{0}} parameter(0)
  %begin = u32[]{{:T(128)}} constant({begin})
  %t.1 = (u32[]{{:T(128)}}, f32[8]{{0}}) tuple(%begin, %x.1)
  ROOT %w = (u32[]{{:T(128)}}, f32[8]{{0}}) while(%t.1), condition=%end, body=%body
}}
"""


def trips(begin, direction, end, by, *, opcode="add", compared="%i, %limit"):
    text = LOOP.format(
        begin=begin, direction=direction, end=end, by=by, opcode=opcode, compared=compared
    )
    module = Module.of(text)
    entry = module.computations[module.entry]
    return module.trips(entry.operations["w"], entry)


@pytest.mark.parametrize(
    ("loop", "count"),
    [
        ((0, "LT", 7, 1), 7),
        ((0, "LT", 4, 2), 2),  # unrolled
        ((0, "LT", 7, 2), 4),
        ((3, "LT", 7, 1), 4),
        ((1, "LE", 7, 3), 3),
        ((0, "NE", 6, 2), 3),
        ((9, "GT", 0, -2), 5),
        ((9, "GE", 0, -3), 4),
        ((7, "LT", 7, 1), 0),
    ],
)
def test_a_loop_runs_as_often_as_its_counter_needs_to_reach_the_end(loop, count):
    assert trips(*loop) == count


def test_a_loop_may_count_down_or_name_its_end_first():
    assert trips(8, "GT", 2, 3, opcode="subtract") == 2
    assert trips(0, "GT", 6, 4, compared="%limit, %i") == 2  # 6 > i


def test_a_loop_whose_end_is_no_constant_has_no_count():
    assert trips(0, "LT", 4, 1, compared="%i, %i") is None


def test_the_count_that_xla_notes_is_taken():
    def loop(x):
        return jax.lax.fori_loop(0, 11, lambda _, y: jnp.sin(y), x)

    module = Module.of(jax.jit(loop).lower(jnp.ones(8)).compile().as_text())
    counts = [
        module.trips(operation, computation)
        for computation in module.computations.values()
        for operation in computation.operations.values()
        if operation.opcode == "while"
    ]
    assert counts == [11]


def test_the_permutes_of_a_collective_matmul_are_counted_as_often_as_they_run():
    # x [8 D, D] @ w [D, 4 D], bfloat16, D = 1,024, both split over the chips of a v5e-8 by their
    # rows: jax 0.10.2. The 1 MiB shards of w go around: one permute before the loop, and four in
    # each of its two iterations, whose counter grows by 2 from 0 to 4.
    text = (PROGRAMS / "collective_matmul_v5e8.hlo").read_text()
    assert traffic(text) == {"collective-permute": (9, 9 * 2**20)}


def test_operands_are_split_at_the_commas_between_them():
    text = "\nENTRY %m (a: f32[2]) -> f32[2] {\n  %r = f32[2]{0:T(8,128)} fusion(f32[2]{0:T(8,128)} %a, %b), calls=%f\n}\n"  # noqa: E501
    operation = Module.of(text).computations["m"].operations["r"]
    assert operation.operands == ["a", "b"] and operation.called == ["f"]
