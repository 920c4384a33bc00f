"""What a checkpoint holds beside its models, and every copy of it takes along."""

import shutil
from pathlib import Path

from hotshot_jax.convert.diffusers_folder import TOKENIZERS

NATIVE_SETTINGS = "settings.json"
"""What `infer.py` is to be used with on this checkpoint, where that is not Hotshot-XL's."""


def copy_small_files(source: Path, dest: Path) -> None:
    """Copies tokenizers, the scheduler's configuration, and the settings if there are any.

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
    if (source / NATIVE_SETTINGS).is_file():
        shutil.copyfile(source / NATIVE_SETTINGS, dest / NATIVE_SETTINGS)
