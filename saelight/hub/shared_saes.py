"""The SAEs that are to be shared, what is known of them, and which file goes where in the repository."""

import os
import posixpath
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from saelight.bars import bar
from saelight.convert import formats, origin
from saelight.convert.format import Format
from saelight.convert.formats import Found
from saelight.convert.layouts import NamedFiles
from saelight.convert.parts import variant_name
from saelight.convert.sae_sources import all_at
from saelight.convert.writing import convert
from saelight.errors import UserError
from saelight.hub.hub_place import HubPlace
from saelight.latents import latents_format
from saelight.run import evaluation_file
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE
from saelight.sweep.store.results_table import rows_of

_LARGEST_LATENTS = 64 * 2**20
"""Bytes of an SAE's latents that go along: those of 13,000."""


class SharedSAE(NamedTuple):
    """One SAE, as its card describes it."""

    path: str
    """Where it lies in the repository: a folder, or a file."""
    variant: str
    d_in: int
    d_out: int | None
    """A transcoder's."""
    d_sae: int
    spec: dict[str, Any]
    """Its config."""
    provenance: Provenance
    row: Mapping[str, Any] | None
    """What its run or sweep says of it (docs/sweeps.md)."""
    on_model: Mapping[str, float | None]
    """What `saelight evaluate` has found (docs/evaluate.md)."""


@dataclass
class Shared:
    """All that one push shares."""

    format: str | None
    """The one format of them all; None where they have several."""
    saes: list[SharedSAE] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    """On this machine, by their paths in the repository."""
    notes: list[str] = field(default_factory=list)
    """What a user of the format has to know."""
    left: list[str] = field(default_factory=list)
    """What stays here, and why."""


@contextmanager
def shared_saes(source: Path, place: HubPlace, to: str | None, leave_out: Collection[str]) -> Iterator[Shared]:
    """What a push of `source` shares; converted SAEs lie in a folder that is there as long as the block.

    Args:
        source: An SAE, or a folder that holds some: a run, a sweep.
        place: Where they go: those of a folder each into a folder of its name; one alone to the place itself or, where that
            is a repository's root, into a folder of its name.
        to: The format to convert into. Default: as they are.
        leave_out: Names of those that are not shared.

    Raises:
        UserError: for an SAE that cannot be read or has no form in the format; nothing is shared then.
    """
    found, is_one = all_at(source, leave_out=leave_out)
    rows = _rows(source)
    kinds = {one.format.name for one in found.values()}
    shared = Shared(to or (kinds.pop() if len(kinds) == 1 else None))
    target = formats.named(to, to_write=True) if to else None
    with bar(total=len(found), unit=" SAEs", desc="read", delay=2) as progress:
        for name, one in found.items():
            try:
                sae = one.read()
            except UserError as error:
                raise UserError(f"{error}; --leave-out {name} shares the others") if len(found) > 1 else error from None
            path = _path(place, name, one, sae, is_one, target)
            shared.saes.append(_described(path, sae, rows.get(one.path.resolve()), one.path))
            if target is None:
                known, left = _known_of(one.path, path)
                shared.files |= _as_it_is(source, one, path) | known
                shared.left += left
            progress.update()
    if target is None:
        yield shared
        return
    with tempfile.TemporaryDirectory(prefix="saelight-push-") as scratch:
        made = Path(scratch) / "made"
        shared.notes += convert(source, made, target.name, leave_out=leave_out).notes
        base = shared.saes[0].path if is_one and not target.write_set else place.path
        written = [path for path in sorted(made.rglob("*")) if path.is_file()]
        shared.files |= {posixpath.join(base, path.relative_to(made).as_posix()): path for path in written}
        yield shared


def _path(place: HubPlace, name: str, found: Found, sae: SAE, is_one: bool, target: Format | None) -> str:
    """Where an SAE comes to lie in the repository, its folder or its file."""
    if target is not None and target.write_set:
        layer = origin.layer(sae.provenance.source) if sae.provenance else None
        return posixpath.join(place.path, f"layer_{layer}.safetensors")
    if target is None and found.path.is_file():
        return posixpath.join(place.path, "" if is_one else posixpath.dirname(name), found.path.name)
    if is_one:
        return place.path or (found.path.stem if found.path.is_file() else name)
    return posixpath.join(place.path, name)


def _described(path: str, sae: SAE, row: Mapping[str, Any] | None, folder: Path) -> SharedSAE:
    return SharedSAE(
        path=path,
        variant=variant_name(sae),
        d_in=sae.d_in,
        d_out=sae.d_out if sae.is_transcoder else None,
        d_sae=sae.d_sae,
        spec=sae.config.spec(),
        provenance=sae.provenance or Provenance(),
        row=row,
        on_model=evaluation_file.on_model(folder),
    )


def _as_it_is(source: Path, found: Found, placed: str) -> dict[str, Path]:
    """The files of an SAE by their paths in the repository: those that a reader needs, and no others."""
    root = source if source.is_dir() and found.path != source else source.parent
    tree = NamedFiles([path.relative_to(root).as_posix() for path in _files_around(found.path, root)])
    path = PurePosixPath(found.path.relative_to(root).as_posix())
    home, folder = (path.parent, posixpath.dirname(placed)) if found.path.is_file() else (path, placed)
    files = {
        posixpath.normpath(posixpath.join(folder, os.path.relpath(file, home))): root / file
        for file in tree.files_of(found.format, path)
    }
    # What lies above the repository's root has no place in it.
    return {at: file for at, file in files.items() if not at.startswith("..")}


def _known_of(path: Path, placed: str) -> tuple[dict[str, Path], list[str]]:
    """What was found out about an SAE, by paths in the repository: its evaluation, and its latents where they are small; and
    what to say where they are not."""
    home, root = (posixpath.dirname(placed), path.parent) if path.is_file() else (placed, path)
    folder, said = latents_format.folder_of(path), list[str]()
    latents = [folder / name for name in (latents_format.META, latents_format.TENSORS, latents_format.TEXTS)]
    size = sum(file.stat().st_size for file in latents if file.is_file())
    if size > _LARGEST_LATENTS:
        said = [f"{folder} has {size / 2**20:,.0f} MB, more than {_LARGEST_LATENTS >> 20}, and stays here"]
        latents = []
    files = [file for file in (evaluation_file.beside(path), *latents) if file.is_file()]
    return {posixpath.join(home, file.relative_to(root).as_posix()): file for file in files}, said


def _files_around(path: Path, root: Path) -> Iterator[Path]:
    """The files in an SAE's folder, and those right in the one above, as far as that is in `root`."""
    folder = path if path.is_dir() else path.parent
    yield from (file for file in folder.rglob("*") if file.is_file())
    if folder != root:
        yield from (file for file in folder.parent.iterdir() if file.is_file())


def _rows(source: Path) -> dict[Path, Mapping[str, Any]]:
    """What is known of the SAEs of a run or a sweep, by their folders; nothing of other folders."""
    run = source.parent.parent if source.parent.name == "saes" else source
    try:
        rows = rows_of(run)
    except (UserError, OSError):
        return {}
    is_sweep = (run / "index.json").is_file()
    return {(Path(row["folder"]) if is_sweep else run / "saes" / row["name"]).resolve(): row for row in rows}
