"""From what is asked for to what is made: the part that the command line hands to the server."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hotshot_jax.jobs.extension import Extension
from hotshot_jax.jobs.maker import shared_call
from hotshot_jax.jobs.settings import ClipSettings
from hotshot_jax.media.stored_frames import StoredFrames
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.start import FROM_NOISE, StartInput


@dataclasses.dataclass(frozen=True)
class PlannedClip:
    """A clip that can be made as it stands here.

    Attributes:
        clip: its settings, those of the whole run where it goes on from another clip.
        frame_ms: milliseconds and frames that they are of, such as `(1000, 8)`.
        metadata: what is stored in the result beside what the maker tells.
        controls: what the ControlNets follow.
        start: what it starts from.
        extension: the clip that it goes on from.
        ping_pong: whether what is joined to that clip is played back and forth.
        loras: strengths of the LoRAs that act, by name.
        controlnets: names of the ControlNets that act, in the order of `controls`.
        warnings: what whoever asked should know.
    """

    clip: ClipSettings
    frame_ms: tuple[float, int]
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    controls: tuple[ControlInput, ...] = ()
    start: StartInput = FROM_NOISE
    extension: Extension | None = None
    ping_pong: bool = False
    loras: tuple[tuple[str, float], ...] = ()
    controlnets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def shared(self, positions: int = TemporalShape.positions) -> Any:
        """What jobs have in common that are made in one call; None if it is made alone.

        Args:
            positions: frames that the temporal layers know.
        """
        if self.controls or self.start is not FROM_NOISE or self.extension is not None:
            return None
        call = shared_call(self.clip, positions)
        return None if call is None else (call, self.loras)

    def result(self, made: StoredFrames) -> StoredFrames:
        """What the job gives, of the frames that were made."""
        if self.extension is None:
            return made
        joined = self.extension.joined(made)
        return joined.back_and_forth() if self.ping_pong else joined

    def duration_ms(self, frames: int) -> float:
        """How long so many frames last; what is played back and forth is not played faster."""
        milliseconds, count = self.frame_ms
        return milliseconds * frames / count

    def told(self) -> dict[str, Any]:
        """What can be said of the result before it is made."""
        clip = self.clip
        count = clip.video_length
        if self.extension is not None:
            count = len(self.extension.clip) + self.extension.added
        if clip.ping_pong or self.ping_pong:
            count = 2 * count - 2
        return {
            "size": f"{clip.width}x{clip.height}",
            "num_frames": count,
            "seconds": f"{self.duration_ms(count) / 1000:g}",
            "seed": clip.seed,
            "num_inference_steps": clip.steps,
            "guidance_scale": clip.guidance_scale,
        }


class Planner(Protocol):
    """Checks what is asked for, and plans it."""

    def __call__(self, values: Mapping[str, Any], uploads: Mapping[str, Path]) -> PlannedClip:
        """Plans a clip.

        Args:
            values: settings by name, JSON.
            uploads: files by the names of the settings that they belong to.

        Raises:
            UsageError: it cannot be made.
            HotshotError: a file cannot be read.
        """
        ...
