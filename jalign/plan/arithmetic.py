"""FLOPs of the matrix products in a compiled program: alone, in fusions, in library calls and in
the Mosaic kernels of splash attention.
"""

from __future__ import annotations

import math
import re

import numpy as np

from jalign.plan.hlo import Computation, Module, Operation
from jalign.plan.shapes import Shape, shapes

_CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{|ensions":\s*\[)([\d,"]*)')
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_GEMM = ("__cublas$gemm", "__cublas$lt$matmul", "__triton$gemm")
_ESTIMATE = re.compile(r'"cost_estimate":\s*\{[^}]*?"flops":\s*"?(\d+)')
_BLOCK = re.compile(r'\\?"(block_\w+)\\?": (\d+)')
_TOKENS_LAST = re.compile(r'\\?"[qk]_layout\\?": 2')  # QKVLayout.SEQ_MINOR
_CONSTRAINTS = re.compile(r"operand_layout_constraints=\{(.*?)\}, \w+=")


def flops(module: Module, operation: Operation, computation: Computation) -> float:
    """Multiplications and additions of the matrix products of an operation."""
    if operation.opcode == "dot" or any(name in operation.rest for name in _GEMM):
        return _dot(operation, computation)
    if operation.opcode == "convolution":
        return _convolution(operation, computation)
    if operation.opcode != "fusion":
        return 0.0
    bodies = [module.computations.get(name, Computation()) for name in operation.called]
    return sum(flops(module, o, body) for body in bodies for o in body.operations.values())


def _dot(operation: Operation, computation: Computation) -> float:
    left = _operand(computation, operation, 0)
    contracted = _CONTRACTED.search(operation.rest)
    axes = re.findall(r"\d+", contracted[1]) if contracted else []
    if left is None or not axes:
        return 0.0
    size = math.prod(left.axes[int(axis)] for axis in axes)
    return 2.0 * shapes(operation.shape)[0].elements * size


def _convolution(operation: Operation, computation: Computation) -> float:
    """As XLA:TPU writes products: a window over an axis of a batch meets each element once."""
    left, right = (_operand(computation, operation, i) for i in (0, 1))
    labels = _LABELS.search(operation.rest)
    if left is None or right is None or labels is None:
        return 0.0
    out = shapes(operation.shape)[0]
    total = 2.0 * out.elements * right.axes[labels[2].index("i")]
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", "".join(_WINDOW.findall(operation.rest)[:1])))
    for axis in filter(str.isdigit, labels[3]):
        size, i = out.axes[labels[3].index(axis)], int(axis)
        total *= _pairs(left.axes[labels[1].index(axis)], size, window, i) / size
    return total


def _pairs(inputs: int, outputs: int, window: dict[str, str], axis: int) -> int:
    """Pairs of an output and an input along an axis of a convolution."""

    def number(name: str, default: int = 1) -> int:
        return int(window[name].split("x")[axis].partition("_")[0]) if name in window else default

    size, stride, before = number("size"), number("stride"), number("pad", 0)
    step, gap = number("rhs_dilate"), number("lhs_dilate")
    at = np.arange(outputs)[:, None] * stride + np.arange(size) * step - before
    return int(((at >= 0) & (at <= (inputs - 1) * gap) & (at % gap == 0)).sum())


def _operand(computation: Computation, operation: Operation, index: int) -> Shape | None:
    operands = operation.operands
    source = computation.operations.get(operands[index]) if len(operands) > index else None
    arrays = shapes(source.shape) if source else []
    return arrays[0] if arrays else None


def kernel_flops(operation: Operation) -> tuple[float, int] | None:
    """FLOPs of a Mosaic kernel and the size of heads in its products; None if they are unknown.

    Of splash attention: 2 products forward (q k^T, p v), 5 backward in one kernel, or 4 (dk, dv)
    and 3 (dq) in two, each 2 B H T S C FLOPs over the blocks that a causal mask leaves; a window
    counts as a causal mask. Of another kernel: what its author declares (`pl.CostEstimate`).
    """
    if declared := _ESTIMATE.search(operation.rest):
        return float(declared[1]), 0
    kind = next((k for k in ("fwd", "dkv", "dq") if f"_{k}" in operation.name), None)
    if "splash" not in operation.name or kind is None:
        return None
    constraints = _CONSTRAINTS.search(operation.rest)
    arrays = shapes(constraints[1]) if constraints else []
    arrays = [x for x in arrays if len(x.axes) >= 3 and "f" in x.dtype]
    if len(arrays) < 2:
        return None
    q, k = arrays[:2]
    # one backward kernel gives the gradient of queries too, for each set of keys
    fused = any(len(x.axes) > len(k.axes) for x in shapes(operation.shape))
    products = {"fwd": 2, "dq": 3, "dkv": 4 + fused}[kind]
    of_tokens, of_head = (-1, -2) if _TOKENS_LAST.search(operation.rest) else (-2, -1)
    tokens, keys, head = q.axes[of_tokens], k.axes[of_tokens], q.axes[of_head]
    share = _visited(operation, kind, tokens, keys)
    return products * 2.0 * math.prod(q.axes[:-2]) * tokens * keys * head * share, head


def _visited(operation: Operation, kind: str, tokens: int, keys: int) -> float:
    """Share of the scores in blocks that touch the lower triangle."""
    blocks = {name: int(size) for name, size in _BLOCK.findall(operation.rest)}
    suffix = {"fwd": "", "dkv": "_dkv", "dq": "_dq"}[kind]
    rows = blocks.get(f"block_q{suffix}", 1) or 1
    columns = blocks.get(f"block_kv{suffix}", 1) or 1
    total = 0
    for start in range(0, tokens, rows):
        total += rows * min(keys, -(-(start + rows) // columns) * columns)
    return total / (tokens * keys)
