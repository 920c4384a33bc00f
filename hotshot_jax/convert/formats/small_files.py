"""What a checkpoint holds beside its models, and every copy of it takes along."""

import shutil
from pathlib import Path

from hotshot_jax.convert.formats.diffusers_folder import TOKENIZERS

NATIVE_SETTINGS = "settings.json"
"""What `infer.py` is to be used with on this checkpoint, where that is not Hotshot-XL's."""

KNOWN_PROMPTS = "known_prompts.json"
"""What a model that was made for little can be asked for."""


def copy_small_files(source: Path, dest: Path) -> None:
    """Copies tokenizers, the scheduler's configuration, and what there is of the files named above.

    Args:
        source: folder of a checkpoint, in the diffusers layout or converted.
        dest: folder of another one, without them.
    """
    # The content only: permissions of a read-only source would make the copy hard to remove.
    for name in (*TOKENIZERS, "scheduler"):
        (dest / name).mkdir()
        for file in sorted((source / name).iterdir()):
            if file.is_file():
                shutil.copyfile(file, dest / name / file.name)
    for name in (NATIVE_SETTINGS, KNOWN_PROMPTS):
        if (source / name).is_file():
            shutil.copyfile(source / name, dest / name)
