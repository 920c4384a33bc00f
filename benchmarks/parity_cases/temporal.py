"""Temporal transformers on their own."""

from collections.abc import Iterator

import jax

from benchmarks.parity_cases.case import SINGLE_MODULE, Case, Result, compare
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.models import load_temporal_transformer
from benchmarks.parity_cases.pipelines.recording import recorded
from hotshot_jax.models.layers.embeddings import positional_encoding
from hotshot_jax.models.unet.temporal_transformer import TransformerTemporal


def matches(case: Case) -> bool:
    """Whether the case runs a temporal transformer."""
    return "TransformerTemporal.forward(" in case.call


def run(case: Case) -> Iterator[Result]:
    """Compares the outputs, the stored activations and the table of positions."""
    model = load_temporal_transformer(case.model("TransformerTemporal"))
    if "positional_encoding" in case:
        expected = case["positional_encoding"]
        table = positional_encoding(*expected.shape[1:])[None]
        yield compare("positional_encoding", table, expected, SINGLE_MODULE)
    for prefix in case.prefixes("hidden_states"):
        marker = f"{prefix}act."
        names = [name.removeprefix(marker) for name in case.names if name.startswith(marker)]
        # A stored name is relative to the transformer, or to its only block.
        paths = {
            name: name if hasattr(model, name.split(".")[0]) else f"transformer_blocks.0.{name}"
            for name in names
        }
        output, activations = _run(
            model, channels_last(case[f"{prefix}hidden_states"]), tuple(paths.values())
        )
        yield compare(f"{prefix}out", channels_first(output), case[f"{prefix}out"], SINGLE_MODULE)
        for name, path in paths.items():
            # Stored as [(batch frames), pixels, channels].
            got = activations[path].reshape(-1, *activations[path].shape[-2:])
            yield compare(marker + name, got, case[marker + name], SINGLE_MODULE)


@jax.jit(static_argnames="paths")
def _run(
    model: TransformerTemporal, x: jax.Array, paths: tuple[str, ...]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    with recorded(model, paths) as activations:
        output = model(x)
    return output, activations
