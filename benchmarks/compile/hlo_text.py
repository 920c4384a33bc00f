"""Reads the text of a compiled program: computations, instructions, shapes."""

import dataclasses
import functools
import math
import re

_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_TILES = re.compile(r"T((?:\([\d,]+\))+)")
_NAME = re.compile(r"%([\w.\-]+)")
_LAST_WORD = re.compile(r"([\w.\-]+)\s*(?:,|$)")
_COMMENT = re.compile(r"/\*.*?\*/")
_CALLED = re.compile(r"\b(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_OPERATION = re.compile(r'\bop_name="([^"]*)"')
# What tracing adds to the names of layers.
_TRACED = re.compile(r"^jit\([^)]*\)/|\b(?:while/body|closed_call|checkpoint)/")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_BITS = re.compile(r"(\d+)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array.

    Attributes:
        dtype: XLA's name.
        dims: its dimensions.
        order: the numbers of the dimensions, from the one whose elements lie next to each other;
            as they are listed where there is no layout.
        tiles: in which it is laid out; each divides the tiles of the one before it. TPUs tile the
            two minor dimensions, as in `T(8,128)(2,1)`, other devices have none.
        in_hbm: false where the layout places it in another memory than the device's main one.
    """

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()
    tiles: tuple[tuple[int, ...], ...] = ()
    in_hbm: bool = True

    @classmethod
    def parse(cls, dtype: str, dims: str, layout: str) -> "Shape":
        """Reads `bf16`, `8,8` and `0,1:T(8,128)(2,1)S(1)`."""
        order, _, properties = layout.partition(":")
        tiles = _TILES.search(properties)
        return cls(
            dtype,
            _numbers(dims),
            _numbers(order),
            tuple(map(_numbers, tiles[1][1:-1].split(")("))) if tiles else (),
            "S(" not in properties,
        )

    @property
    def bytes(self) -> int:
        """Size as it lies in memory: tiles that are not full count whole."""
        digits = _BITS.search(self.dtype)
        bits = {"pred": 8, "token": 0}.get(self.dtype, int(digits[1]) if digits else 0)
        dims = [self.dims[axis] for axis in reversed(self.order)] if self.order else [*self.dims]
        for tile in self.tiles:
            dims = [1] * (len(tile) - len(dims)) + dims
            outer, inner = dims[: -len(tile)], dims[-len(tile) :]
            dims = [*outer, *map(_ceiling_division, inner, tile), *tile]
        return math.prod(dims) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: without the percent sign.
        shapes: of the result; several for a tuple.
        opcode: such as `convolution`.
        operands: names.
        attributes: the text after the operands.
        literal: the text between the parentheses.
        is_root: whether it is the computation's result.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    literal: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Size of the result in main memory."""
        return sum(shape.bytes for shape in self.shapes if shape.in_hbm)

    @property
    def target(self) -> str:
        """The kernel that a custom call names; empty for other instructions."""
        return (self.attribute("custom_call_target") or "").strip('"')

    @property
    def layer(self) -> str:
        """What it was made of: names of layers and of an operation, `down_blocks.0/ff/mul`."""
        operation = _OPERATION.search(self.attributes)
        return _TRACED.sub("", operation[1].split(";")[0]) if operation else ""

    @property
    def called(self) -> tuple[str, ...]:
        """Computations that are named as what this instruction runs."""
        branches = _BRANCHES.search(self.attributes)
        named = _LAST_WORD.findall(branches[1]) if branches else []
        return (*_CALLED.findall(self.attributes), *named)

    def attribute(self, key: str) -> str | None:
        """The value of `key=`, up to the next comma, space or closing brace."""
        match = re.search(rf"\b{key}=(\{{[^}}]*\}}|[^,\s]+)", self.attributes)
        return match[1] if match else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """A function of the program: its instructions by name, in their order."""

    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction that is the result."""
        return next(line for line in self.instructions.values() if line.is_root)

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """The parameters by number."""
        lines = self.instructions.values()
        return {int(line.literal): line for line in lines if line.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that take a value, by its name."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for line in self.instructions.values():
            for name in dict.fromkeys(line.operands):
                found.get(name, []).append(line)
        return found


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its computations by name, and which one it starts with."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Reads what `compiled.as_text()` or `lowered.as_text("hlo")` gives."""
    computations: dict[str, Computation] = {}
    entry = ""
    current: dict[str, Instruction] | None = None
    for line in text.splitlines():
        if current is None:
            header = _COMPUTATION.match(line)
            if header and " = " not in line.split("(", 1)[0]:
                current = {}
                computations[header[2]] = Computation(current)
                entry = header[2] if header[1] else entry
        elif line.startswith("}") and not line.startswith("}}"):
            # Two braces close attributes of a kernel, which may run over several lines.
            current = None
        elif " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    return Module(computations, entry)


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().partition(" = ")
    is_root = name.startswith("ROOT ")
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shapes = tuple(Shape.parse(*found) for found in _SHAPE.findall(rest[:end]))
    call = rest[end:].lstrip()
    opening = call.index("(")
    closing = _closing(call, opening)
    literal = _COMMENT.sub("", call[opening + 1 : closing])
    return Instruction(
        name.removeprefix("ROOT ").lstrip("%"),
        shapes,
        call[:opening],
        # Percent signs are missing in programs that have not been compiled.
        tuple((_NAME if "%" in literal else _LAST_WORD).findall(literal)),
        call[closing + 1 :],
        literal,
        is_root,
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def _ceiling_division(size: int, part: int) -> int:
    return -(-size // part)


def _closing(text: str, opening: int) -> int:
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"unbalanced parentheses: {text[:80]}")
