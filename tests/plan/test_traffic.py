"""Collectives are counted as often as the loops around them run."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jalign.plan.traffic import traffic

TPU_TEXT = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%inner_end (p: (s32[], bf16[8])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  %p = (s32[]{:T(128)}, bf16[8]{0:T(8)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %three), direction=LT
}

%inner (p: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %p.1 = (s32[]{:T(128)}, bf16[8]{0:T(8)S(1)}) parameter(0)
  %x = bf16[2]{0} get-tuple-element(%p.1), index=1
  %all-gather.1 = bf16[8]{0:T(8)(2,1)S(1)} all-gather(%x), channel_id=1, dimensions={0}
  ROOT %t = (s32[]{:T(128)}, bf16[8]{0}) tuple(%p.1, %all-gather.1)
}

%outer_end (p: (s32[], s32[])) -> pred[] {
  %p.2 = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %n = s32[]{:T(128)} get-tuple-element(%p.2), index=1
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.1, %n), direction=LT
}

%outer (p: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %p.3 = (s32[]{:T(128)}, bf16[8]{0}) parameter(0)
  %w = (s32[]{:T(128)}, bf16[8]{0}) while(%p.3), condition=%inner_end, body=%inner, metadata={op}
  %y = f32[5]{0} parameter(1)
  %r = (f32[5]{0}, f32[5]{0}) all-reduce-start(%y), to_apply=%add
  %r.1 = f32[5]{0} all-reduce-done(%r)
  ROOT %t.1 = (s32[]{:T(128)}, bf16[8]{0}) tuple(%w, %r.1)
}

ENTRY %main.1 (x: bf16[8]) -> bf16[8] {
  %x.1 = bf16[8]{0} parameter(0)
  ROOT %w.1 = (s32[]{:T(128)}, bf16[8]{0}) while(%x.1), condition=%outer_end, body=%outer
}
"""


def test_a_loop_whose_end_is_a_constant_runs_that_often_and_another_as_often_as_said():
    found = traffic(TPU_TEXT, unknown_trips=4)
    assert found["all-gather"] == (4 * 3, 4 * 3 * 16)
    assert found["all-reduce"] == (4, 4 * 20)
    assert set(found) == {"all-gather", "all-reduce"}


def test_the_collectives_of_a_real_program_over_eight_devices():
    mesh = Mesh(np.array(jax.devices()), ("x",))
    split, whole = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())

    def body(_, x):
        return jax.lax.with_sharding_constraint(jnp.sin(x) + x.sum(), split)

    def loop(x):
        x = jax.lax.fori_loop(0, 7, body, x)
        return jax.lax.with_sharding_constraint(x, whole)

    x = jax.ShapeDtypeStruct((64,), jnp.float32, sharding=split)
    found = traffic(jax.jit(loop).lower(x).compile().as_text())
    assert found["all-reduce"] == (7, 7 * 4)
    assert found["all-gather"].bytes == 64 * 4
