"""Cases of features that this project does not have yet."""

from collections.abc import Iterator

from benchmarks.parity_cases.case import Case, Result, Verdict

_FEATURES = (("pipe.load_lora_weights(", "LoRA files"),)


def matches(case: Case) -> bool:
    """Whether the case needs such a feature."""
    return any(call in case.call for call, _ in _FEATURES)


def run(case: Case) -> Iterator[Result]:
    """Says so."""
    feature = next(feature for call, feature in _FEATURES if call in case.call)
    yield Result("(whole case)", Verdict.NOT_YET, note=f"{feature}: not implemented yet")
