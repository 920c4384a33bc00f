"""Batches for training, read ahead by `grain` and restorable to the exact batch.

`BatchPlan` says which clip stands where; grain's threads (or worker processes) read and decode them
in that order. The position is one number, the batches consumed, so that a run resumed on another
number of hosts goes on with the same global batches.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from hotshot_jax.data.batch import (
    Batch,
    BatchPlan,
    ClipRequest,
    Element,
    PreparationError,
    Prepare,
    decode_frames,
    stack,
)
from hotshot_jax.data.buckets import (
    Size,
    assign_buckets,
    bucket_sizes,
    choose_frames,
    spanned_frames,
    stride_at,
    time_ids,
)
from hotshot_jax.data.clip_source import ClipSource, OnBadSample, table_fingerprint
from hotshot_jax.data.mixing.caption_edits import AS_THEY_ARE, CaptionEdits
from hotshot_jax.data.mixing.mixed_plan import MixedPlan, Part
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.resize import room_to_crop

# No run is that long; grain wants a length.
_ENDLESS: Final = 1 << 40
# Behind the place of a clip in seeds, so that what is drawn for one thing says nothing of another.
_CHANGES: Final = (0, 1)
_CAPTIONS: Final = (0, 2)


class OtherDataError(HotshotError):
    """A position that is one in other data.

    Args:
        changes: what is not as it was, in words.
    """

    def __init__(self, changes: str) -> None:
        super().__init__(
            f"The saved position in the data does not fit: {changes}.\n"
            "Resume with the data and the settings of that run, go on with the new ones by "
            "`resume_data` restart, or start a new one."
        )
        self.changes = changes


@dataclass(frozen=True)
class LoaderConfig:
    """How clips become batches.

    Attributes:
        batch_size: clips a batch, over all hosts; must be a multiple of `host_count` without
            `slots`.
        frames: frames a clip.
        resolution: of the buckets; see `bucket_sizes`.
        aspect_ratio: the name of the one bucket to use, or None for all.
        seed: of the order and of the choice of frames.
        epochs: how often each clip is seen before the batches end; None for ever.
        host_index: which share of each batch this host reads.
        host_count: number of hosts.
        slots: the places of each batch that this host reads, from 0, where these are no share of
            its own: hosts may have the same, and read the same as long as both can read it. None
            for that share.
        threads: that read and decode; None for one a core, 16 at most.
        workers: processes that do so instead, for when decoding outruns Python's threads. They are
            started by spawning, so that the main module needs its `__name__` guard.
        on_bad_sample: when a clip breaks while training: `error`, or `skip` to take the next one.
        stride: from each frame of a clip to the next one that is taken.
        fps: take frames at the stride that comes nearest to so many a second.
        mirror: exchange left and right of every second clip, by chance.
        random_crop: crop anywhere, and not in the middle; `time_ids` tell where.
        captions: what becomes of captions.
    """

    batch_size: int
    frames: int = 8
    resolution: int = 512
    aspect_ratio: str | None = None
    seed: int = 111
    epochs: int | None = None
    host_index: int = 0
    host_count: int = 1
    slots: Sequence[int] | None = None
    threads: int | None = None
    workers: int = 0
    on_bad_sample: OnBadSample = "error"
    stride: int = 1
    fps: float | None = None
    mirror: bool = False
    random_crop: bool = False
    captions: CaptionEdits = AS_THEY_ARE

    @property
    def own_slots(self) -> Sequence[int]:
        """The places of each batch that this host reads."""
        if self.slots is not None:
            return self.slots
        share = self.batch_size // self.host_count
        return range(self.host_index * share, (self.host_index + 1) * share)

    @property
    def by_rule(self) -> "LoaderConfig":
        """The same but for what changes clips by chance, for measuring."""
        captions = replace(self.captions, shuffle_tags=False, tag_dropout=0.0)
        return replace(self, mirror=False, random_crop=False, captions=captions)


@dataclass(frozen=True)
class _Elements:
    """This host's clips, batch after batch, from a batch on: what grain reads."""

    source: ClipSource
    plan: BatchPlan | MixedPlan
    sizes: tuple[Size, ...]
    config: LoaderConfig
    prepare: Prepare
    first_batch: int
    last_batch: int

    def __len__(self) -> int:
        return (self.last_batch - self.first_batch) * len(self.config.own_slots)

    def __getitem__(self, index: int) -> Element:
        slots = self.config.own_slots
        batch, place = divmod(index, len(slots))
        batch += self.first_batch
        slot = slots[place]
        epoch, bucket, _ = self.plan.locate(batch)
        skipped: list[str] = []
        tries = self.plan.count(bucket) if self.config.on_bad_sample == "skip" else 1
        for substitute in range(tries):
            clip = self.plan.clip(batch, slot, substitute)
            try:
                return self._read(clip, self.sizes[bucket], (batch, slot), epoch, skipped)
            except PreparationError:
                raise
            except HotshotError as error:
                skipped.append(str(error))
        raise HotshotError(
            f"A training sample broke after it was checked: {skipped[0]}\n"
            "Repair it and resume, or train without it by `on_bad_sample` skip."
        )

    def _read(
        self, index: int, size: Size, place: tuple[int, int], epoch: int, skipped: list[str]
    ) -> Element:
        config, clip = self.config, self.source[index]
        try:
            stride = stride_at(clip.fps, config.fps, config.stride)
        except HotshotError as error:
            raise HotshotError(f"{clip.name}: {error}") from error
        available, needed = len(clip.pictures), spanned_frames(config.frames, stride)
        if available < needed:
            raise HotshotError(f"{clip.name}: has {available} frames, but {needed} are needed")
        # An epoch of one data set has each clip once; of others it has some more often.
        mixed = isinstance(self.plan, MixedPlan)
        seed = (config.seed, epoch, index) if not mixed else (config.seed, *place, index)
        frames = choose_frames(available, config.frames, seed, stride)
        row = self.source.table[index]
        original = int(row["width"]), int(row["height"])
        mirrored, corner = False, None
        if config.mirror or config.random_crop:
            random = np.random.default_rng((config.seed, *place, *_CHANGES))
            mirrored = bool(random.integers(2)) and config.mirror
            corner = _corner(random, original, size) if config.random_crop else None
        caption = config.captions.drawn(clip.prompt, (config.seed, *place, *_CAPTIONS))
        batch, _ = place
        return Element(
            arrays=self.prepare(ClipRequest(clip, frames, size, caption, corner, mirrored)),
            time_ids=time_ids(original, size, corner),
            prompt=caption,
            sample=clip.name,
            index=index,
            first_frame=frames.start,
            size=size,
            number=batch,
            epoch=epoch,
            skipped=tuple(skipped),
        )


@dataclass
class Loader:
    """An iterator over batches whose position can be saved and restored.

    Args:
        source: where the clips come from.
        config: how they become batches.
        prepare: makes arrays of a clip, of the same shapes for every clip of a bucket. It runs in
            grain's threads. By default it decodes the frames.
        mix: the data sets that the source joins, to be drawn from in their shares; None to see each
            clip once an epoch.

    Raises:
        UsageError: a batch size, frame count, resolution or host that makes no sense.
    """

    source: ClipSource
    config: LoaderConfig
    prepare: Prepare = decode_frames
    mix: Sequence[Part] | None = None
    skipped: dict[str, int] = field(default_factory=dict, init=False)
    """How often each clip that cannot be read was replaced, by its message."""

    def __post_init__(self) -> None:
        config = self.config
        _check(config)
        self.sizes = bucket_sizes(config.resolution, config.aspect_ratio)
        buckets = assign_buckets(self.source.table, self.sizes)
        self.plan: BatchPlan | MixedPlan
        if self.mix is None:
            self.plan = BatchPlan(buckets, config.batch_size, config.seed)
        else:
            self.plan = MixedPlan(buckets, self.mix, config.batch_size, config.seed)
        self._next_batch = 0
        self._last_batch = (
            _ENDLESS if config.epochs is None else config.epochs * self.plan.batches_per_epoch
        )
        self._iterator: Any = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches in a pass over all clips."""
        return self.plan.batches_per_epoch

    @property
    def used_sizes(self) -> list[Size]:
        """(width, height) of each bucket that holds a clip."""
        return [self.sizes[bucket] for bucket in self.plan.used_buckets()]

    @property
    def next_size(self) -> Size:
        """(width, height) of the bucket that the next batch is of."""
        _, bucket, _ = self.plan.locate(self._next_batch)
        return self.sizes[bucket]

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            HotshotError: a clip cannot be read and bad samples are not to be skipped.
            StopIteration: after the last epoch.
        """
        if self._next_batch >= self._last_batch:
            raise StopIteration
        if self._iterator is None:
            self._iterator = self._start()
        batch: Batch = next(self._iterator)
        self._next_batch = batch.number + 1
        for message in batch.skipped:
            self.skipped[message] = self.skipped.get(message, 0) + 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position: the next batch, and what must be the same for it to mean anything."""
        mix = [[part.clips, part.repeats, part.weight] for part in self.mix or ()]
        return {
            "next_batch": self._next_batch,
            "batch_size": self.config.batch_size,
            "seed": self.config.seed,
            "frames": self.config.frames,
            "resolution": self.config.resolution,
            "buckets": len(self.sizes),
            "samples": len(self.source),
            "table": table_fingerprint(self.source.table),
            **({"mix": mix} if mix else {}),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `get_state` was called.

        Raises:
            OtherDataError: the data or the settings are not those of the saved position.
        """
        here = self.get_state()
        changed = [
            f"{name} was {state.get(name)} and is {here.get(name)}"
            for name in {**here, **dict.fromkeys(("mix",) if "mix" in state else ())}
            if name != "next_batch" and state.get(name) != here.get(name)
        ]
        if changed or type(state.get("next_batch")) is not int:
            raise OtherDataError("; ".join(changed) or "next_batch is no number")
        self.close()
        self._next_batch = int(state["next_batch"])

    def close(self) -> None:
        """Stop reading ahead. The next batch starts it again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> Any:
        import grain

        config = self.config
        share = len(config.own_slots)
        elements = _Elements(
            source=self.source,
            plan=self.plan,
            sizes=self.sizes,
            config=config,
            prepare=self.prepare,
            first_batch=self._next_batch,
            last_batch=self._last_batch,
        )
        threads = config.threads or min(16, os.cpu_count() or 1)
        if not config.workers:
            # Two batches ahead, and never fewer clips than there are threads to read them.
            options = grain.ReadOptions(threads, max(2 * share, threads))
            dataset = grain.MapDataset.source(elements).to_iter_dataset(options)
            return iter(dataset.batch(share, batch_fn=stack))
        _parse_absl_flags()
        options = grain.ReadOptions(max(1, threads // config.workers), 1)
        batches = grain.MapDataset.source(elements).batch(share, batch_fn=stack)
        return iter(
            batches.to_iter_dataset(options).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=config.workers)
            )
        )


def _corner(random: np.random.Generator, original: Size, bucket: Size) -> tuple[int, int]:
    """Left and upper edge of a crop, anywhere."""
    left, upper = (int(random.integers(room + 1)) for room in room_to_crop(original, bucket))
    return left, upper


def _parse_absl_flags() -> None:
    # grain asks for one of its absl flags when it starts processes, which fails in a program that
    # was not started by absl.
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _check(config: LoaderConfig) -> None:
    if config.batch_size < 1:
        raise UsageError(f"`train_batch_size` {config.batch_size} must be at least 1.")
    if config.slots is not None:
        if not config.slots or not set(config.slots) <= set(range(config.batch_size)):
            raise UsageError(
                f"The places {list(config.slots)} are none of a batch of {config.batch_size} clips."
            )
    elif config.host_count < 1 or config.batch_size % config.host_count:
        raise UsageError(
            f"A batch of {config.batch_size} clips cannot be split over {config.host_count} hosts."
        )
    if not 0 <= config.host_index < config.host_count:
        raise UsageError(f"Host {config.host_index} is none of {config.host_count} hosts.")
    if config.frames < 1:
        raise UsageError(f"Clips of {config.frames} frames cannot be trained on.")
    if config.stride < 1:
        raise UsageError(f"`frame_stride` is {config.stride}; expected 1 or more.")
    if config.fps is not None and not 0 < config.fps < float("inf"):
        raise UsageError(f"`fps` is {config.fps}; expected a number above 0.")
    config.captions.check()
    if config.epochs is not None and config.epochs < 1:
        raise UsageError(f"`num_train_epochs` {config.epochs} must be at least 1.")
