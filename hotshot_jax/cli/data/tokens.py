"""How many tokens a prompt has, as the text encoders of SDXL count them."""

from collections.abc import Callable

from hotshot_jax import clip_tokenizer
from hotshot_jax.conditioning.text.clip_tokenizer import ClipTokenizer


def token_counter() -> Callable[[str], int]:
    """What counts the tokens of a prompt, without those of beginning and end."""
    tokenizer = ClipTokenizer(clip_tokenizer.FOLDER)
    return lambda prompt: len(tokenizer.encode(prompt, add_special_tokens=False))
