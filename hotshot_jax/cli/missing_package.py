"""A package that is not installed: which of ours brings it."""

import sys

# Names in Python of what is imported before anything is computed, by the extra that brings it;
# those of the first come with the package itself.
_BROUGHT_BY = {
    "": "einops flax huggingface_hub imageio_ffmpeg jax jaxlib ml_dtypes numpy orbax PIL "
    "safetensors scipy tokenizers tqdm yaml",
    "train": "array_record grain optax tensorflow_datasets",
    "serve": "fastapi starlette uvicorn pydantic pydantic_core multipart python_multipart gradio "
    "gradio_client prometheus_client",
}
PACKAGES = {name: extra for extra, names in _BROUGHT_BY.items() for name in names.split()}


def missing_package(error: ModuleNotFoundError) -> str | None:
    """What to say of a package that is not installed; None where a bug may have caused it."""
    package = (error.name or "").partition(".")[0]
    if package not in PACKAGES:
        return None
    extra = f"[{PACKAGES[package]}]" if PACKAGES[package] else ""
    here = f'".{extra}"' if extra else "."
    return (
        f"{package} is not installed for {sys.executable}: pip install 'hotshot-jax{extra}', or in "
        f"a checkout pip install -c constraints.txt {here}"
    )
