"""Trained SAEs of any known format, on this machine or on a hub, as the start of another training (docs/saes.md).

saelight's own folders are read as they were trained, in their units; others' SAEs take the model's own activations.
"""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from saelight.convert import saelight_folders
from saelight.convert.formats import Found
from saelight.convert.parts import TOPK_KINDS, variant
from saelight.convert.sae_sources import the_one_at
from saelight.errors import UserError
from saelight.hub.hub_place import is_on_a_hub
from saelight.ops.normalisation import Normalisation
from saelight.saes import trained
from saelight.saes.sae import SAE
from saelight.saes.sae_folder import describe, published
from saelight.saes.trained import Trained

_SAME = 0.01
"""How far apart the norms of a TopK SAE's rows may be, as a share, and be one: rounding to bfloat16 does that."""


class Known(NamedTuple):
    """What is known of a start before it is one."""

    skeleton: SAE
    """Without memory."""
    fingerprint: str
    """Of its weights and their units, wherever they lie."""


def read(path: str) -> Trained:
    """The trained SAE at a path: a folder, a file, `hf://user/repo/path`. Raises `UserError` where none is that can be a
    start."""
    found = the_one_at(path)
    return trained.read(found.path) if _is_ours(found) else _others(found, path)


def known(path: str) -> Known:
    """What is known of the SAE at a path. Raises as `read`."""
    found = _on_a_hub(path) if is_on_a_hub(path) else the_one_at(path)
    if _is_ours(found):
        return Known(describe(found.path).skeleton, trained.fingerprint(found.path))
    return _known(found, path, _stamp(found.path))


@functools.lru_cache(maxsize=256)
def _on_a_hub(path: str) -> Found:
    """As it was when it was first asked for, which a sweep does for every point."""
    return the_one_at(path)


def _is_ours(found: Found) -> bool:
    return found.format is saelight_folders.FORMAT


def _others(found: Found, path: str) -> Trained:
    sae = found.read()
    norms_F = sae.W_dec.norm(dim=1)
    if variant(sae.config) in TOPK_KINDS and bool(norms_F.max() > (1 + _SAME) * norms_F.min()):
        raise UserError(
            f"{path} selects latents without the norms of its decoder's rows, which differ, and saelight trains no "
            f"{variant(sae.config)} that does: start anew, or from another"
        )
    return Trained(sae, Normalisation(), Normalisation() if sae.is_transcoder else None)


@functools.lru_cache(maxsize=256)
def _known(found: Found, path: str, stamp: tuple[tuple[str, int, int], ...]) -> Known:
    """By the files that are there, since a sweep asks for every point, and their weights have to be read for it."""
    sae = _others(found, path).sae
    with torch.device("meta"):
        skeleton = sae.config.build(sae.d_in, 0, sae.d_out if sae.is_transcoder else None)
    content = hashlib.sha256()
    for name, tensor in sorted(published(sae).items()):
        content.update(name.encode() + tensor.numpy().tobytes())
    return Known(skeleton, content.hexdigest()[:32])


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    return tuple((str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
