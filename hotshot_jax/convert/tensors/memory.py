"""Whether there is enough memory for what is about to be done."""

from pathlib import Path

from hotshot_jax.errors import HotshotError

_HEADROOM = 1.25


def available_memory() -> int | None:
    """Bytes of main memory that programs can still take, or None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def check_memory(weights: int) -> None:
    """Checks that weights of so many bytes can be converted.

    Raises:
        HotshotError: they would not fit.
    """
    available, needed = available_memory(), int(weights * _HEADROOM)
    if available is not None and needed > available:
        raise HotshotError(
            f"Not enough memory: converting takes {needed / 2**30:.1f} GiB, "
            f"{available / 2**30:.1f} GiB are free. Close other programs, or use another machine."
        )
