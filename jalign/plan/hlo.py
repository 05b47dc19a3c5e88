"""Read the HLO text of a compiled program: computations, operations, and how often loops run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cached_property

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_OPERATION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(
    r"\b(?:body|to_apply|calls|branch_computations|true_computation|false_computation)"
    r"=(\{[^}]*\}|%?[\w.\-]+)"
)
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_BODY = re.compile(r"\bbody=%?([\w.\-]+)")
_KNOWN = re.compile(r'"known_trip_count":\s*\{"n":\s*"(\d+)"')
_INDEX = re.compile(r"\bindex=(\d+)")
_DIRECTION = re.compile(r"\bdirection=([A-Z]+)")
_FRAME = re.compile(r"\bstack_frame_id=(\d+)")
_TABLE = re.compile(r"^(FileNames|FileLocations|StackFrames)$")
_QUOTED = re.compile(r'^(\d+) "(.*)"$')
_LOCATION = re.compile(r"^(\d+) \{file_name_id=(\d+) .*\bline=(\d+) ")
_STACK = re.compile(r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)\}")
_CONTINUED = re.compile(r'\n(?=["}]\S)')
_COMMENT = re.compile(r"/\*.*?\*/")
_THROUGH = ("copy", "convert", "bitcast")
"""Operations that hand on the value of their operand."""
_MIRRORED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE", "NE": "NE"}


@dataclass(frozen=True)
class Operation:
    """A line of a computation: `%name = shape opcode(rest`."""

    name: str
    shape: str
    opcode: str
    rest: str

    @cached_property
    def operands(self) -> list[str]:
        """Names of the operands; of a constant, its text."""
        depth, start, parts = 0, 0, []
        for i, letter in enumerate(self.rest):
            if letter in "([{":
                depth += 1
            elif letter in ")]}" and depth:
                depth -= 1
            elif depth == 0 and letter in ",)":
                parts.append(_COMMENT.sub("", self.rest[start:i]).split()[-1:])
                start = i + 1
                if letter == ")":
                    break
        return [words[0].lstrip("%") for words in parts if words]

    @property
    def called(self) -> list[str]:
        """Computations that it calls, the condition of a loop excluded."""
        return [
            name.strip().lstrip("%")
            for names in _CALLED.findall(self.rest)
            for name in names.strip("{}").split(",")
        ]


@dataclass
class Computation:
    """A named list of operations."""

    operations: dict[str, Operation] = field(default_factory=dict)
    root: Operation | None = None

    def source(self, name: str) -> Operation | None:
        """The operation of that name, or the one whose value it hands on."""
        operation = self.operations.get(name)
        while operation and operation.opcode in _THROUGH and operation.operands:
            operation = self.operations.get(operation.operands[0])
        return operation

    def constant(self, name: str) -> int | None:
        """The value of an integer constant."""
        operation = self.source(name)
        if operation is None or operation.opcode != "constant":
            return None
        text = operation.operands[0] if operation.operands else ""
        return int(text) if re.fullmatch(r"-?\d+", text) else None

    def element(self, name: str) -> int | None:
        """Which element of the computation's argument it is."""
        operation = self.source(name)
        if operation is None or operation.opcode != "get-tuple-element":
            return None
        index = _INDEX.search(operation.rest)
        return int(index[1]) if index else None


@dataclass
class Module:
    """A program.

    Attributes:
      computations: by name; `entry` is where it starts.
      frames: by number, the file and line of a call and the number of the frame that made it.
    """

    computations: dict[str, Computation]
    entry: str
    frames: dict[int, tuple[str, int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Module:
        """Parse `compiled.as_text()`."""
        computations: dict[str, Computation] = {}
        entry, current = "", Computation()
        # the attributes of a Mosaic kernel go over several lines
        for line in _CONTINUED.sub(" ", text).splitlines():
            if line and not line[0].isspace():
                if start := _COMPUTATION.match(line):
                    current = computations.setdefault(start[2], Computation())
                    entry = start[2] if start[1] else entry
                continue
            if match := _OPERATION.match(line):
                root, *parts = match.groups()
                operation = Operation(*parts)
                current.operations[operation.name] = operation
                if root:
                    current.root = operation
        return cls(computations, entry, _frames(text))

    def place(self, operation: Operation, within: str = "") -> str:
        """file:line of the innermost call in a file whose path has `within`, or ""."""
        match = _FRAME.search(operation.rest)
        number, before = int(match[1]) if match else 0, -1
        while number in self.frames and number != before:  # the outermost is its own parent
            file, line, parent = self.frames[number]
            if within in file:
                return f"{file.rpartition(within)[2] if within else file}:{line}"
            number, before = parent, number
        return ""

    def trips(self, loop: Operation, caller: Computation) -> int | None:
        """Iterations of a while loop; None if they are not constant.

        XLA notes those of a scan. Others are counted from the constants that the counter starts at,
        grows by and is compared with: a collective matmul, which XLA unrolls, grows by 2. A start
        that is no constant counts as 0, and a growth as 1.
        """
        if known := _KNOWN.search(loop.rest):
            return int(known[1])
        names = _CONDITION.search(loop.rest), _BODY.search(loop.rest)
        condition, body = (self.computations.get(name[1]) if name else None for name in names)
        compared = condition and _compared(condition)
        if not compared or body is None:
            return None
        counter, direction, end = compared
        begin = _element_of(caller, loop.operands[0] if loop.operands else "", counter)
        start = caller.constant(begin) if begin else None
        return _count(start or 0, _growth(body, counter), direction, end)


def _frames(text: str) -> dict[int, tuple[str, int, int]]:
    """The tables at the beginning of a program, joined."""
    files: dict[str, str] = {}
    locations: dict[str, tuple[str, int]] = {}
    frames: dict[int, tuple[str, int, int]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            break
        if heading := _TABLE.match(line):
            table = heading[1]
        elif table == "FileNames" and (name := _QUOTED.match(line)):
            files[name[1]] = name[2]
        elif location := _LOCATION.match(line):
            locations[location[1]] = files.get(location[2], ""), int(location[3])
        elif stack := _STACK.match(line):
            file, at = locations.get(stack[2], ("", 0))
            frames[int(stack[1])] = file, at, int(stack[3])
        elif not line.strip():
            table = ""
    return frames


def _compared(condition: Computation) -> tuple[int, str, int] | None:
    """(element that counts, direction, end) of `counter < end`."""
    root = condition.root
    if root is None or root.opcode != "compare" or len(root.operands) != 2:
        return None
    direction = _DIRECTION.search(root.rest)
    if direction is None or direction[1] not in _MIRRORED:
        return None
    left, right = root.operands
    for a, b, way in ((left, right, direction[1]), (right, left, _MIRRORED[direction[1]])):
        counter, end = condition.element(a), condition.constant(b)
        if counter is not None and end is not None:
            return counter, way, end
    return None


def _element_of(computation: Computation, name: str, index: int) -> str | None:
    """The operand of a tuple."""
    operation = computation.source(name)
    if operation is None or operation.opcode != "tuple" or index >= len(operation.operands):
        return None
    return operation.operands[index]


def _growth(body: Computation, counter: int) -> int:
    name = _element_of(body, body.root.name, counter) if body.root else None
    operation = body.source(name) if name else None
    if operation is None or operation.opcode not in ("add", "subtract"):
        return 1
    sign = 1 if operation.opcode == "add" else -1
    by = [body.constant(x) for x in operation.operands if body.element(x) != counter]
    return sign * by[0] if by and by[0] else 1


def _count(start: int, growth: int, direction: str, end: int) -> int:
    distance = end - start
    if direction in ("LE", "GE"):
        distance += 1 if growth > 0 else -1
    return max(0, math.ceil(distance / growth))
