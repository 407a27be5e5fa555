"""The folder of what is known of an SAE's latents (docs/latents.md): `latents.json`, `latents.safetensors`, `tokens.json`.

Shapes: F d_sae, C top contexts, I intervals, S samples of each, W tokens of a context, H octaves, T tokens, N neighbours.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

FORMAT = "saelight-latents"
VERSION = 1
FOLDER = "latents"
"""Its name in an SAE's folder."""
META, TENSORS, TEXTS = "latents.json", "latents.safetensors", "tokens.json"

TOP = 20
"""C: contexts in which a latent is strongest."""
INTERVALS, SAMPLES = 5, 3
"""I octaves below a latent's maximum, S contexts drawn from each."""
BEFORE, AFTER = 12, 7
"""Tokens of a context beside its strongest one."""
WINDOW = BEFORE + 1 + AFTER
OCTAVES = 24
TOKENS = 10
NEIGHBOURS = 8

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Positive = Annotated[int, Field(ge=1, lt=1 << 31)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Data(TypedDict):
    """The rows that were gone through."""

    path: str
    """As it was given; `model` and `hook` as the data say."""
    model: str | None
    hook: str | None
    fingerprint: str
    columns: list[str]
    whole: NotRequired[bool]
    """Whether there are no more rows than were gone through."""


class Meta(TypedDict):
    """`latents.json`."""

    format: Literal["saelight-latents"]
    version: Literal[1]
    sae: str
    variant: str
    d_in: Positive
    d_sae: Positive
    sae_digest: str
    """Of the weights that the numbers are of."""
    rows: Count
    """Tokens gone through."""
    data: Data
    seed: Count
    lowest_octave: int
    """Of the histogram: its first bin is [2^lowest, 2^(lowest + 1)), and holds what is smaller, too."""
    sampled_rows: Count
    """Rows of the sample from which latents that fire together are counted."""
    others: list[str]
    """The SAEs that `across.saes` numbers."""
    unembedding: str | None
    """The model whose unembedding the logits are by."""
    sha256: NotRequired[dict[str, Digest]]


def tensors(d_sae: int, with_tokens: bool, with_logits: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By name: the dtype (numpy's) and the shape of all tensors of a file, in their order.

    Args:
        with_tokens: The rows had token ids.
        with_logits: The model's unembedding was at hand.
    """
    F = d_sae
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "fired": ("int64", (F,)),
        "total": ("float64", (F,)),
        "histogram": ("int32", (F, OCTAVES)),
    }
    for kind, places in (("top", (F, TOP)), ("samples", (F, INTERVALS, SAMPLES))):
        found |= {
            f"{kind}.rows": ("int64", places),
            f"{kind}.values": ("float32", places),
            f"{kind}.activations": ("uint8", (*places, WINDOW)),
            f"{kind}.documents": ("int64", places),
            f"{kind}.positions": ("int32", places),
            f"{kind}.gaps": ("int32", places),
        }
        if with_tokens:
            found[f"{kind}.tokens"] = "int32", (*places, WINDOW)
    if with_tokens:
        found |= {
            "tokens.ids": ("int32", (F, TOKENS)),
            "tokens.counts": ("int32", (F, TOKENS)),
            "tokens.error": ("int32", (F,)),
        }
    found |= {
        "near.latents": ("int32", (F, NEIGHBOURS)),
        "near.cosines": ("float32", (F, NEIGHBOURS)),
        "across.saes": ("int32", (F, NEIGHBOURS)),
        "across.latents": ("int32", (F, NEIGHBOURS)),
        "across.cosines": ("float32", (F, NEIGHBOURS)),
        "together.fired": ("int32", (F,)),
        "together.latents": ("int32", (F, NEIGHBOURS)),
        "together.counts": ("int32", (F, NEIGHBOURS)),
    }
    if with_logits:
        for kind in ("promoted", "suppressed"):
            found |= {f"{kind}.ids": ("int32", (F, TOKENS)), f"{kind}.logits": ("float32", (F, TOKENS))}
    return found


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_of(sae: Path) -> Path:
    """Where the latents of the SAE at `sae`, a folder or a file, are kept."""
    return sae.with_name(f"{sae.name}.{FOLDER}") if sae.is_file() else sae / FOLDER


def sae_of(folder: Path) -> Path:
    """The SAE, a folder or a file, whose latents are kept in `folder`."""
    return folder.parent if folder.name == FOLDER else folder.with_name(folder.name.removesuffix(f".{FOLDER}"))


def empty(dtype: str) -> Any:
    """What stands where there is nothing: -1, or of a float 0."""
    return 0 if dtype.startswith(("float", "uint")) else -1
