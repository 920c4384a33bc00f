"""Batches on the devices, and what the UNet is trained on: latents' moments and text embeddings."""

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from hotshot_jax.conditioning.text.prompt import encode_tokens, tokenize
from hotshot_jax.conditioning.text.prompt_weighting import Vocabulary, chunk_prompt
from hotshot_jax.convert.load import read_ahead
from hotshot_jax.data.batch import (
    Arrays,
    Batch,
    ClipRequest,
    PreparationError,
    Prepare,
    decode_frames,
)
from hotshot_jax.data.buckets import Size, assign_buckets
from hotshot_jax.data.clip_source import EncodedClip
from hotshot_jax.data.loader import Loader
from hotshot_jax.errors import HotshotError
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.parallel.placement import batch_sharding, place, whole
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.latents import latent_moments
from hotshot_jax.runtime.progress import Progress
from hotshot_jax.training.feeding.cache import Cache, model_digest, shared_by_hosts


class Encoders:
    """VAE and text encoders on the devices.

    Args:
        components: the models, in host memory.
        mesh: where their copies go.
        max_vae_encode: frames that the VAE encodes at once; None for all of a batch.
    """

    def __init__(self, components: Components, mesh: Mesh, max_vae_encode: int | None = None):
        self.components = components
        self.mesh = mesh
        self.max_vae_encode = max_vae_encode
        self._models: dict[str, Any] = {}
        self._told = False

    def moments(self, frames: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the latents.

        Args:
            frames: uint8 `[batch, frames, height, width, 3]`.

        Returns:
            Two of float32 `[batch, frames, height / 8, width / 8, channels]`, not yet scaled.
        """
        vae = self._model("vae")
        count = frames.shape[1]
        at_once = min(max(1, (self.max_vae_encode or 2**30) // frames.shape[0]), count)
        with jax.set_mesh(self.mesh):
            parts = [
                _encode_frames(vae, frames[:, first : first + at_once])
                for first in range(0, count, at_once)
            ]
        if len(parts) == 1:
            return parts[0]
        means, deviations = zip(*parts, strict=True)
        return jnp.concatenate(means, axis=1), jnp.concatenate(deviations, axis=1)

    def text(
        self, prompts: Sequence[str], place: Callable[[np.ndarray], Any] = lambda ids: ids
    ) -> tuple[jax.Array, jax.Array]:
        """Embeddings `[prompts, tokens, channels]` and pooled `[prompts, text_channels]`.

        Args:
            prompts: those of this host.
            place: puts token ids on the mesh.
        """
        first, second = self._model("text_encoder"), self._model("text_encoder_2")
        ids, ids_2 = map(place, self.tokens(prompts))
        with jax.set_mesh(self.mesh):
            return _encode_text(first, second, ids, ids_2)

    def tokens(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """What the first and the second encoder read, int32 `[prompts, tokens]`.

        Args:
            prompts: those of this host.
        """
        self._tell_of_long(prompts)
        tokenizers = self.components.tokenizer, self.components.tokenizer_2
        read = (tokenize(each, prompts, warn=False) for each in tokenizers)
        ids, ids_2 = (ids.astype(np.int32) for ids in read)
        return ids, ids_2

    def no_text(self) -> tuple[ArrayLike, ArrayLike]:
        """What stands for no prompt, as the checkpoint's pipeline has it; a batch of one."""
        components = self.components
        if not components.force_zeros_for_empty_prompt:
            return self.text([""])
        # The encoders would be compiled, and zeros too, for a shape.
        encoders = components.text_encoder, components.text_encoder_2
        shapes = jax.eval_shape(encode_tokens, *encoders, *self.tokens([""]))
        hidden, pooled = (np.zeros(each.shape, each.dtype) for each in shapes)
        return hidden, pooled

    def release(self) -> None:
        """Frees the copies on the devices; they come back when they are needed."""
        self._models.clear()

    def _tell_of_long(self, prompts: Sequence[str]) -> None:
        """Warns of the first prompt that is cut off; one for each would come in every step."""
        if self._told:
            return
        vocabulary = Vocabulary.of(self.components.tokenizer)
        for prompt in prompts:
            if len(chunk_prompt(prompt, vocabulary)) > 1:
                self._told = True
                logger.warning(
                    "The text encoders read %d tokens; the end of longer prompts has no effect, "
                    "first of all of this one: %s",
                    vocabulary.length - 2,
                    prompt,
                )
                return

    def _model(self, name: str) -> Any:
        if name not in self._models:
            sharding = whole(self.mesh)
            self._models[name] = jax.tree.map(
                lambda leaf: place(leaf, sharding), getattr(self.components, name)
            )
        return self._models[name]


_encode_frames = jax.jit(latent_moments)


_encode_text = jax.jit(encode_tokens)


logger = logging.getLogger(__name__)


class Feed:
    """What a training step takes, batch by batch.

    Args:
        loader: gives batches of frames, or of what `CachedLatents.prepare` makes of them, and
            perhaps of control frames (`ControlFrames`); on several hosts, the rows that each
            one's devices hold (`held_rows`).
        encoders: encode what is not cached.
        mesh: of the devices.
        text_trains: whether a step encodes texts itself: it is given token ids.
    """

    def __init__(
        self, loader: Loader, encoders: Encoders, mesh: Mesh, *, text_trains: bool = False
    ):
        self.loader = loader
        self.encoders = encoders
        self.mesh = mesh
        self.text_trains = text_trains
        empty: dict[str, Any] = {}
        if not text_trains:
            empty["empty_hidden"], empty["empty_pooled"] = encoders.no_text()
        elif not encoders.components.force_zeros_for_empty_prompt:
            empty["empty_ids"], empty["empty_ids_2"] = encoders.tokens([""])
        self._empty = {name: place(each, whole(mesh)) for name, each in empty.items()}

    def next(self) -> tuple[Batch, dict[str, jax.Array]]:
        """The next batch, and its arrays as `Trainer.step` takes them.

        Raises:
            HotshotError: a clip cannot be read.
            StopIteration: there are no more.
        """
        batch = next(self.loader)
        arrays = {name: self._place(array) for name, array in batch.arrays.items()}
        if "frames" in arrays:
            mean, deviation = self.encoders.moments(arrays.pop("frames"))
            arrays |= {"mean": mean, "deviation": deviation}
            if self.text_trains:
                ids, ids_2 = map(self._place, self.encoders.tokens(batch.prompts))
                arrays |= {"ids": ids, "ids_2": ids_2}
            else:
                hidden, pooled = self.encoders.text(batch.prompts, self._place)
                arrays |= {"hidden": hidden, "pooled": pooled}
        # Programs are compiled for one placement; the encoders' may choose another.
        arrays = {
            name: jax.device_put(array, batch_sharding(self.mesh, array.shape))
            for name, array in arrays.items()
        }
        return batch, {**arrays, "time_ids": self._place(batch.time_ids), **self._empty}

    def _place(self, array: Any) -> jax.Array:
        local = np.asarray(array)
        shape = (self.loader.config.batch_size, *local.shape[1:])
        sharding = batch_sharding(self.mesh, shape)
        # The loader reads the rows that the devices of this process hold, in their order.
        return jax.make_array_from_process_local_data(sharding, local, shape)


class CachedLatents:
    """Latents and text embeddings of all clips, computed once and kept on disk.

    Args:
        cache: where.
        components: VAE and text encoders, which compute what is missing.
    """

    def __init__(self, cache: Cache, components: Components):
        self.cache = cache
        # On one device of this host: hosts encode different clips, each at its own pace.
        self.encoders = Encoders(components, create_mesh(MeshConfig(), jax.local_devices()[:1]))
        self._vae = model_digest(components.vae)
        self._text = model_digest(components.text_encoder, components.text_encoder_2)
        # Tokenizers may not be used by several threads at once.
        self._tokenizing = threading.Lock()

    def prepare(self, request: ClipRequest) -> dict[str, np.ndarray]:
        """The cached arrays of a clip: `mean`, `deviation`, `hidden` and `pooled`.

        Raises:
            HotshotError: the clip cannot be read.
            PreparationError: it can, but the cache has nothing of it.
        """
        latents = self.cache.get(*self._latent_key(request))
        text = self.cache.get(*self._text_key(request.prompt))
        if latents is None or text is None:
            # A clip that could not be read has not been cached either.
            decode_frames(self._whole(request.clip, request.size))
            raise PreparationError(
                f"{request.clip.name}: has changed since training began, or is gone from "
                f"`cache_dir` {self.cache.folder}.\nRun the same command again: it goes on and "
                "fills in what is missing."
            )
        chosen = slice(request.frames.start, request.frames.stop, request.frames.step)
        return {**{name: array[chosen] for name, array in latents.items()}, **text}

    def fill(self, loader: Loader, progress: Progress) -> int:
        """Computes what is missing for the clips of this host's share, and waits for the others.

        Returns:
            How many clips had to be encoded.

        Raises:
            HotshotError: a clip cannot be read, and bad ones are not to be skipped; or hosts do not
                share the cache.
        """
        with shared_by_hosts(self.cache.folder):
            return self._fill(loader, progress)

    def _fill(self, loader: Loader, progress: Progress) -> int:
        encoded = 0
        config = loader.config
        buckets = assign_buckets(loader.source.table, loader.sizes)
        own = range(config.host_index, len(loader.source), config.host_count)
        with progress.stage("caching", len(own), "clip") as advance:
            for found in self._missing(loader, buckets, own, advance):
                if found is not None:
                    encoded += 1
                    self._encode(found)
        self.encoders.release()
        return encoded

    def _missing(
        self,
        loader: Loader,
        buckets: np.ndarray,
        own: range,
        advance: Callable[[int], object],
    ) -> Iterator[tuple[ClipRequest, Any] | None]:
        """Clips that are to be encoded, some of them read ahead."""

        def read(index: int) -> tuple[ClipRequest, Any] | None:
            try:
                clip = loader.source[index]
                caption = loader.config.captions.fixed(clip.prompt)
                request = self._whole(clip, loader.sizes[buckets[index]], caption)
                cached = self.cache.has(*self._latent_key(request))
                if cached and self.cache.has(*self._text_key(caption)):
                    return None
                return request, decode_frames(request)["frames"]
            except HotshotError as error:
                if loader.config.on_bad_sample == "error":
                    raise
                logger.warning("%s; skipped.", error)
                return None

        for found in read_ahead(read, own, depth=8, threads=4):
            yield found
            advance(1)

    def _encode(self, found: tuple[ClipRequest, Any]) -> None:
        request, frames = found
        mean, deviation = self.encoders.moments(np.stack(frames)[None])
        self.cache.put(
            {"mean": np.asarray(mean[0]), "deviation": np.asarray(deviation[0])},
            *self._latent_key(request),
        )
        key = self._text_key(request.prompt)
        if not self.cache.has(*key):
            hidden, pooled = self.encoders.text([request.prompt])
            self.cache.put({"hidden": np.asarray(hidden[0]), "pooled": np.asarray(pooled[0])}, *key)

    def _latent_key(self, request: ClipRequest) -> tuple[Any, ...]:
        clip = request.clip
        return "latents", self._vae, clip.digest(range(len(clip.pictures))), request.size

    def _text_key(self, prompt: str) -> tuple[Any, ...]:
        tokenizers = self.encoders.components.tokenizer, self.encoders.components.tokenizer_2
        with self._tokenizing:
            ids = [tokenize(each, [prompt], warn=False).tolist() for each in tokenizers]
        return "text", self._text, ids

    @staticmethod
    def _whole(clip: EncodedClip, size: Size, caption: str | None = None) -> ClipRequest:
        return ClipRequest(clip, range(len(clip.pictures)), size, caption)


MakeControl = Callable[[np.ndarray], np.ndarray]
"""From frames to control frames, both uint8 `[frames, height, width, 3]`."""


@dataclasses.dataclass(frozen=True)
class ControlFrames:
    """A loader's `prepare` that adds control frames to what another one prepares.

    They are made of the frames as they are trained on, scaled and cropped, which is what a pipeline
    makes them of. Frames are decoded for that even where latents are cached.

    Attributes:
        make: makes them; called from several threads.
        prepare: prepares the rest: frames, or cached latents.
    """

    make: MakeControl
    prepare: Prepare = decode_frames

    def __call__(self, request: ClipRequest) -> Arrays:
        """What `prepare` gives, and `control`, uint8 `[frames, height, width, 3]`.

        Raises:
            HotshotError: a frame cannot be read, or their sizes differ.
        """
        decoded = decode_frames(request)
        rest: dict[str, Any] = dict(
            decoded if self.prepare is decode_frames else self.prepare(request)
        )
        return {**rest, "control": self.make(np.stack(decoded["frames"]))}
