"""Which of the other layouts is at a path."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from saelight.data.foreign import (
    file_folder,
    npy_file,
    npz_file,
    openmoss_chunks,
    parquet_file,
    raw_memmap,
    sae_lens_cache,
    saev_shards,
    safetensors_file,
)
from saelight.data.foreign.layout import Address, Layout, names_in, parse
from saelight.data.shards.metadata import is_shards
from saelight.errors import UserError


class _Layout(NamedTuple):
    """One layout."""

    name: str
    is_here: Callable[[Path], bool]
    read: Callable[[Address], Layout]


LAYOUTS = [
    _Layout("saev's shards", saev_shards.is_here, saev_shards.read),
    _Layout("SAELens's cache", sae_lens_cache.is_here, sae_lens_cache.read),
    _Layout("OpenMOSS's chunks", openmoss_chunks.is_here, openmoss_chunks.read),
    _Layout(".npy", npy_file.is_here, npy_file.read),
    _Layout(".npz", npz_file.is_here, npz_file.read),
    _Layout(".safetensors", safetensors_file.is_here, safetensors_file.read),
    _Layout(".parquet", parquet_file.is_here, parquet_file.read),
    _Layout("raw arrays with .meta", raw_memmap.is_here, raw_memmap.read),
    _Layout("a folder of files", file_folder.is_here, file_folder.read),
]
"""The first that is there is read."""
_SUFFIXES = tuple(kind.suffix for kind in file_folder.KINDS)


def find(path: str | Path) -> tuple[Address, Layout] | None:
    """What is at `path`, which may name a tensor and a layer in it (`Address`); None when it is for the reader of saelight's
    own shards to read, or to say what is wrong. Raises `UserError` when it is damaged, or another may be meant."""
    address = parse(path)
    if address is None:
        if str(path).endswith(_SUFFIXES):
            raise UserError(f"no activations at {path}: there is no such file; check the path")
        return None
    if is_shards(address.path):
        if str(address) != str(address.path):
            raise UserError(
                f"{address.path} is a folder of shards, which hold one hook each; leave out what follows the path"
            )
        return None
    for layout in LAYOUTS:
        if layout.is_here(address.path):
            found = layout.read(address)
            return address, found._replace(notes={"layout": layout.name} | found.notes)
    if address.path.is_file():
        kinds = ", ".join(_SUFFIXES)
        raise UserError(
            f"no shards at {address.path}: it is a file; point to the folder of the shards, or to a file of another kind "
            f"that is read ({kinds}, raw arrays with .meta); anything else becomes shards by saelight.ShardWriter"
        )
    if address.path.is_dir() and (inner := [path.name for path in names_in(address.path) if _holds_rows(path)]):
        listed = ", ".join(inner[:20]) + (", …" if len(inner) > 20 else "")
        raise UserError(f"no activations in {address.path} itself, only in folders in it ({listed}); name one of them")
    return None


def _holds_rows(path: Path) -> bool:
    return path.is_dir() and (is_shards(path) or any(layout.is_here(path) for layout in LAYOUTS))
