"""Costs read from the text of programs."""

import jax
import jax.numpy as jnp

from benchmarks.compile.hlo_costs import program_costs

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
    reduction = 64 + 2 * 64
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
