"""What is served, and how much of it."""

import dataclasses

from hotshot_jax.errors import UsageError
from hotshot_jax.server.planning import PlannedClip


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server takes and keeps.

    Attributes:
        most_waiting: jobs in the queue.
        most_frames: of a clip.
        most_side: pixels of width and height.
        most_steps: of denoising.
        most_body_bytes: of a request, with all files.
        kept_seconds: how long a job is kept after its end.
        kept_bytes: of the files of all jobs that came to their end.
    """

    most_waiting: int = 64
    most_frames: int = 128
    most_side: int = 1024
    most_steps: int = 100
    most_body_bytes: int = 64 << 20
    kept_seconds: float = 7 * 24 * 3600.0
    kept_bytes: int = 10 << 30

    def check(self, plan: PlannedClip) -> None:
        """Checks that a clip is not more than one sender may ask for.

        Raises:
            UsageError: it is.
        """
        clip = plan.clip
        for name, value, most in (
            ("num_frames", clip.video_length, self.most_frames),
            ("num_inference_steps", clip.steps, self.most_steps),
            ("width", clip.width or 0, self.most_side),
            ("height", clip.height or 0, self.most_side),
        ):
            if value > most:
                raise UsageError(f"`{name}` is {value}; this server makes up to {most}.")


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """What is served.

    Attributes:
        id: its name.
        loras: names of LoRAs that can be asked for.
        controlnets: likewise of ControlNets.
    """

    id: str
    loras: tuple[str, ...] = ()
    controlnets: tuple[str, ...] = ()
