"""Bytes that an operation of a compiled program moves between a device and its memory.

Of a stack of layers, a fusion that slices it reads the slice, and one that updates it writes the
update.
"""

from __future__ import annotations

import re

from jalign.plan.hlo import Computation, Module, Operation
from jalign.plan.shapes import DEVICE, shapes

_DECLARED = re.compile(r'"cost_estimate":\s*\{[^}]*?"bytes_accessed":\s*"?(\d+)')
_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATES = ("dynamic-update-slice", "scatter")
_RENAMES = ("bitcast", "reshape", "get-tuple-element", "tuple")


def moved_bytes(module: Module, operation: Operation, computation: Computation) -> float:
    """Bytes read and written, with the padding of tiles; what stays on the chip is free."""
    body = module.computations.get(operation.called[0]) if operation.called else None
    if operation.opcode != "fusion" or body is None:
        return _alone(operation, computation)
    read = 0.0
    for index, name in enumerate(operation.operands):
        if stored(computation, name):
            parameter = _parameter(body, index)
            limit = stored(computation, name)
            read += min(limit, _read(module, body, parameter)) if parameter else limit
    return read + _written(body, body.root, operation.shape)


def kernel_bytes(module: Module, operation: Operation, computation: Computation) -> float:
    """Bytes that a kernel reads and writes: what its author declares (`pl.CostEstimate`), but no
    more than all of its operands and results, which it takes if nothing is declared.
    """
    all_bytes = moved_bytes(module, operation, computation)
    declared = _DECLARED.search(operation.rest)
    return min(float(declared[1]), all_bytes) if declared else all_bytes


def stored(computation: Computation, name: str) -> float:
    """Bytes of a value in the device's memory."""
    operation = computation.operations.get(name)
    return in_memory(operation.shape) if operation else 0.0


def in_memory(shape: str) -> float:
    """Bytes of the arrays of a shape that lie in the device's memory."""
    return sum(x.stored for x in shapes(shape) if x.space == DEVICE)


def _alone(operation: Operation, computation: Computation) -> float:
    """Of an operation that is no fusion."""
    if operation.opcode in _SLICES:
        return 2 * in_memory(operation.shape)
    if operation.opcode in _UPDATES:
        return 2 * sum(stored(computation, name) for name in operation.operands[1:])
    return in_memory(operation.shape) + sum(stored(computation, x) for x in operation.operands)


def _parameter(body: Computation, index: int) -> Operation | None:
    inputs = (x for x in body.operations.values() if x.opcode == "parameter")
    return next((x for x in inputs if x.operands == [str(index)]), None)


def _read(module: Module, body: Computation, value: Operation) -> float:
    """Bytes that a fusion reads of one of its values."""
    total = 0.0
    for user in body.operations.values():
        if value.name not in user.operands:
            continue
        first = user.operands[0] == value.name
        if user.opcode in _SLICES and first:
            total += sum(x.stored for x in shapes(user.shape))
        elif user.opcode in _UPDATES and first:
            continue  # in place
        elif user.opcode in _RENAMES and user is not body.root:
            total += _read(module, body, user)
        elif user.opcode == "fusion" and (inner := module.computations.get(user.called[0])):
            parameter = _parameter(inner, user.operands.index(value.name))
            total += _read(module, inner, parameter) if parameter else 0.0
        else:
            return sum(x.stored for x in shapes(value.shape))
    return total


def _written(body: Computation, root: Operation | None, shape: str) -> float:
    """Bytes that a fusion writes: of an update in place, the update."""
    while root and root.opcode in ("bitcast", "reshape", "copy") and root.operands:
        root = body.operations.get(root.operands[0])
    if root and root.opcode == "tuple":
        parts = [body.operations.get(name) for name in root.operands]
        return sum(_written(body, part, part.shape) for part in parts if part)
    if root and root.opcode in _UPDATES and in_memory(shape):
        update = body.operations.get(root.operands[-1 if root.opcode == "scatter" else 1])
        return sum(x.stored for x in shapes(update.shape)) if update else 0.0
    return in_memory(shape)
