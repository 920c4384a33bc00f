"""From a request to a clip, by the rules of `infer.py`."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.builtin import builtin_controlnets
from hotshot_jax.cli.flags import checked_settings
from hotshot_jax.cli.infer.arguments import completed
from hotshot_jax.cli.infer.checks import check_settings, with_size
from hotshot_jax.cli.infer.clip import check_clip
from hotshot_jax.cli.infer.control import control_inputs, plan_control
from hotshot_jax.cli.infer.effects import check_effects
from hotshot_jax.cli.infer.job_settings import clip_settings
from hotshot_jax.cli.infer.prompts import check_prompts, warn_of_unknown
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.infer.start import opened_source, plan_start, start_input, with_source
from hotshot_jax.cli.infer.stored_settings import digests, result_metadata
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.formats.output_form import check_duration
from hotshot_jax.pipelines.start import FROM_NOISE, StartInput
from hotshot_jax.server.heard import warnings_heard
from hotshot_jax.server.planning import PlannedClip
from hotshot_jax.server.request import known_frame
from hotshot_jax.server.words import in_api_words

_FLAG = re.compile(r"--(?:no-)?([a-z][a-z0-9_]*)")
_REPEATABLE = (
    "control_type",
    "control_type_id",
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
)


@dataclasses.dataclass(frozen=True)
class InferPlanner:
    """Plans what is asked for as `infer.py` would, with the server's model.

    Attributes:
        base: settings of the server, by name, which a request may not change.
        usual: those that it may.
        loras: paths of the LoRAs that can be asked for, by name.
        controlnets: likewise of ControlNets.
        depth_checkpoint: what estimates depth; None if that cannot be asked for.
    """

    base: Mapping[str, Any]
    usual: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loras: Mapping[str, str] = dataclasses.field(default_factory=dict)
    controlnets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    depth_checkpoint: str | None = None

    def __call__(self, values: Mapping[str, Any], uploads: Mapping[str, Path]) -> PlannedClip:
        """See `Planner`."""
        with warnings_heard() as heard:
            try:
                plan = self._planned(dict(values), uploads)
            except HotshotError as error:
                kind = UsageError if isinstance(error, UsageError) else HotshotError
                raise kind(without_flags(str(error), uploads)) from error
        told = tuple(in_api_words(without_flags(text, uploads)) for text in heard)
        return dataclasses.replace(plan, warnings=told)

    def _planned(self, values: dict[str, Any], uploads: Mapping[str, Path]) -> PlannedClip:
        frame_ms = values.pop("frame_ms", None)
        chosen = [(str(name), float(scale)) for name, scale in values.pop("lora", [])]
        controlnet = values.pop("controlnet", None)
        given = checked_settings(InferSettings, "the request", self._plain(values))
        given |= self._files(uploads) | self._control(given, controlnet, uploads)
        usual = {name: value for name, value in self.usual.items() if name not in given}
        asked = completed({**self.base, **usual, **given, "lora": self._loras(chosen)})
        settings = asked.settings
        with opened_source(settings) as source:
            settings = with_source(settings, source, asked.named).sized()
            if frame_ms is not None:
                duration = round(frame_ms * settings.video_length)
                settings = dataclasses.replace(settings, video_duration=duration)
            check_settings(settings)
            check_clip(settings, given)
            check_effects(given, settings)
            start = plan_start(settings, source)
        if settings.least_frames > 1:
            check_duration(settings.video_duration, settings.video_length)
        check_prompts(settings, [settings.prompt])
        control = plan_control(settings)
        settings = with_size(settings)
        warn_of_unknown(settings, [settings.prompt])
        controls = control_inputs(control, settings)
        clip = clip_settings(settings, settings.prompt)
        begun = start_input(start, settings) if uploads else FROM_NOISE
        if start.extension is not None:
            clip = start.extension.settings(clip)
            controls = [start.extension.control(each) for each in controls]
        read = digests(InferSettings, settings.stored(), InferSettings())
        return PlannedClip(
            clip,
            (settings.video_duration, settings.video_length),
            result_metadata(settings, settings.prompt, read),
            tuple(controls),
            begun if _starts(begun) else FROM_NOISE,
            start.extension,
            settings.ping_pong,
            tuple(sorted(dict(chosen).items())),
            () if controlnet is None else (controlnet,),
        )

    def _plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as a file of settings has them."""
        return {name: [value] if name in _REPEATABLE else value for name, value in values.items()}

    def _files(self, uploads: Mapping[str, Path]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, path in uploads.items():
            frame = known_frame(name)
            if frame is not None:
                found["frame_at"] = (*found.get("frame_at", ()), f"{frame}: {path}")
            elif name == "control":
                found["gif"] = (str(path),)
            else:
                found[name] = str(path)
        return found

    def _loras(self, chosen: list[tuple[str, float]]) -> tuple[str, ...]:
        for name, _ in chosen:
            if name not in self.loras:
                raise UsageError(f"There is no LoRA {name!r} here. {_names(self.loras)}")
        if len(dict(chosen)) < len(chosen):
            raise UsageError("`lora` names one twice; name each once.")
        added = (f"{self.loras[name]}:{scale:g}" for name, scale in sorted(chosen))
        return (*self.base.get("lora", ()), *added)

    def _control(
        self, given: Mapping[str, Any], controlnet: str | None, uploads: Mapping[str, Path]
    ) -> dict[str, Any]:
        kinds = given.get("control_type", ())
        if controlnet is None:
            if kinds or "control" in uploads:
                raise UsageError(f"`controlnet` is missing. {_names(self.controlnets)}")
            return {}
        if controlnet not in self.controlnets:
            raise UsageError(f"There is no ControlNet {controlnet!r} here. "
                             f"{_names(self.controlnets)}")  # fmt: skip
        if "control" not in uploads:
            raise UsageError("`controlnet` needs `control`, the clip that it follows, as a file.")
        if "depth" in kinds and self.depth_checkpoint is None:
            raise UsageError("`control_type` depth cannot be had: no model for it is served.")
        depth = {} if "depth" not in kinds else {"depth_checkpoint": self.depth_checkpoint}
        path = self.controlnets[controlnet]
        if path in map(str, builtin_controlnets().values()):
            return {"control_type": (controlnet,)}
        return {"controlnet": (path,), **depth}


def without_flags(text: str, uploads: Mapping[str, Path]) -> str:
    """A message without flags, and without the paths of files, which are nobody's business.

    Args:
        text: of the command line.
        uploads: files by their names in the API.
    """
    for name, path in uploads.items():
        for shown in (f"--{name} {path}", f"--gif {path}", f"`{name}` {path}", str(path)):
            text = text.replace(shown, f"`{name}`")
    return _FLAG.sub(r"`\1`", text)


def _starts(start: StartInput) -> bool:
    return start.video is not None or start.mask is not None or bool(start.known_frames)


def _names(models: Mapping[str, str]) -> str:
    return f"There are: {', '.join(models)}." if models else "There is none."
