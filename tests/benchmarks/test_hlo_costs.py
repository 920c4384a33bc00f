"""Costs read from the text of programs."""

import random

import jax
import jax.numpy as jnp
import pytest

from benchmarks.compile.hlo_costs import program_costs
from benchmarks.compile.hlo_products import valid_positions

PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p0: bf16[10,64,32], p1: s32[], p2: bf16[8,64]) -> bf16[8,32] {
  %p0 = bf16[10,64,32]{2,1,0:T(8,128)(2,1)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %p2 = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} parameter(2)
  %zero = s32[] constant(0)
  %layer = bf16[1,64,32]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,32}
  %kernel = bf16[64,32]{1,0} bitcast(%layer)
  ROOT %product = bf16[8,32]{1,0} convolution(%p2, %kernel), dim_labels=bf_io->bf
}

%body (state: (s32[], bf16[10,64,32], bf16[8,64])) -> (s32[], bf16[10,64,32], bf16[8,64]) {
  %state = (s32[], bf16[10,64,32]{2,1,0}, /*index=2*/bf16[8,64]{1,0:S(1)}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %stack = bf16[10,64,32]{2,1,0} get-tuple-element(%state), index=1
  %x = bf16[8,64]{1,0:S(1)} get-tuple-element(%state), index=2
  %y = bf16[8,32]{1,0} fusion(%stack, %i, %x), kind=kOutput, calls=%fused
  %gathered = bf16[8,64]{1,0} all-gather(%y), replica_groups={{0,1},{2,3}}, dimensions={1}
  ROOT %out = (s32[], bf16[10,64,32]{2,1,0}, bf16[8,64]{1,0:S(1)}) tuple(%i, %stack, %gathered)
}

%condition (state: (s32[], bf16[10,64,32], bf16[8,64])) -> pred[] {
  %state = (s32[], bf16[10,64,32]{2,1,0}, bf16[8,64]{1,0:S(1)}) parameter(0)
  %limit = s32[] constant(10)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (a: bf16[10,64,32], b: bf16[8,64], c: f32[4,4]) -> bf16[8,64] {
  %a = bf16[10,64,32]{2,1,0} parameter(0)
  %b = bf16[8,64]{1,0:S(1)} parameter(1)
  %c = f32[4,4]{1,0} parameter(2)
  %start = (f32[4,4]{1,0}, f32[4,4]{1,0}) all-reduce-start(%c), replica_groups=[2,4]<=[8]
  %reduced = f32[4,4]{1,0} all-reduce-done(%start)
  %init = (s32[], bf16[10,64,32]{2,1,0}, bf16[8,64]{1,0:S(1)}) tuple(%c, %a, %b)
  %loop = (s32[], bf16[10,64,32]{2,1,0}, bf16[8,64]{1,0:S(1)}) while(%init), condition=%condition, body=%body
  ROOT %result = bf16[8,64]{1,0} get-tuple-element(%loop), index=2
}
"""  # noqa: E501 - the compiler's lines are long


def test_loops_are_multiplied_out() -> None:
    costs = program_costs(PROGRAM)
    assert costs.flops == 10 * 2 * 8 * 64 * 32


def test_a_fusion_reads_one_layer_of_a_stack_and_nothing_from_fast_memory() -> None:
    costs = program_costs(PROGRAM)
    layer, index, product = 2 * 64 * 32, 4, 2 * 8 * 32
    gather = 2 * 8 * 32 + 2 * 8 * 64
    reduction = 64 + 64
    assert costs.hbm_bytes == 10 * (layer + index + product + gather) + reduction


def test_collectives_are_counted_by_kind() -> None:
    costs = program_costs(PROGRAM)
    gathered, reduced = costs.collectives["all-gather"], costs.collectives["all-reduce"]
    assert (gathered.count, gathered.bytes, gathered.largest_bytes) == (10, 10 * 1024, 1024)
    assert gathered.wire_bytes == 10 * 1024 / 2
    assert (reduced.count, reduced.bytes) == (1, 64)
    assert reduced.wire_bytes == 2 * 64 * 3 / 4


def lowered_flops(function: object, *shapes: tuple[int, ...]) -> float:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return program_costs(jax.jit(function).lower(*arguments).as_text("hlo")).flops


def test_programs_that_are_not_compiled_can_be_read() -> None:
    assert lowered_flops(lambda x, y: x @ y, (8, 64), (64, 32)) == 2 * 8 * 64 * 32


def test_scans_of_programs_that_are_not_compiled_are_multiplied_out() -> None:
    def chain(x: jax.Array, stack: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, kernel: (x @ kernel, None), x, stack)[0]

    assert lowered_flops(chain, (8, 64), (5, 64, 64)) == 5 * 2 * 8 * 64 * 64


def test_convolutions_do_not_count_padding() -> None:
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    # Of 3 x 3 positions, the first and last row and column have 2: 4 * 3 - 2 pairs along each axis.
    assert lowered_flops(convolve, (2, 4, 4, 5), (3, 3, 5, 7)) == 2 * 2 * 5 * 7 * 10 * 10


def test_strided_convolutions() -> None:
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert lowered_flops(convolve, (1, 9, 9, 3), (3, 3, 3, 4)) == 2 * 3 * 4 * 9 * 4 * 4


def test_positions_of_a_convolution_are_counted_like_one_by_one() -> None:
    numbers = random.Random(0)
    for _ in range(2000):
        inputs, outputs = numbers.randint(1, 9), numbers.randint(1, 9)
        size, stride, before = numbers.randint(1, 6), numbers.randint(1, 4), numbers.randint(-4, 7)
        gaps, step = numbers.randint(1, 5), numbers.randint(1, 5)
        places = (
            output * stride - before + position * step
            for output in range(outputs)
            for position in range(size)
        )
        expected = sum(0 <= place <= (inputs - 1) * gaps and place % gaps == 0 for place in places)
        assert valid_positions(inputs, outputs, size, stride, before, gaps, step) == expected


def test_gradients_of_convolutions_cost_what_the_convolution_does() -> None:
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    shapes = (2, 8, 8, 5), (3, 3, 5, 7)
    forward = lowered_flops(convolve, *shapes)
    both = lowered_flops(
        lambda x, k: jax.grad(lambda x, k: convolve(x, k).sum(), argnums=(0, 1))(x, k), *shapes
    )
    assert both == 2 * forward


def test_float32_products_take_several_passes() -> None:
    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.dot(x, y, precision="highest")

    shapes = [jax.ShapeDtypeStruct((8, 8), jnp.float32)] * 2
    costs = program_costs(jax.jit(product).lower(*shapes).as_text("hlo"))
    assert costs.mxu_flops == 6 * costs.flops


KERNEL = """HloModule jit_f, is_scheduled=true

ENTRY %main (q: bf16[2,4,256,64]) -> bf16[2,4,256,64] {
  %q = bf16[2,4,256,64]{3,2,1,0} parameter(0)
  %mask = s32[2,1]{1,0} constant(0)
  %splash_mha_fwd_no_residuals.1 = bf16[2,4,256,64]{3,2,1,0} custom-call(%mask, %q, %q, %q), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="jit(f)"}
  ROOT %product = bf16[2,4,256,64]{3,2,1,0} copy(%splash_mha_fwd_no_residuals.1)
}
"""  # noqa: E501 - the compiler's lines are long


def test_operations_of_attention_kernels_count() -> None:
    costs = program_costs(KERNEL)
    assert costs.flops == 2 * 2 * (2 * 4 * 256 * 256 * 64)
    array = 2 * 2 * 4 * 256 * 64
    # Three operands (the mask adds 8 bytes), a result, and a copy after the attributes' last line.
    assert costs.hbm_bytes == 4 * array + 8 + 2 * array


def test_a_kernel_for_one_image_has_no_axis_of_images() -> None:
    """The mask then has as many axes as queries and keys."""
    one = KERNEL.replace("2,4,256,64]{3,2,1,0}", "4,256,64]{2,1,0}").replace("2,4,256", "4,256")
    one = one.replace("s32[2,1]{1,0}", "s8[1,2,1]{2,1,0}")
    assert program_costs(one).flops == 2 * 2 * (4 * 256 * 256 * 64)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # Two minor dimensions, whole tiles of 8 x 128 each.
        ("bf16[16,10,8,8]{3,2,1,0:T(8,128)(2,1)}", 2 * 16 * 10 * 8 * 128),
        ("bf16[64,8,8,40]{3,2,1,0:T(8,128)(2,1)}", 2 * 64 * 8 * 8 * 128),
        ("f32[3,9,130]{2,1,0:T(8,128)}", 4 * 3 * 16 * 256),
        # The order of the layout counts, not that of the shape.
        ("bf16[4096,8,8,40]{0,3,2,1:T(8,128)(2,1)}", 2 * 4096 * 8 * 8 * 40),
        ("s8[1000,100]{0,1:T(8,128)(4,1)}", 1024 * 104),
        ("s8[5,3]{1,0:T(4,128)(4,1)}", 8 * 128),
        ("bf16[3,100]{1,0:T(2,128)(2,1)}", 2 * 4 * 128),
        # One dimension, and none, are tiled along one.
        ("bf16[1280]{0:T(1024)(128)(2,1)}", 2 * 2048),
        ("f32[77]{0:T(128)}", 4 * 128),
        ("s32[]{:T(128)}", 4 * 128),
        ("pred[]{:T(512)}", 512),
        # Other compilers do not tile.
        ("bf16[16,10,8,8]{3,2,1,0}", 2 * 16 * 10 * 8 * 8),
        ("f8e4m3fn[3,5]", 15),
        ("s32[]", 4),
        # Kept on the chip.
        ("bf16[8,128]{1,0:T(8,128)(2,1)S(1)}", 0),
    ],
)
def test_arrays_count_as_they_lie_in_memory(shape: str, expected: int) -> None:
    costs = program_costs(f"""HloModule jit_f, is_scheduled=true

ENTRY %main (x: bf16[1]) -> bf16[1] {{
  %x = {shape} parameter(0)
  ROOT %y = {shape} copy(%x)
}}
""")
    assert costs.hbm_bytes == 2 * expected


IN_PLACE = """HloModule jit_f, is_scheduled=true

%fused (p0: f32[32,1024], p1: s32[], p2: f32[32,1024], p3: f32[1024], p4: f32[4,8,128]) -> (f32[32,1024], f32[32,1024], f32[1024], f32[4,8,128]) {
  %p0 = f32[4,8,128]{2,1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)S(6)} parameter(1)
  %p2 = f32[4,8,128]{2,1,0:T(8,128)} parameter(2)
  %p3 = f32[8,128]{1,0:T(8,128)} parameter(3)
  %p4 = f32[4,8,128]{2,1,0:T(8,128)S(1)} parameter(4)
  %zero = s32[]{:T(128)} constant(0)
  %sine = f32[8,128]{1,0:T(8,128)} sine(%p3)
  %part = f32[1,8,128]{2,1,0:T(8,128)} bitcast(%sine)
  %first = f32[4,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%p0, %part, %p1, %zero, %zero)
  %second = f32[4,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%p2, %part, %p1, %zero, %zero)
  %same = f32[4,8,128]{2,1,0:T(8,128)} bitcast(%second)
  %third = f32[4,8,128]{2,1,0:T(8,128)S(1)} dynamic-update-slice(%p4, %part, %p1, %zero, %zero)
  ROOT %all = (f32[4,8,128]{2,1,0:T(8,128)}, f32[4,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}, f32[4,8,128]{2,1,0:T(8,128)S(1)}) tuple(%first, %same, %sine, %third)
}

ENTRY %main (a: f32[4,8,128], b: s32[], c: f32[4,8,128], d: f32[8,128], e: f32[4,8,128]) -> f32[4,8,128] {
  %a = f32[4,8,128]{2,1,0:T(8,128)} parameter(0)
  %b = s32[]{:T(128)S(6)} parameter(1)
  %c = f32[4,8,128]{2,1,0:T(8,128)} parameter(2)
  %d = f32[8,128]{1,0:T(8,128)} parameter(3)
  %e = f32[4,8,128]{2,1,0:T(8,128)S(1)} parameter(4)
  %stack = f32[4,8,128]{2,1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
  %written = (f32[4,8,128]{2,1,0:T(8,128)}, f32[4,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}, f32[4,8,128]{2,1,0:T(8,128)S(1)}) fusion(%a, %b, %c, %d, %e), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/down_blocks.0/ff/sin"}
  ROOT %out = f32[4,8,128]{2,1,0:T(8,128)} get-tuple-element(%written), index=0
}
"""  # noqa: E501 - the compiler's lines are long


def test_of_stacks_that_are_written_in_place_only_the_slices_count() -> None:
    costs = program_costs(IN_PLACE)
    part = 4 * 8 * 128
    # Read once; written to both stacks in memory and on its own, but not to the third stack.
    assert costs.hbm_bytes == part + 3 * part
    assert [work.layer for work in costs.work] == ["down_blocks.0/ff/sin"]


STARTED = """HloModule jit_f, is_scheduled=true

ENTRY %main (a: bf16[4,16,128], b: f32[8,128]) -> bf16[4,16,128] {
  %a = bf16[4,16,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)} parameter(1)
  %slice-start = ((bf16[4,16,128]{2,1,0:T(8,128)(2,1)}), bf16[1,16,128]{2,1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:1], [0:16], [0:128]}
  %slice-done = bf16[1,16,128]{2,1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start)
  %joined = bf16[2,16,128]{2,1,0:T(8,128)(2,1)S(1)} custom-call(%slice-done, %slice-done), custom_call_target="ConcatBitcast"
  %copy-start = (f32[8,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%b)
  %copy-done = f32[8,128]{1,0:T(8,128)} copy-done(%copy-start)
  ROOT %out = bf16[2,16,128]{2,1,0:T(8,128)(2,1)} copy(%joined)
}
"""  # noqa: E501 - the compiler's lines are long


def test_of_copies_in_the_background_what_moves_counts() -> None:
    moved = {work.instruction: work.hbm_bytes for work in program_costs(STARTED).work}
    part, whole = 2 * 16 * 128, 4 * 8 * 128
    # To the chip, from memory to memory, from the chip.
    assert moved == {"slice-start": part, "copy-start": 2 * whole, "out": 2 * part}


def test_each_instruction_takes_the_longer_of_computing_and_memory() -> None:
    costs = program_costs(PROGRAM)
    product, gather = (work for work in costs.work if work.times == 10)
    assert (product.instruction, gather.instruction) == ("y", "gathered")
    # At these peaks the product is bound by its operations, the rest by memory.
    expected = product.flops / 1e3 + (costs.hbm_bytes - product.hbm_bytes) / 1e3
    assert costs.seconds(1e3, 1e3) == pytest.approx(expected)
    assert costs.seconds(1e3, 1e3) > max(costs.mxu_flops, costs.hbm_bytes) / 1e3
