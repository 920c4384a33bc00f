"""A share of the clips kept from training, to see how well the model does on what is new to it."""

import dataclasses

import numpy as np

from hotshot_jax.data.mixing.joined import JoinedData
from hotshot_jax.data.open_data import OpenedData, SomeClips
from hotshot_jax.errors import UsageError


def hold_out(joined: JoinedData, share: float) -> tuple[JoinedData, OpenedData]:
    """Divides data in two: what is trained on, and what is held out.

    Which clips are held out depends on their places alone, so that clips which are added behind
    the others change nothing, and a run that is resumed never trains on what it is measured by.

    Args:
        joined: the data.
        share: of each data set that is held out, 0 to 1; at least one clip of all.

    Raises:
        UsageError: there would be nothing left to train on, in all or of a data set.
    """
    opened = joined.opened
    count = len(opened.source)
    lengths = [count] if joined.mix is None else [part.clips for part in joined.mix]
    held = np.concatenate([_drawn(length) < share for length in lengths])
    if not held.any():
        held[int(np.argmin(_drawn(count)))] = True
    owners = np.repeat(np.arange(len(lengths)), lengths)
    left = np.bincount(owners[~held], minlength=len(lengths))
    if not left.all():
        raise UsageError(
            f"`validation_split` {share:g} of {lengths[int(np.argmin(left))]} clips leaves nothing "
            "to train on; give less, or more clips."
        )
    mix = joined.mix and tuple(
        dataclasses.replace(part, clips=int(clips))
        for part, clips in zip(joined.mix, left, strict=True)
    )
    return (
        JoinedData(_only(opened, ~held), mix),
        dataclasses.replace(_only(opened, held), problems=(), left_out=(), remarks=()),
    )


def _drawn(count: int) -> np.ndarray:
    """Numbers from 0 to 1, the same for every place of a data set, however many follow."""
    return np.random.default_rng(0).random(count)


def _only(opened: OpenedData, chosen: np.ndarray) -> OpenedData:
    places = np.flatnonzero(chosen)
    problems = len({problem.sample for problem in opened.problems})
    return dataclasses.replace(
        opened, source=SomeClips(opened.source, places), total=len(places) + problems
    )
