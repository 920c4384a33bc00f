"""What an instruction of a compiled program reads from a device's main memory and writes there."""

from benchmarks.compile.hlo_text import Computation, Instruction, Module

# Neither read nor written, or accounted for where they are used.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call iota after-all "
    "partition-id replica-id opt-barrier async-start async-update async-done".split()
)
# Kernels that only say where an array lies: new, or behind others.
_PLACES = ("AllocateBuffer", "ConcatBitcast")
_PARTS = ("dynamic-slice", "slice", "gather")
_STARTED_PARTS = ("dynamic-slice-start", "slice-start")


def traffic(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Bytes read and written by an instruction, once; what it calls is left out, but for fusions.

    Of an array that is changed in place, the part that changes counts, and of one that is read in
    part, that part.

    Args:
        module: the program.
        computation: which of its functions.
        instruction: which line of it.
    """
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done") or instruction.target in _PLACES:
        return 0
    return _written(module, computation, instruction) + _read(module, computation, instruction)


def _written(module: Module, computation: Computation, instruction: Instruction) -> int:
    if instruction.opcode.endswith("-start"):
        sources = [computation.instructions[name] for name in instruction.operands]
        # The result is often listed with its sources, and with semaphores.
        listed = len(instruction.shapes) > len(sources)
        return instruction.bytes - listed * sum(source.bytes for source in sources)
    if instruction.opcode == "dynamic-update-slice":
        return _changed(computation, instruction) if instruction.bytes else 0
    if instruction.opcode != "fusion":
        return instruction.bytes
    fused = module.computations[instruction.called[0]]
    results = [fused.root]
    if fused.root.opcode == "tuple":
        results = [fused.instructions[name] for name in fused.root.operands]
    return sum(
        _changed(fused, result)
        for result, shape in zip(results, instruction.shapes, strict=True)
        if shape.in_hbm
    )


def _changed(computation: Computation, value: Instruction) -> int:
    """Size of a value, or of the part of it that is new."""
    source = value
    while source.opcode == "bitcast":
        source = computation.instructions[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
        return computation.instructions[source.operands[1]].shapes[0].bytes
    return value.shapes[0].bytes


def _read(module: Module, computation: Computation, instruction: Instruction) -> int:
    lines = computation.instructions
    operands = [lines[name] for name in instruction.operands if name in lines]
    if instruction.opcode in _PARTS and operands[0].bytes:
        rest = sum(operand.bytes for operand in operands[1:])
        return min(instruction.shapes[0].bytes, operands[0].bytes) + rest
    if instruction.opcode in _STARTED_PARTS and operands[0].bytes:
        return instruction.shapes[len(operands)].bytes
    if instruction.opcode == "dynamic-update-slice":
        return sum(operand.bytes for operand in operands[1:])
    if instruction.opcode == "fusion":
        fused = module.computations[instruction.called[0]]
        return sum(
            min(operand.bytes, _used(module, fused, fused.parameters[index]))
            for index, operand in enumerate(operands)
            if operand.bytes
        )
    return sum(operand.bytes for operand in operands)


def _used(module: Module, computation: Computation, value: Instruction) -> int:
    """How much of a value a fused computation reads: of a stack, perhaps only one layer."""
    used = 0
    for user in computation.users[value.name]:
        if user.opcode in _PARTS and user.operands[0] == value.name:
            used += user.shapes[0].bytes
        elif user.opcode == "bitcast":
            used += _used(module, computation, user)
        elif user.opcode == "fusion":
            called = module.computations[user.called[0]]
            used += _used(module, called, called.parameters[user.operands.index(value.name)])
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != value.name:
            return value.shapes[0].bytes
    return used
