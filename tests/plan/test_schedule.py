"""Seconds along the schedule of a program: cycles, kernels, what overlaps and what waits."""

from pathlib import Path

import pytest

from jalign.kernels.devices import ACCELERATORS
from jalign.models.experts.exchange import USED
from jalign.plan.hlo import Module
from jalign.plan.links import Links
from jalign.plan.schedule import timeline
from jalign.plan.timeline import Timeline
from jalign.plan.traffic import traffic

PROGRAM_FOLDER = Path(__file__).parent / "programs"
PROGRAM = (PROGRAM_FOLDER / "collective_matmul_v5e8.hlo").read_text()
V5E, V6E = ACCELERATORS["v5e"], ACCELERATORS["v6e"]
MIB = 2**20


def program(*lines: str) -> str:
    """A program of one computation, its last line the root."""
    *first, last = lines
    body = "\n".join(f"  {line}" for line in first)
    return f"HloModule m\n\nENTRY %main (x: f32[2]) -> f32[2] {{\n{body}\n  ROOT {last}\n}}\n"


def cycles(count: int) -> str:
    return f'backend_config={{"window_config":{{"estimated_cycles":"{count}"}}}}'


def test_a_collective_matmul_hides_all_permutes_but_the_first():
    # by hand, at 1.5 GHz and 45 GB/s a link: the body of the loop runs twice and takes 48,530 and
    # 45,540 cycles; a permute of 1 MiB takes 23.3 us, less than either; the one before the loop
    # has nothing to hide behind; the sine behind it takes 126,432 cycles
    t = timeline(PROGRAM, V5E)
    assert t.of("product") == pytest.approx(2 * (48_530 + 45_540) / 1.5e9)
    assert t.of("sine") == pytest.approx(126_432 / 1.5e9)
    assert t.of("collective") == pytest.approx(MIB / 45e9, rel=1e-4)
    assert t.links == pytest.approx(9 * MIB / 45e9)
    # the shard is read from memory once, before the loop
    assert t.of("copy") == pytest.approx(MIB / 819e9, rel=1e-3)
    assert t.seconds == pytest.approx(
        sum(t.of(k) for k in ("product", "sine", "collective", "copy")), rel=1e-3
    )
    first = t.costs[0]
    assert (first.kind, first.line) == ("product", "models/linear.py:7")
    # 8 products of [1024, 128] and [128, 4096] in each of two fusions, twice
    assert first.arithmetic == pytest.approx(2 * 4 * 2 * 1024 * 128 * 4096 / V5E.flops)


def test_a_step_of_jax_0_12_gathers_weights_and_scatters_their_gradients():
    # the gradient of four layers x = x + silu(x @ w) on a v6e-8, x [2048, 2048] a chip, w
    # [2048, 2048] in eighths, all of it computed again: by hand, at 1.75 GHz and two links of 90
    # GB/s into a chip of 2 x 4. Per layer two gathers of 8 MiB, one reduce-scatter to 1 MiB that
    # XLA fuses as an all-reduce of which a slice is kept, and four products
    class Device:
        def __init__(self, i):
            self.slice_index, self.coords = 0, (i % 2, i // 2, 0)

    text = (PROGRAM_FOLDER / "layers_v6e8.hlo").read_text()
    t = timeline(text, V6E, Links.of(V6E, [Device(i) for i in range(8)]))
    assert t.of("product") == pytest.approx(4 * (34_816 + 34_816 + 39_936 + 44_016) / 1.75e9)
    collectives = 4 * (2 * 8 * MIB * 7 / 8 + MIB * 7) / 180e9
    assert t.of("collective") == t.links == pytest.approx(collectives)
    product = next(c for c in t.costs if c.kind == "product")
    assert product.arithmetic == pytest.approx(4 * 4 * 2 * 2048**3 / 918e12)
    assert product.bound == "arithmetic 85%"


def test_of_two_branches_the_slower_one_is_counted():
    """XLA names the branches of a predicate apart from those of an index."""
    branch = "%{name} (p: f32[2]) -> f32[2] {{\n  %p = f32[2] parameter(0)\n{rest}}}\n\n"
    slow = branch.format(
        name="slow", rest=f"  ROOT %y = f32[2] sine(%p), {cycles(3_000)}\n"
    ) + branch.format(name="fast", rest="  ROOT %z = f32[2] copy(%p)\n")
    head = "HloModule m\n\n"
    for names in (
        "true_computation=%fast, false_computation=%slow",
        "branch_computations={%fast, %slow}",
    ):
        main = program(
            "%x = f32[2] parameter(0)",
            "%c = pred[] constant(true)",
            f"%out = f32[2] conditional(%c, %x, %x), {names}",
        )
        t = timeline(head + slow + main.removeprefix(head), V5E)
        assert t.seconds == pytest.approx(3_000 / 1.5e9)


def test_a_transfer_is_exposed_by_what_is_left_of_it_when_its_result_is_needed():
    # a gather of 8 MiB over a 2 x 4 mesh without devices: one link, 7/8 of 8 MiB at 45 GB/s
    gather = 7 * MIB / 45e9
    text = program(
        "%x = f32[262144]{0} parameter(0)",
        "%s = (f32[262144]{0}, f32[2097152]{0}) all-gather-start(%x), replica_groups=[1,8]<=[8], dimensions={0}",  # noqa: E501
        f"%y = f32[64]{{0:T(128)S(1)}} sine(%c), {cycles(90_000)}",
        "%d = f32[2097152]{0} all-gather-done(%s)",
        "%r = f32[2]{0} bitcast(%d)",
    )
    t = timeline(text, V5E)
    assert t.of("sine") == pytest.approx(60e-6)
    assert t.links == pytest.approx(gather)
    assert t.of("collective") == pytest.approx(gather - 60e-6)
    assert t.seconds == pytest.approx(gather)
    assert next(c.bound for c in t.costs if c.kind == "collective") == "links"


FUSED = """HloModule m

%start (p: f32[262144]) -> (f32[262144], f32[2097152]) {
  %p = f32[262144]{0} parameter(0)
  %g = f32[2097152]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %r = (f32[262144]{0}, f32[2097152]{0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%step (p: f32[262144], x: f32[8,8]) -> (f32[262144], f32[8,8]) {
  %p = f32[262144]{0} parameter(0)
  %x = f32[8,8]{1,0} parameter(1)
  %g = f32[2097152]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
  %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %r = (f32[262144]{0}, f32[8,8]{1,0}) tuple(%p, %y)
}

%done (p: f32[262144]) -> f32[2097152] {
  %p = f32[262144]{0} parameter(0)
  %g = f32[2097152]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %r = f32[2097152]{0} custom-call(%p, %g), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (w: f32[262144], x: f32[8,8]) -> f32[2097152] {
  %w = f32[262144]{0} parameter(0)
  %x = f32[8,8]{1,0} parameter(1)
  %async-collective-start.1 = (f32[262144]{0}, f32[2097152]{0}) fusion(%w), kind=kCustom, calls=%start
  %a = f32[262144]{0} get-tuple-element(%async-collective-start.1), index=0
  %f = (f32[262144]{0}, f32[8,8]{1,0}) fusion(%a, %x), kind=kOutput, calls=%step, CYCLES
  %b = f32[262144]{0} get-tuple-element(%f), index=0
  ROOT %async-collective-done.1 = f32[2097152]{0} fusion(%b), kind=kCustom, calls=%done
}
"""  # noqa: E501


def test_a_collective_that_a_product_takes_steps_of_counts_once_and_is_hidden_behind_it():
    text = FUSED.replace("CYCLES", cycles(90_000))
    t, gather = timeline(text, V5E), 7 * MIB / 45e9
    assert t.of("product") == pytest.approx(60e-6)
    assert t.links == pytest.approx(gather)
    assert t.of("collective") == pytest.approx(gather - 60e-6)
    assert t.seconds == pytest.approx(gather)
    assert traffic(text) == {"all-gather": (1, 8 * MIB)}


def test_a_gather_on_the_sparse_cores_takes_links_beside_what_runs():
    gathers = """
%gathers (p: f32[262144]) -> f32[2097152] {
  %p = f32[262144]{0} parameter(0)
  ROOT %g = f32[2097152]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
}
"""
    text = program(
        "%w = f32[262144]{0} parameter(0)",
        "%x = f32[8,8]{1,0} parameter(1)",
        '%s = ((f32[262144]{0}), f32[2097152]{0}) call-start(%w), to_apply=%gathers, async_execution_thread="sparsecore"',  # noqa: E501
        "%y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, " + cycles(90_000),
        "%r = f32[2097152]{0} call-done(%s)",
    )
    t = timeline(text.replace("ENTRY", gathers + "\nENTRY"), V5E)
    assert t.links == pytest.approx(7 * MIB / 45e9)
    assert t.of("collective") == pytest.approx(7 * MIB / 45e9 - 60e-6)


def test_transfers_on_the_same_links_follow_each_other():
    text = program(
        "%x = f32[262144]{0} parameter(0)",
        "%a = (f32[262144]{0}, f32[2097152]{0}) all-gather-start(%x), replica_groups=[1,8]<=[8]",
        "%b = (f32[262144]{0}, f32[2097152]{0}) all-gather-start(%x), replica_groups=[1,8]<=[8]",
        "%c = f32[2097152]{0} all-gather-done(%a)",
        "%r = f32[2097152]{0} all-gather-done(%b)",
    )
    assert timeline(text, V5E).seconds == pytest.approx(14 * MIB / 45e9)


def test_copies_take_the_bandwidth_of_the_memory_they_come_from():
    on_chip, host = "S(1)", "S(5)"
    text = program(
        "%x = bf16[512,1024]{1,0:T(8,128)(2,1)} parameter(0)",
        f"%a = (bf16[512,1024]{{1,0:T(8,128)(2,1){on_chip}}}, bf16[512,1024]{{1,0:T(8,128)(2,1)}}, u32[]{{:S(2)}}) copy-start(%x)",  # noqa: E501
        f"%b = bf16[512,1024]{{1,0:T(8,128)(2,1){on_chip}}} copy-done(%a)",
        f"%c = (bf16[512,1024]{{1,0:T(8,128)(2,1){host}}}, bf16[512,1024]{{1,0:T(8,128)(2,1)}}, u32[]{{:S(2)}}) copy-start(%x)",  # noqa: E501
        f"%d = bf16[512,1024]{{1,0:T(8,128)(2,1){host}}} copy-done(%c)",
    )
    assert timeline(text, V6E).of("transfer") == pytest.approx(MIB / 1640e9 + MIB / 32e9)


def test_an_operation_without_an_estimate_takes_the_time_of_its_bytes():
    # heads of 64 are padded to 128 lanes: 256 x 32 x 128 elements are read, as many written
    text = program(
        "%x = bf16[256,32,64]{2,1,0:T(8,128)(2,1)} parameter(0)",
        "%r = bf16[256,32,64]{2,0,1:T(8,128)(2,1)} reshape(%x)",
    )
    t = timeline(text, V6E)
    assert t.of("copy") == pytest.approx(2 * 2 * 256 * 32 * 128 / 1640e9)
    assert t.costs[0].bound == "memory 100%" and t.estimated == 0


SPLASH = """  %splash_mha_dkv_no_residuals.3 = (f32[2]{0}) custom-call(%x), custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,2,2]{2,1,0}, bf16[3,4,1024,64]{3,2,1,0}, bf16[3,2,1024,64]{3,2,1,0}, bf16[3,2,1024,64]{3,2,1,0}}, frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 256, \\"block_kv\\": 256, \\"block_q_dkv\\": 512, \\"block_kv_dkv\\": 256}"
}}, metadata={op_name="a" stack_frame_id=2}, backend_config={"custom_call_config":{"body":"QUJD"}}
"""  # noqa: E501


DQ = "f32[2]{0}, bf16[3,2,4,1024,64]{4,3,2,1,0}"
"""One kernel for all gradients gives that of queries too, for each of two sets of keys."""


@pytest.mark.parametrize(("results", "products"), [("f32[2]{0}", 4), (DQ, 5)])
def test_splash_attention_takes_the_time_of_its_products_on_the_blocks_it_visits(results, products):
    text = program("%x = f32[2]{0} parameter(0)", "%r = f32[2]{0} bitcast(%x)")
    text = text.replace("  ROOT", SPLASH.replace("f32[2]{0}", results) + "  ROOT")
    # of 1,024 keys, rows 0 to 511 visit 512 and the others all; heads of 64 fill a quarter of a
    # matrix unit of 256, of which kernels reach 0.8
    flops = products * 2 * 3 * 4 * 1024 * 64 * (512 + 1024) / 2
    t = timeline(text, V6E)
    assert t.of("kernel") == pytest.approx(flops / 918e12 / (0.25 * 0.8))
    assert t.costs[0].bound == "arithmetic 20%" and t.unknown == 0
    assert timeline(text, V5E).of("kernel") == pytest.approx(flops / 197e12 / (0.5 * 0.8))


def test_splash_attention_on_tokens_last_takes_as_long():
    text = program("%x = f32[2]{0} parameter(0)", "%r = f32[2]{0} bitcast(%x)")
    last = SPLASH.replace("1024,64]", "64,1024]")
    layouts = '\\"q_layout\\": 2, \\"k_layout\\": 2'
    last = last.replace(": 256}", ": 256, " + layouts + "}")
    assert layouts in last
    first, last = (text.replace("  ROOT", kernel + "  ROOT") for kernel in (SPLASH, last))
    assert timeline(last, V6E).of("kernel") == timeline(first, V6E).of("kernel")


def test_a_kernel_that_declares_its_flops_takes_their_time_and_another_is_counted():
    call = '%k = f32[2]{0} custom-call(%x), custom_call_target="tpu_custom_call"'
    declared = 'backend_config={"cost_estimate":{"transcendentals":"1","flops":"918000"}}'
    x = "%x = f32[2]{0} parameter(0)"
    known = timeline(program(x, f"{call}, {declared}"), V6E)
    assert known.of("kernel") == pytest.approx(1e-9 / 0.8) and known.unknown == 0
    unknown = timeline(program(x, call), V6E)
    assert unknown.seconds == 0 and unknown.unknown == 1


def test_a_kernel_of_experts_takes_the_time_of_the_rows_that_are_its_devices():
    call = '%k = f32[2]{0} custom-call(%x), custom_call_target="tpu_custom_call"'
    name = f'metadata={{op_name="jit(step)/{USED}4/gmm"}}'
    declared = 'backend_config={"cost_estimate":{"flops":"918000"}}'
    text = program("%x = f32[2]{0} parameter(0)", f"{call}, {name}, {declared}")
    assert timeline(text, V6E).of("kernel") == pytest.approx(1e-9 / 0.8 / 4)


def test_a_grouped_product_reads_its_matrices_once_and_visits_blocks_that_groups_share_twice():
    # 512 rows in 4 blocks of 128, for 3 of a stack's 6 matrices: at most 4 + 3 - 1 visits
    integers = "s32[], s32[4]{0}, s32[6]{0}, s32[6]{0}, s32[1]{0}"
    operands = f"{integers}, bf16[512,256]{{1,0}}, bf16[6,256,128]{{2,1,0}}"
    x, w = "%x = bf16[512,256]{1,0} parameter(0)", "%w = bf16[6,256,128]{2,1,0} parameter(1)"
    matrix, rows = 256 * 128 * 2, 512 * (256 + 128) * 2

    def kernel(flops: int, used: str = "") -> Timeline:
        call = (
            '%k = bf16[512,128]{1,0} custom-call(%x, %w), custom_call_target="tpu_custom_call", '
            f"operand_layout_constraints={{{operands}}}, "
            f'metadata={{op_name="jit(step)/{used}jit(gmm)/pallas_call"}}, '
            f'backend_config={{"cost_estimate":{{"flops":"{flops}",'
            f'"bytes_accessed":"{rows + 6 * matrix}"}}}}'
        )
        return timeline(program(x, w, call), V6E)

    flops = 2 * 512 * 256 * 128
    assert kernel(1).of("kernel") == pytest.approx((rows + 3 * matrix) / V6E.bandwidth)
    large = 10**6 * flops
    assert kernel(large).of("kernel") == pytest.approx(large * 6 / 4 / V6E.flops / 0.8)
    half = kernel(large, f"{USED}2/")
    assert half.of("kernel") == pytest.approx(large * (2 + 2) / 4 / V6E.flops / 0.8)
    assert kernel(1, f"{USED}2/").of("kernel") == pytest.approx(
        (rows / 2 + 3 * matrix) / V6E.bandwidth
    )


def test_a_kernel_takes_at_least_the_time_of_its_bytes():
    call = '%k = f32[1640]{0} custom-call(%x, %x), custom_call_target="tpu_custom_call"'
    declared = 'backend_config={"cost_estimate":{"flops":"918000","bytes_accessed":"BYTES"}}'

    def seconds(declared_bytes: int) -> float:
        x, kernel = "%x = f32[1640]{0} parameter(0)", f"{call}, {declared}"
        text = program(x, kernel.replace("BYTES", str(declared_bytes)))
        return timeline(text, V6E).of("kernel")

    assert seconds(16400) == pytest.approx(16400 / 1640e9)
    assert seconds(10**9) == pytest.approx(3 * 6560 / 1640e9)  # no more than its arrays


def test_copies_are_told_apart_and_lines_are_those_of_jalign():
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
  ROOT %y = bf16[8,2]{1,0} copy(%f), backend_config={"window_config":{"estimated_cycles":"40"}}
}
"""  # noqa: E501
    t = timeline(text, V6E)
    assert [(c.kind, c.line) for c in t.costs] == [("copy", "kernels/flat.py:41"), ("copy", "y")]
    assert t.seconds == pytest.approx(340 / 1.75e9) and t.share("copy") == 1
    module = Module.of(text)
    fusion = module.computations["main"].operations["f"]
    assert module.place(fusion) == "/site-packages/jax/numpy.py:9"
