"""Personal LoRAs of every usual kind, merged into the weights when they are loaded."""

from hotshot_jax.lora.merge import changed_paths, merge, merge_tensor, merged_source
from hotshot_jax.lora.names import ModuleNames
from hotshot_jax.lora.read import (
    Lora,
    LoraReport,
    open_lora,
    parse_lora,
    read_lora,
    select_lora_files,
)
from hotshot_jax.lora.write import Factors, lora_metadata, lora_tensors

__all__ = [
    "Factors",
    "Lora",
    "LoraReport",
    "ModuleNames",
    "changed_paths",
    "lora_metadata",
    "lora_tensors",
    "merge",
    "merge_tensor",
    "merged_source",
    "open_lora",
    "parse_lora",
    "read_lora",
    "select_lora_files",
]
