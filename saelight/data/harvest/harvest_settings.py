"""The settings of a harvest: what `saelight shards harvest --help` prints."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from saelight.data.harvest.model_settings import ModelSettings
from saelight.data.harvest.text_settings import TextSettings
from saelight.data.harvest.text_windows import WindowSettings


@dataclass(eq=False)
class HarvestSettings(WindowSettings, TextSettings, ModelSettings):
    """Which model runs over what, and which of its activations are written where."""

    hooks: list[str]
    """Places in the model whose activations are written: dotted paths of modules for what they put out (encoder.layer.3),
    with .input behind for what they are given (model.layers.3.self_attn.o_proj.input, the heads' outputs side by side), or
    TransformerLens's names (blocks.3.hook_resid_post)."""
    out: str
    """Folder to make, on a disk or at a URL: of the shards, or, with several hooks, of one folder of shards per hook."""
    batch_size: int = field(default=32, kw_only=True)
    """Windows, or images, of a batch. 32 of 128 tokens keep the CPU's caches warm; a GPU takes more."""
    max_tokens: int | None = field(default=None, kw_only=True)
    """Rows to write at most, reached exactly when there is text enough. Default: all text."""
    dtype: Literal["bfloat16", "float16", "float32"] = field(default="bfloat16", kw_only=True)
    """What rows are stored in. bfloat16 is half the size, and its rounding is small beside any SAE's error."""
    max_norm: float | None = field(default=10.0, kw_only=True)
    """Leave out rows whose norm is more than this many times the median norm (attention sinks), which the first 8,192 rows
    decide for each hook; null keeps all. What one hook leaves out, all do."""
    skip_positions: int = field(default=0, kw_only=True)
    """Leave out this many positions at the beginning of each window."""
    drop_tokens: list[int] | None = field(default=None, kw_only=True)
    """Leave out the rows of these token ids."""
    image_tokens: list[Literal["patch", "cls"]] = field(default_factory=lambda: ["patch"], kw_only=True)
    """Which rows of an image are written: of its patches, of the [CLS] token, or of both."""
    rows_per_shard: int | None = field(default=None, kw_only=True)
    """Rows of a shard file. Default: 256 MiB of them, less with more than 4 hooks."""
    part: str | None = field(default=None, kw_only=True)
    """`3/16`: harvest the third of sixteen parts of the documents into the same folder as the others, each a process or a
    job of its own; the last that is done makes the folder whole. One that was killed goes on at its last whole shard when it
    is run again. `max_tokens` is all parts' together."""


def noted(text: TextSettings, model: ModelSettings, windows: WindowSettings | None) -> dict[str, Any]:
    """Where rows come from, as plain data: settings of few uses only where they are used. Images come in no windows."""
    notes: dict[str, Any] = {"files": text.files, "exclude": text.exclude or []}
    if windows is not None:
        notes |= {field.name: getattr(windows, field.name) for field in fields(WindowSettings)}
    notes |= {"model_dtype": model.model_dtype, "seed": text.seed}
    rarer = {"column": text.column, "subset": text.subset, "revision": model.revision, "tokenizer": model.tokenizer}
    notes |= {name: value for name, value in (rarer | {"attention": model.attention}).items() if value is not None}
    if text.data_sets:
        notes["split"] = text.split
    return notes
