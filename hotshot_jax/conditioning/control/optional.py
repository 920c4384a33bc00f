"""Importing what only some control frames need."""

import importlib
from typing import Any

from hotshot_jax.errors import HotshotError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Imports a module of an optional extra.

    Args:
        module: name of the module.
        extra: the extra that brings it.
        purpose: what it is needed for, as the beginning of a sentence.

    Raises:
        HotshotError: the module is missing, or is there but cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise HotshotError(
                f"{purpose} needs {module}, which is installed without {error.name}. "
                f"Install it anew: pip install 'hotshot-jax[{extra}]'"
            ) from error
        raise HotshotError(
            f"{purpose} needs {module}, which is not installed: "
            f"pip install 'hotshot-jax[{extra}]'\n"
            "Or make the control frames elsewhere and pass them with `control_preprocess` none."
        ) from error
    except ImportError as error:
        raise HotshotError(
            f"{purpose} needs {module}, which is installed but cannot be loaded: {error}"
        ) from error
