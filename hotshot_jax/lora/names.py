"""What LoRA files call the modules of a model.

Names are looked up, never taken apart: underscores in kohya's names stand for dots and for
themselves. The tables are built from the model's own tensors, so whatever the model has can be
named and nothing else can.

A UNet module has a name in diffusers' tree and one in the original numbering of blocks, such as
`down_blocks.1.attentions.0.proj_in` and `input_blocks.4.1.proj_in`. Either may be written

- with underscores after `lora_unet_` (kohya),
- with dots, alone or after one of the prefixes of `_DOTTED` (PEFT, diffusers, ComfyUI, OneTrainer),
  and all of that after `base_model.model.` (PEFT).

Text encoders have transformers' names after prefixes of their own. Temporal layers have no
published spelling. This project's is the same two rules, without the original numbering:
`unet.down_blocks.0.temporal_attentions.0.proj_in` and
`lora_unet_down_blocks_0_temporal_attentions_0_proj_in`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

from hotshot_jax.convert.formats.ldm_names import TEXT_ENCODER, TEXT_ENCODER_2, UNET, unet_modules

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


Shapes = Mapping[str, tuple[int, ...]]
"""PyTorch's shape of each tensor of a model, by PyTorch's name."""

_KOHYA = {UNET: "lora_unet_", TEXT_ENCODER: "lora_te1_", TEXT_ENCODER_2: "lora_te2_"}
_LYCORIS = "lycoris_"
_DOTTED = {
    UNET: ("", "unet.", "diffusion_model.", "model.diffusion_model."),
    TEXT_ENCODER: (
        "text_encoder.",
        "text_encoders.clip_l.transformer.",
        "clip_l.transformer.",
        "clip_l.",
        "conditioner.embedders.0.transformer.",
    ),
    TEXT_ENCODER_2: (
        "text_encoder_2.",
        "text_encoders.clip_g.transformer.",
        "clip_g.transformer.",
        "clip_g.",
    ),
}
_PEFT = "base_model.model."
_TEXT_MODEL = "text_model."


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of the model that has weights.

    Attributes:
        component: "unet", "text_encoder" or "text_encoder_2".
        name: its path in PyTorch's module tree.
        weight: shape of its weight; None without.
        bias: shape of its bias; None without.
    """

    component: str
    name: str
    weight: tuple[int, ...] | None
    bias: tuple[int, ...] | None

    def __str__(self) -> str:
        return f"{self.component}.{self.name}"


@dataclasses.dataclass(frozen=True)
class Spelling:
    """One name of a module.

    Attributes:
        module: the module.
        original: whether the name is in the original (LDM) numbering of blocks.
    """

    module: Module
    original: bool = False


class ModuleNames(Mapping[str, Spelling]):
    """Every spelling of every module of a model.

    Args:
        shapes: by component, the tensors that a LoRA may change. A text encoder that is absent
            cannot be named.

    Raises:
        ValueError: two modules share a spelling.
    """

    def __init__(self, shapes: Mapping[str, Shapes]):
        self.modules = [
            module
            for component, tensors in shapes.items()
            for module in _modules(component, tensors)
        ]
        self.text_width = _text_width(shapes.get(UNET, {}))
        self._spellings: dict[str, Spelling] = {}
        original = unet_modules(m.name for m in self.modules if m.component == UNET)
        for module in self.modules:
            for name in _spellings(module.component, module.name):
                self._add(name, Spelling(module))
        for module in self.modules:
            if module.component == UNET and module.name in original:
                for name in _spellings(UNET, original[module.name]):
                    self._add(name, Spelling(module, original=True))

    def find(self, name: str) -> Spelling | None:
        """The module of a name; dots in a name of kohya's count as underscores."""
        if name.startswith(tuple(_KOHYA.values())):
            name = name.replace(".", "_")
        return self.get(name)

    def owner(self, key: str) -> tuple[Module, str] | None:
        """The module that a key speaks of, and the rest of the key; None where it is of none."""
        stem, dot, _ = key.rpartition(".")
        while dot:
            spelling = self.find(stem)
            if spelling is not None:
                return spelling.module, key[len(stem) + 1 :]
            stem, dot, _ = stem.rpartition(".")
        return None

    def _add(self, name: str, spelling: Spelling) -> None:
        earlier = self._spellings.setdefault(name, spelling)
        if earlier.module != spelling.module:
            raise ValueError(f"{name} means {earlier.module} and {spelling.module}")

    def __getitem__(self, name: str) -> Spelling:
        return self._spellings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spellings)

    def __len__(self) -> int:
        return len(self._spellings)


def _modules(component: str, tensors: Shapes) -> Iterator[Module]:
    for name in dict.fromkeys(tensor.rpartition(".")[0] for tensor in tensors):
        yield Module(component, name, tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias"))


def _spellings(component: str, name: str) -> Iterator[str]:
    names = [name]
    if name.startswith(_TEXT_MODEL):
        # Current transformers have flattened this level away in one of the two encoders.
        names.append(name.removeprefix(_TEXT_MODEL))
    for each in names:
        underscores = each.replace(".", "_")
        yield _KOHYA[component] + underscores
        if component == UNET:
            yield _LYCORIS + underscores
        for prefix in _DOTTED[component]:
            yield prefix + each
            yield _PEFT + prefix + each


def _text_width(unet: Shapes) -> int | None:
    widths = (shape[1] for name, shape in unet.items() if name.endswith(".attn2.to_k.weight"))
    return next(widths, None)
