"""Makes the pictures of docs/gallery.md, which README.md and other pages show too.

    python -m benchmarks.toy.gallery --output docs/images --lora runs/cyan/export
    python -m benchmarks.toy.gallery --output gallery --pretrained_path hotshotco/Hotshot-XL

Without `--pretrained_path` they are the built-in model's; what `--lora` takes then is the LoRA of
docs/lora_walk_through.md. With it they are that model's, of sentences that it can know. Nothing is
chosen among seeds: each picture is the first that its command gave.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.cli.infer.command import main as infer
from hotshot_jax.media.reading.read import open_clip
from hotshot_jax.media.sheet import draw_sheet

# Flags of infer.py by the picture's name, in the order in which they need each other: `{loop}` is
# that picture, `{quick-start.png}` the first frame of that one, `{lora}` what --lora gave.
BUILT_IN: Mapping[str, str] = {
    "quick-start": '--prompt "a red circle moving right on a black background"',
    "loop": '--loop --prompt "a yellow star spinning on a teal background"',
    "travel": "--video_length 24 --context_length 8 "
    '--prompt_at "0: a red circle standing still on a black background" '
    '--prompt_at "23: a blue circle standing still on a black background"',
    "lora-before": '--prompt "a cyan square moving right on a brown background" --seed 10',
    "lora-after": '--prompt "a cyan square moving right on a brown background" --seed 10 '
    "--lora {lora}",
    "follow": "--control_type canny --gif {loop} "
    '--prompt "a purple star spinning on a gray background"',
    "from-picture": "--first_frame {quick-start.png} "
    '--prompt "a red circle growing on a black background"',
}
PRETRAINED: Mapping[str, str] = {
    "quick-start": '--prompt "a bulldog in the captains chair of a spaceship, hd, high quality"',
    "loop": '--loop --prompt "a campfire at night, hd, high quality"',
    "travel": "--video_length 24 --context_length 8 "
    '--prompt_at "0: a snowy forest, winter" --prompt_at "23: the same forest in spring"',
    "lora-before": '--prompt "a red fox in the snow" --seed 10',
    "lora-after": '--prompt "a red fox in the snow" --seed 10 --lora {lora}',
    "follow": '--control_type canny --gif {loop} --prompt "an oil painting of a campfire"',
    "from-picture": '--first_frame {quick-start.png} --prompt "a bulldog turns its head"',
}
# Prompts of the sheet of clips without the LoRA and with it. Nothing was trained on these four.
BUILT_IN_SHEET = (
    "a cyan circle moving up on a gray background",
    "a cyan triangle moving left on a brown background",
    "a cyan cross moving down on a black background",
    "a cyan triangle shrinking on a gray background",
)
PRETRAINED_SHEET = ("a red fox in the snow", "a campfire at night", "a lighthouse in a storm")
SHEET = "lora-before-and-after"


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the pictures and gives the exit status of the first that failed, or 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--pretrained_path", help="model to take instead of the built-in one")
    parser.add_argument("--lora", help="LoRA to show; without it those pictures are left out")
    parser.add_argument("--only", nargs="+", choices=(*BUILT_IN, SHEET), help="pictures to make")
    parser.add_argument("--steps", type=int, help="steps a picture, in place of infer.py's")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    pictures = PRETRAINED if given.pretrained_path else BUILT_IN
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in pictures.items():
            if (given.only and name not in given.only) or ("{lora}" in flags and not given.lora):
                continue
            command = [
                word
                if word != "{quick-start.png}"
                else _first_frame(given.output / "quick-start.gif", Path(folder))
                for word in shlex.split(flags)
            ]
            places = {"{loop}": str(given.output / "loop.gif"), "{lora}": given.lora}
            command = [places.get(word, word) for word in command]
            command += ["--output", str(given.output / f"{name}.gif"), "--overwrite"]
            status = infer([*command, *_of_all(given)])
            if status:
                return status
        if given.lora and (not given.only or SHEET in given.only):
            return _sheet(given, Path(folder))
    return 0


def _of_all(given: argparse.Namespace) -> list[str]:
    """Flags of every picture."""
    flags = ["--pretrained_path", given.pretrained_path] if given.pretrained_path else []
    return flags + (["--steps", str(given.steps)] if given.steps else [])


def _sheet(given: argparse.Namespace, folder: Path) -> int:
    """Draws clips of the same prompts and seed, without the LoRA and with it, as one picture."""
    prompts = PRETRAINED_SHEET if given.pretrained_path else BUILT_IN_SHEET
    listed = folder / "prompts.txt"
    listed.write_text("\n".join(prompts))
    rows = []
    for name, flags in (("without the LoRA", []), ("with it", ["--lora", given.lora])):
        command = ["--prompts_file", str(listed), "--output", str(folder / f"{name}.gif"), *flags]
        status = infer([*command, "--overwrite", *_of_all(given)])
        if status:
            return status
        clips = sorted(folder.glob(f"{name}-*.gif"))
        rows.append([(f"{each}, {name}", clip) for each, clip in zip(prompts, clips, strict=True)])
    pairs = [row for pair in zip(*rows, strict=True) for row in pair]
    sheet = draw_sheet([(text, _frames(clip)) for text, clip in pairs])
    Image.fromarray(sheet).save(given.output / f"{SHEET}.png")
    return 0


def _frames(clip: Path) -> Iterable[npt.NDArray[np.uint8]]:
    opened = open_clip(clip)
    return opened.frames(range(len(opened.durations_ms)))


def _first_frame(clip: Path, folder: Path) -> str:
    picture = folder / f"{clip.stem}.png"
    with Image.open(clip) as opened:
        opened.convert("RGB").save(picture)
    return str(picture)


if __name__ == "__main__":
    sys.exit(main())
