"""Batches on the devices, from frames or from cached latents."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hotshot_jax.conditioning.text.prompt import tokenize
from hotshot_jax.data.batch import Batch, ClipRequest, PreparationError, decode_frames
from hotshot_jax.data.buckets import Size, assign_buckets
from hotshot_jax.data.clip_source import EncodedClip
from hotshot_jax.data.loader import Loader
from hotshot_jax.errors import HotshotError
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.parallel.placement import batch_sharding, whole
from hotshot_jax.pipelines.components import Components
from hotshot_jax.runtime.progress import Progress
from hotshot_jax.training.feeding.cache import Cache, model_digest
from hotshot_jax.training.feeding.encoding import Encoders
from hotshot_jax.training.feeding.shared_cache import shared_by_hosts

logger = logging.getLogger(__name__)


class Feed:
    """What a training step takes, batch by batch.

    Args:
        loader: gives batches of frames, or of what `CachedLatents.prepare` makes of them, and
            perhaps of control frames (`ControlFrames`).
        encoders: encode what is not cached.
        mesh: of the devices.
    """

    def __init__(self, loader: Loader, encoders: Encoders, mesh: Mesh):
        self.loader = loader
        self.encoders = encoders
        self.mesh = mesh
        hidden, pooled = jax.device_put(encoders.no_text(), whole(mesh))
        self._empty = {"empty_hidden": hidden, "empty_pooled": pooled}

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
            hidden, pooled = self.encoders.text(batch.prompts, self._place)
            arrays |= {"mean": mean, "deviation": deviation, "hidden": hidden, "pooled": pooled}
        arrays = {name: self._placed_again(array) for name, array in arrays.items()}
        return batch, {**arrays, "time_ids": self._place(batch.time_ids), **self._empty}

    def _place(self, array: Any) -> jax.Array:
        local = np.asarray(array)
        shape = (local.shape[0] * jax.process_count(), *local.shape[1:])
        sharding = batch_sharding(self.mesh, shape)
        return jax.make_array_from_process_local_data(sharding, local, shape)

    def _placed_again(self, array: jax.Array) -> jax.Array:
        # Programs are compiled for one placement; the encoders' may choose another.
        return jax.device_put(array, batch_sharding(self.mesh, array.shape))


class CachedLatents:
    """Latents and text embeddings of all clips, computed once and kept on disk.

    Args:
        cache: where.
        components: VAE and text encoders, which compute what is missing.
    """

    def __init__(self, cache: Cache, components: Components):
        self.cache = cache
        # On one device of this host: hosts encode different clips, each at its own pace.
        mesh = create_mesh(MeshConfig(), jax.local_devices()[:1])
        self.encoders = Encoders(components, mesh)
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
        text = self.cache.get(*self._text_key(request.clip.prompt))
        if latents is None or text is None:
            # A clip that could not be read has not been cached either.
            decode_frames(self._whole(request.clip, request.size))
            raise PreparationError(
                f"{request.clip.name}: has changed since training began, or is gone from "
                f"`cache_dir` {self.cache.folder}.\nRun the same command again: it goes on and "
                "fills in what is missing."
            )
        chosen = slice(request.frames.start, request.frames.stop)
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
        advance: Callable[[int], None],
    ) -> Iterator[tuple[ClipRequest, Any] | None]:
        """Clips that are to be encoded, some of them read ahead."""

        def read(index: int) -> tuple[ClipRequest, Any] | None:
            try:
                clip = loader.source[index]
                request = self._whole(clip, loader.sizes[buckets[index]])
                cached = self.cache.has(*self._latent_key(request))
                if cached and self.cache.has(*self._text_key(clip.prompt)):
                    return None
                return request, decode_frames(request)["frames"]
            except HotshotError as error:
                if loader.config.on_bad_sample == "error":
                    raise
                logger.warning("%s; skipped.", error)
                return None

        with ThreadPoolExecutor(max_workers=4) as pool:
            ahead = 8
            waiting = [pool.submit(read, index) for index in own[:ahead]]
            for number in range(len(own)):
                result = waiting.pop(0).result()
                if number + ahead < len(own):
                    waiting.append(pool.submit(read, own[number + ahead]))
                yield result
                advance(1)

    def _encode(self, found: tuple[ClipRequest, Any]) -> None:
        request, frames = found
        mean, deviation = self.encoders.moments(np.stack(frames)[None])
        self.cache.put(
            {"mean": np.asarray(mean[0]), "deviation": np.asarray(deviation[0])},
            *self._latent_key(request),
        )
        key = self._text_key(request.clip.prompt)
        if not self.cache.has(*key):
            hidden, pooled = self.encoders.text([request.clip.prompt])
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
    def _whole(clip: EncodedClip, size: Size) -> ClipRequest:
        return ClipRequest(clip, range(len(clip.pictures)), size)
