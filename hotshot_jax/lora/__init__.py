"""Personal LoRAs of every usual kind, merged into the weights when they are loaded."""

from hotshot_jax.lora.files import open_lora, parse_lora
from hotshot_jax.lora.merge import merge, merge_tensor, merged_source
from hotshot_jax.lora.names import ModuleNames
from hotshot_jax.lora.read import Lora, LoraReport, read_lora

__all__ = [
    "Lora",
    "LoraReport",
    "ModuleNames",
    "merge",
    "merge_tensor",
    "merged_source",
    "open_lora",
    "parse_lora",
    "read_lora",
]
