"""A roofline of a program compiled for an NVIDIA GPU that is not here.

XLA:GPU notes no times. A kernel takes the larger of its products at the peak rate and its bytes at
full bandwidth, each at a share that kernels reach, after a gap for its launch. Slices of stacked
layers count what is read of them (`jalign.plan.memory_traffic`).
"""

from __future__ import annotations

import math
import re

from jalign.kernels.devices import Accelerator
from jalign.plan.arithmetic import flops
from jalign.plan.hlo import Computation, Module, Operation
from jalign.plan.links import Links
from jalign.plan.memory_traffic import moved_bytes
from jalign.plan.schedule import Scheduler
from jalign.plan.shapes import shapes
from jalign.plan.timeline import Timeline

PRODUCTS = 0.75
"""Share of the peak that large bfloat16 products of cuBLAS reach."""
BANDWIDTH = 0.9
"""Share of the memory's bandwidth that copies reach."""
LAUNCH_S = 2e-6
"""Between two kernels, in a command buffer."""
_ATTENTION = re.compile(r'custom_call_target="__cudnn\$fmha(\w*)"')
_CAUSAL = re.compile(r'"mask_type":\s*"\w*CAUSAL')


class _Roofline(Scheduler):
    """Follows the schedule of a program whose operations have no estimates."""

    def _seconds(self, operation: Operation, computation: Computation) -> tuple[float, ...]:
        a = self.accelerator
        products = flops(self.module, operation, computation)
        arithmetic = (products + attention_flops(operation, computation)) / a.flops
        memory = moved_bytes(self.module, operation, computation) / a.bandwidth
        return max(arithmetic / PRODUCTS, memory / BANDWIDTH) + LAUNCH_S, arithmetic, memory

    def _add_kernel(
        self, timeline: Timeline, operation: Operation, computation: Computation, line: str
    ) -> None:
        attention = _ATTENTION.search(operation.rest)
        kind = "kernel" if attention else "product" if "gemm" in operation.rest else "custom-call"
        timeline.add(kind, line, *self._seconds(operation, computation))


def attention_flops(operation: Operation, computation: Computation) -> float:
    """FLOPs of cuDNN's attention: 2 products forward, 5 backward; half where it is causal."""
    call = _ATTENTION.search(operation.rest)
    if call is None:
        return 0.0
    q, k = (shapes(computation.operations[name].shape)[0] for name in operation.operands[:2])
    # [B, T, H, C] by position; its layout has the heads inside or outside
    products = 5 if "Backward" in call[1] else 2
    total = products * 2.0 * math.prod(q.axes) * k.axes[1]
    return total / 2 if _CAUSAL.search(operation.rest) else total


def roofline(
    text: str, accelerator: Accelerator, links: Links | None = None, unknown_trips: float = 1
) -> Timeline:
    """The timeline of a program by its roofline; arguments as of `schedule.timeline`."""
    module = Module.of(text)
    links = links or Links.of(accelerator)
    return _Roofline(module, accelerator, links, unknown_trips).run(module.entry)
