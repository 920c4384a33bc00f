"""Compiling programs that run once."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

Function = TypeVar("Function", bound=Callable[..., Any])


def jit_for_few_calls(*, static_argnames: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """`jax.jit` for programs whose compilation takes longer than their only call.

    On CPUs machine code is made without LLVM's optimisations: half the time for the same operations
    in the same order. The pipelines' own programs are compiled as always.
    """

    def decorate(function: Function) -> Function:
        @functools.cache
        def program() -> Any:
            on_cpu = jax.default_backend() == "cpu"
            options = {"xla_backend_optimization_level": 0} if on_cpu else None
            return jax.jit(function, static_argnames=static_argnames, compiler_options=options)

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            return program()(*arguments, **named)

        return call  # type: ignore[return-value]

    return decorate
