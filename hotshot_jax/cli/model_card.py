"""The card of a model: the README.md of its repository on the Hub, with its front matter."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hotshot_jax.version import __version__

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#])")


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Attributes:
        repository: ``org/name``.
        kind: "model", "lora", "controlnet" or "temporal".
        base_model: Hub id of what was trained or converted; None where it has none.
        licence: of the base, as the Hub spells it; None where it is not known.
        about: a sentence on how the model came to be.
        instance_prompt: words that call up what was learned.
        clips: prompt and file name of validation clips.
        pictures: file name by what it shows.
        facts: tables by their title, values by name.
    """

    repository: str
    kind: str
    about: str
    base_model: str | None = None
    licence: str | None = None
    instance_prompt: str | None = None
    clips: Sequence[tuple[str, str]] = ()
    pictures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """The content of the README.md."""
        front = yaml.safe_dump(self._front(), sort_keys=False, allow_unicode=True)
        parts = [f"---\n{front}---", f"# {self.repository.partition('/')[2]}", self.about]
        if self.instance_prompt:
            parts.append(f"Say {_cell(self.instance_prompt)} in the prompt.")
        parts.append(f"```bash\n{self._command()}\n```")
        parts += [f"![{_cell(prompt)}]({file})\n\n{_cell(prompt)}" for prompt, file in self.clips]
        parts += [f"## {title}\n\n![{title}]({file})" for title, file in self.pictures.items()]
        parts += [
            f"## {title}\n\n| | |\n|---|---|\n"
            + "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items())
            for title, values in self.facts.items()
            if values
        ]
        base = self.base_model or "a model that is not on the Hub"
        licence = f"is {self.licence}" if self.licence else "is not known to hotshot-jax"
        parts.append(f"## Licence\n\nThe base is {base}, whose licence {licence}.")
        return "\n\n".join(parts) + "\n"

    def _front(self) -> dict[str, Any]:
        front: dict[str, Any] = {
            # Whose loader takes the repository by its id.
            "library_name": "diffusers" if self.kind in ("lora", "controlnet") else "hotshot-jax",
            "pipeline_tag": "text-to-video",
        }
        if self.base_model:
            front["base_model"] = self.base_model
            if self.kind == "lora":
                front["base_model_relation"] = "adapter"
        if self.licence:
            front["license"] = self.licence
        kind = [self.kind] if self.kind in ("lora", "controlnet") else []
        front["tags"] = ["hotshot-jax", "hotshot-xl", "text-to-gif", *kind]
        if self.instance_prompt:
            front["instance_prompt"] = self.instance_prompt
        if self.clips:
            front["widget"] = [
                {"text": prompt, "output": {"url": file}} for prompt, file in self.clips
            ]
        return front

    def _command(self) -> str:
        flag = {
            "lora": "--lora",
            "controlnet": "--gif clip.gif --control_type canny --controlnet",
            "temporal": "--temporal",
        }.get(self.kind, "--pretrained_path")
        return f'hotshot-jax --prompt "a prompt" {flag} {self.repository}  # {__version__}'


def _cell(value: Any) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(str(value).split()))
