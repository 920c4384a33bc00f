"""What the submodules of a model return while it runs."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

from flax import nnx


def submodule(model: nnx.Module, path: str) -> nnx.Module:
    """The submodule at a PyTorch path such as `down_blocks.0.resnets.1`.

    Raises:
        LookupError: there is none, or it is one of a stack, which has no module of its own.
    """
    module: Any = model
    for part in path.split("."):
        try:
            module = module[int(part)] if part.isdigit() else getattr(module, part)
        except (AttributeError, IndexError, TypeError) as error:
            raise LookupError(f"{type(model).__name__} has no submodule {path}") from error
    return module


@contextlib.contextmanager
def recorded(model: nnx.Module, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Collects the outputs of submodules, by path, while the body runs the model.

    Inside a function under `jax.jit` the outputs are traced arrays, to be returned from it.
    """
    modules = {id(submodule(model, path)): path for path in paths}
    outputs: dict[str, Any] = {}

    def recording(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if id(self) in modules:
                outputs[modules[id(self)]] = result
            return result

        return call

    with contextlib.ExitStack() as stack:
        for kind in {type(submodule(model, path)) for path in modules.values()}:
            stack.enter_context(mock.patch.object(kind, "__call__", recording(kind.__call__)))
        yield outputs
