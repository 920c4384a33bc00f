"""Taking a key of a LoRA file apart: the name of a module, and which part of its change it is."""

from __future__ import annotations

import re

DOWN, UP, MID, ALPHA = "down", "up", "mid", "alpha"
BIAS = "up_bias"
SAVED_WEIGHT, SAVED_BIAS = "saved_weight", "saved_bias"
DORA_SCALE, MAGNITUDE = "dora_scale", "magnitude"

# PEFT puts the adapter's name before the last part, where it was saved without removing it.
_ADAPTER = r"(?:\.(?!weight$|bias$)[^.]+)?"
_PARTS: tuple[tuple[str, str], ...] = (
    (r"lora_down\.weight", DOWN),
    (r"lora_up\.weight", UP),
    (r"lora_mid\.weight", MID),
    (r"lora_up\.bias", BIAS),
    (r"lora(?:_linear_layer)?\.down\.weight", DOWN),
    (r"lora(?:_linear_layer)?\.up\.weight", UP),
    (r"lora(?:_linear_layer)?\.alpha", ALPHA),
    (rf"lora_A{_ADAPTER}\.weight", DOWN),
    (rf"lora_B{_ADAPTER}\.weight", UP),
    (rf"lora_B{_ADAPTER}\.bias", BIAS),
    (r"alpha", ALPHA),
    (r"dora_scale", DORA_SCALE),
    (rf"lora_magnitude_vector{_ADAPTER}(?:\.weight)?", MAGNITUDE),
    (r"(?P<whole>hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2)(?:\.default)?", ""),
    (r"(?P<whole>diff|diff_b|set_weight|w_norm|b_norm)", ""),
    (r"(?:base_layer\.)?bias", SAVED_BIAS),
    (r"weight", SAVED_WEIGHT),
)
_SUFFIXES = tuple((re.compile(rf"(?P<stem>.+?)\.{part}"), name) for part, name in _PARTS)
_PROCESSOR = re.compile(
    r"(?P<stem>.+?)(?:\.processor)?\.to_(?P<role>q|k|v|out)_lora\."
    r"(?P<part>down\.weight|up\.weight|alpha)"
)
_PROCESSOR_PARTS = {"down.weight": DOWN, "up.weight": UP, "alpha": ALPHA}


def split_key(key: str) -> tuple[str, str] | None:
    """Splits a key into the module's name, as the file spells it, and the part.

    Args:
        key: for example `lora_unet_conv_in.lora_down.weight`.

    Returns:
        Name and part; parts are "down", "up", "mid", "alpha", "up_bias", "dora_scale", "magnitude",
        "saved_weight", "saved_bias" and, under their own names, those of LoHa, LoKr and full
        differences. None for a key that is not one of these.
    """
    match = _PROCESSOR.fullmatch(key)
    if match:
        return _attention_module(match["stem"], match["role"]), _PROCESSOR_PARTS[match["part"]]
    for pattern, part in _SUFFIXES:
        match = pattern.fullmatch(key)
        if match:
            return match["stem"].replace(".processor.", "."), part or match["whole"]
    return None


def _attention_module(attention: str, role: str) -> str:
    if attention.endswith("self_attn"):
        return f"{attention}.{role}_proj"
    return f"{attention}.to_out.0" if role == "out" else f"{attention}.to_{role}"
