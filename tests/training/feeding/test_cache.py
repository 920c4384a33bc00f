"""What is cached: under which names, by how many hosts, and what becomes of what is missing."""

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hotshot_jax.data.batch import ClipRequest, PreparationError
from hotshot_jax.data.loader import Loader, LoaderConfig
from hotshot_jax.data.mixing.caption_edits import CaptionEdits
from hotshot_jax.data.open_data import open_data
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.parallel import shared_folder
from hotshot_jax.pipelines.loading import load_tokenizer
from hotshot_jax.training.feeding import cache as shared_cache
from hotshot_jax.training.feeding.cache import Cache
from hotshot_jax.training.feeding.feed import CachedLatents
from tests.data.clips import write_data


def cached_latents(folder: Path, tokenizer: Any) -> CachedLatents:
    """Without models, of which hashes stand in the names."""
    cached: Any = object.__new__(CachedLatents)
    components = SimpleNamespace(tokenizer=tokenizer, tokenizer_2=tokenizer)
    cached.encoders = SimpleNamespace(components=components)
    cached.cache, cached._vae, cached._text = Cache(folder), "vae", "text"
    cached._tokenizing = threading.Lock()
    return cached


def test_text_is_found_by_its_token_ids(tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer"
    shutil.copytree(tiny_checkpoint / "tokenizer", other)
    words = json.loads((other / "vocab.json").read_text())
    first, second = "r</w>", "d</w>"
    words[first], words[second] = words[second], words[first]
    (other / "vocab.json").write_text(json.dumps(words))
    here, there = (
        cached_latents(tmp_path, load_tokenizer(folder))
        for folder in (tiny_checkpoint / "tokenizer", other)
    )
    assert here._text_key("r") == here._text_key("R ") != here._text_key("d")
    assert here._text_key("r") != there._text_key("r") == here._text_key("d")


@pytest.fixture
def filled(tiny_checkpoint: Path, tmp_path: Path) -> tuple[CachedLatents, Loader]:
    """A cache of two clips, with numbers in place of latents."""
    write_data(tmp_path / "data", [(16, 16)] * 2, frames=4)
    cached = cached_latents(tmp_path / "cache", load_tokenizer(tiny_checkpoint / "tokenizer"))
    config = LoaderConfig(2, frames=4, resolution=16, on_bad_sample="skip")
    loader = Loader(open_data(str(tmp_path / "data"), 4).source, config, cached.prepare)
    for index in range(2):
        clip = loader.source[index]
        request = ClipRequest(clip, range(4), loader.used_sizes[0])
        cached.cache.put({"mean": np.full((4, 1), index)}, *cached._latent_key(request))
        cached.cache.put({"hidden": np.zeros(1)}, *cached._text_key(clip.prompt))
    return cached, loader


def test_what_is_missing_is_an_error_and_never_a_bad_sample(
    filled: tuple[CachedLatents, Loader],
) -> None:
    cached, loader = filled
    with loader:
        assert sorted(next(loader).arrays["mean"][:, 0, 0]) == [0, 1]
    for entry in list(cached.cache.folder.rglob("*.safetensors"))[:1]:
        entry.unlink()
    with loader, pytest.raises(PreparationError, match="is gone from `cache_dir`"):
        next(loader)
    assert loader.skipped == {}


def test_other_captions_and_strides_have_what_is_theirs(
    filled: tuple[CachedLatents, Loader],
) -> None:
    cached, loader = filled
    captions = CaptionEdits("zzz")
    config = replace(loader.config, frames=2, stride=3, captions=captions)
    frames = np.arange(4)[:, None]
    for index in range(2):
        clip = loader.source[index]
        request = ClipRequest(clip, range(4), loader.used_sizes[0])
        cached.cache.put({"mean": frames}, *cached._latent_key(request))
    with Loader(loader.source, config, cached.prepare) as other:
        # Latents are found whatever is said of the clip; texts are not.
        with pytest.raises(PreparationError):
            next(other)
        other.close()
        for index in range(2):
            text = captions.fixed(loader.source[index].prompt)
            cached.cache.put({"hidden": np.full(1, 7)}, *cached._text_key(text))
        arrays = next(other).arrays
    assert arrays["hidden"].tolist() == [[7], [7]]
    assert arrays["mean"][:, :, 0].tolist() == [[0, 3], [0, 3]]


def test_a_sample_that_cannot_be_read_is_a_bad_one_still(
    filled: tuple[CachedLatents, Loader], tmp_path: Path
) -> None:
    _, loader = filled
    (torn,) = (tmp_path / "data").glob("*0/1.png")
    torn.write_bytes(torn.read_bytes()[:60])
    with loader:
        assert list(next(loader).arrays["mean"][:, 0, 0]) == [1, 1]
    assert [Path(torn).name in message for message in loader.skipped] == [True]


class Hosts:
    """Two hosts, each of them a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._index = threading.local()
        barrier = threading.Barrier(2)

        @contextlib.contextmanager
        def failing_together(kind: Any = HotshotError) -> Iterator[None]:
            yield
            barrier.wait(10)

        def first(text: str) -> str:
            barrier.wait(10)
            return "agreed"

        jax = SimpleNamespace(process_count=lambda: 2, process_index=lambda: self._index.value)
        for module in (shared_cache, shared_folder):
            monkeypatch.setattr(module, "jax", jax)
            monkeypatch.setattr(module, "first_of_all_hosts", first)
        monkeypatch.setattr(shared_folder, "failing_together", failing_together)

    def run(self, folders: list[Path], seconds: list[float]) -> list[Any]:
        """Each fills its folder for so long; the time at which it goes on, or its error."""
        results: list[Any] = [None, None]

        def host(index: int) -> None:
            self._index.value = index
            try:
                with shared_cache.shared_by_hosts(folders[index]):
                    time.sleep(seconds[index])
                results[index] = time.monotonic()
            except HotshotError as error:
                results[index] = error

        threads = [threading.Thread(target=host, args=(index,)) for index in range(2)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [each - started if isinstance(each, float) else each for each in results]


def test_no_host_goes_on_before_all_have_filled_their_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert min(Hosts(monkeypatch).run([cache, cache], [0.0, 0.5])) >= 0.5
    assert list(cache.iterdir()) == []


def test_a_folder_of_each_host_s_own_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared_folder, "_SECONDS_TO_APPEAR", 0.1)
    errors = Hosts(monkeypatch).run([tmp_path / "a", tmp_path / "b"], [0.0, 0.0])
    for index, error in enumerate(errors):
        assert isinstance(error, UsageError)
        assert f"process {index} does not see what process {1 - index} has written" in str(error)
