"""What a clip looks like while it is made."""

from pathlib import Path

import numpy as np

from hotshot_jax.pipelines.latent_colors import LatentColors
from hotshot_jax.server.worker import Pace
from tests.server.fakes import Making, Serving, asked, latents_of, until

COLORS = LatentColors(np.ones((4, 3)) / 10, np.full(3, 0.5))


def test_whoever_looks_sees_the_own_clip_of_a_batch(tmp_path: Path) -> None:
    making = Making()
    making.gate.clear()
    with Serving(tmp_path, making, pace=Pace((1, 2)), colors=COLORS) as serving:
        serving.submit("0", steps=1)
        until(lambda: making.batches)
        ids = [serving.submit(prompt, steps=4) for prompt in "ab"]
        assert serving.service.preview(ids[0]) is None
        making.halfway.clear()
        making.gate.set()
        until(lambda: len(making.batches) == 2)
        seen: list[np.ndarray] = []

        def look() -> bool:
            found = serving.service.preview(ids[1])
            seen.extend([] if found is None else [found])
            return bool(seen)

        until(look)
        making.halfway.set()
        clips = [serving.service._planned(asked(prompt, steps=4), {}).clip for prompt in "ab"]
        np.testing.assert_array_equal(seen[0], COLORS(latents_of(clips)[1]))
        for id in ids:
            serving.ended(id)
            until(lambda id=id: serving.service.preview(id) is None)
    assert serving.service.preview("video_") is None
