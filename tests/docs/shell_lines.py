"""Shell lines of README.md and the pages: where they stand, and why some are not run."""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^(```\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Between quotes it is another machine's.
_AND = re.compile(r' && (?=(?:[^"]*"[^"]*")*[^"]*$)')
# The pages of figures write their commands indented.
_INDENTED = re.compile(r"^    (?:python|pip|export) .*(?:\n    .+)*", re.MULTILINE)
# A line that one of these is found in is not run, and this is why. The first that fits counts.
NOT_RUN = {
    r"pip install|pre-commit|apt-get|git clone|^gcloud |^kubectl |^xpk |^docker ": "network",
    r"^export |^cd |^source |uv venv": "sets up what is not run either",
    r"hotshotco/Hotshot-XL|model\.safetensors|latent-consistency|sdxl_": "the published weights",
    r"\bconverted/|-net/|style\.safetensors|runs/edges/export": "made from the published weights",
    r"^hf auth|--push_to_hub": "an account on the Hub; tests push to one of their own",
    r"^curl |hotshot-jax-serve": "runs until it is stopped; tests/server starts it and asks it",
    r"^pytest|^ruff|^mypy": "this very suite; .ci/run runs it",
    r"compile_for|compile_table|compile\.layer_times|attention_forms": (
        "minutes of a TPU's or GPU's compiler"
    ),
    r"benchmarks\.scaling": "minutes: a full-size model is traced",
    r"toy\.gallery|from_scratch|configs/tiny/(?!lora)|benchmarks\.passes|lora_merge|tiny_eval": (
        "minutes to hours of training or measuring"
    ),
    r"bouncing|before\.gif after": "follows from half an hour of training; tests/data builds films",
    r"benchmarks\.(denoise|parity)": (
        "a measurement; tests/benchmarks and tests/models run what it measures"
    ),
    r"CUDA_VISIBLE|JAX_NUM_CPU_DEVICES|--mesh|coordinator_address|srun": "several devices",
    r"train\.py (?!--config configs)": "clips of the reader's own; tests/cli/train trains",
    r"--embedding": "embeddings of the reader's own; tests/cli/infer reads such files",
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One command of a page, continued lines joined.

    Attributes:
        page: the file it stands in.
        text: as typed, without a comment behind it.
    """

    page: Path
    text: str

    @property
    def reason(self) -> str | None:
        """Why it is not run; None where it is."""
        fitting = (why for pattern, why in NOT_RUN.items() if re.search(pattern, self.text))
        return next(fitting, None)


def shell_lines(page: Path) -> list[Line]:
    """The commands of a page, in order."""
    text = page.read_text()
    blocks = [(match.start(), match[2]) for match in _BLOCK.finditer(text) if match[1] == "```bash"]
    outside = _BLOCK.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    blocks += [(match.start(), match[0]) for match in _INDENTED.finditer(outside)]
    commands = []
    for _, block in sorted(blocks):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            command = re.sub(r"(^|\s+)# .*$", "", line.strip())
            commands += [Line(page, part) for part in _AND.split(command) if part]
    return commands


LINES = [line for page in PAGES for line in shell_lines(page)]
