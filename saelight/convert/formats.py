"""The formats there are, which one a path is of, and the SAEs that a folder holds."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol, TypeVar

from saelight.convert import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    goodfire,
    llama_scope,
    openmoss,
    qwen_scope,
    sae_lens,
    saelight_folders,
    saev,
    sparsify,
)
from saelight.convert.format import Format
from saelight.errors import UserError, did_you_mean, one_line
from saelight.hub.hub_place import HubPlace
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE

P = TypeVar("P", bound=PurePath)

_DEEPEST = 6  # folders: a sweep's SAEs lie in runs/<group>/saes/<sae>
_INNER = ("saes", "runs")
"""Folders of runs and sweeps that give no name to what they hold."""

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        saelight_folders,
        sae_lens,
        dictionary_learning,
        sparsify,
        circuit_tracer,
        openmoss,
        gemma_scope,
        llama_scope,
        saev,
        qwen_scope,
        goodfire,
    )
}
"""By name, in the order in which they are asked whether a path is theirs."""


class Tree(Protocol[P]):
    """Where SAEs are looked for: a disk, or what is known of a repository."""

    def is_one(self, format: Format, path: P) -> bool:
        """Whether the path is one SAE of this format."""
        ...

    def files(self, path: P, pattern: str) -> list[P]:
        """The files right in a folder whose names match."""
        ...

    def folders(self, path: P) -> list[P]:
        """The folders right in a folder; none where it is none."""
        ...


class _Disk:
    def is_one(self, format: Format, path: Path) -> bool:
        return format.is_one(path)

    def files(self, path: Path, pattern: str) -> list[Path]:
        return sorted(path.glob(pattern))

    def folders(self, path: Path) -> list[Path]:
        children = sorted(path.iterdir()) if path.is_dir() else []
        return [child for child in children if child.is_dir() and not child.is_symlink()]


class Found(NamedTuple):
    """One SAE on disk."""

    format: Format
    path: Path
    place: HubPlace | None = None
    """Where it was downloaded from."""

    def read(self, fold: bool = True, allow_nan: bool = False) -> SAE:
        """The SAE, as `Format.read` gives it; one from a hub says where it lies there, and in which commit."""
        sae = self.format.read(self.path, fold, allow_nan)
        if self.place is not None:
            known = sae.provenance or Provenance()
            # The cache calls the root of a repository as its commit.
            name = known.name if known.name != self.place.revision else self.place.name
            sae.provenance = replace(known, name=name, source=known.source | {"downloaded_from": str(self.place)})
        return sae


def named(name: str, to_write: bool = False) -> Format:
    """The format of this name. Raises `UserError`."""
    formats = {name: format for name, format in FORMATS.items() if not to_write or format.write or format.write_set}
    if name not in formats:
        what = "written" if to_write else "read"
        raise UserError(f"no format {name!r} is {what}{did_you_mean(name, formats)}; there are {', '.join(formats)}")
    return formats[name]


def at(path: Path, format: str | None = None) -> Found | None:
    """The SAE that `path` itself is, a folder or a file; None where it is none.

    Args:
        format: The only format to look for. Default: whichever it is.

    Raises:
        UserError: for a path that cannot be looked at.
    """
    if "\0" in str(path):
        raise UserError(f"{str(path)!r} cannot be read: a NUL is in no path")
    if re.match(r"\w\w+:/", str(path)):
        raise UserError(f"{path} is not on this machine: give a path on it, or hf://user/repo/path")
    try:
        return next((Found(each, path) for each in asked(format) if each.is_one(path)), None)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None


def inside(path: Path, format: str | None = None) -> dict[str, Found]:
    """The SAEs that a folder (a run, a sweep) holds, by a name for each. Raises `UserError` where it cannot be looked at."""
    try:
        return {name: Found(*found) for name, found in inside_tree(_Disk(), path, format).items()}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None


def inside_tree(tree: Tree[P], path: P, format: str | None = None) -> dict[str, tuple[Format, P]]:
    """The SAEs that a folder of a tree holds, by a name for each."""
    found: dict[str, tuple[Format, P]] = {}
    for name, one in _walk(tree, path, asked(format), "", _DEEPEST):
        # Under their own names, where those that say more are the same.
        found[name if name not in found else str(one[1].relative_to(path))] = one
    return found


def none_at(path: Path, format: str | None = None) -> UserError:
    """The refusal of a path where no SAE is."""
    if format in (None, saelight_folders.FORMAT.name) and saelight_folders.has_a_file(path):
        try:
            saelight_folders.read(path)
        except UserError as error:
            return error
    if not path.exists():
        return UserError(f"{path} holds no trained SAE: there is no such file or folder")
    if format:
        return UserError(f"{path} holds no trained SAE of {format}: leave the format out, and it is found out")
    return UserError(f"{path} holds no trained SAE of a known format; those read are {', '.join(FORMATS)}")


def asked(format: str | None) -> list[Format]:
    """The formats to look for: the one of this name, or all. Raises `UserError`."""
    return [named(format)] if format else [*FORMATS.values()]


def _walk(tree: Tree[P], path: P, formats: list[Format], name: str, depth: int) -> Iterator[tuple[str, tuple[Format, P]]]:
    for format in formats:
        if tree.is_one(format, path):
            yield name, (format, path)
            return
    if depth == 0:
        return
    folders = tree.folders(path)
    for format in formats:
        for file in tree.files(path, format.several) if format.several else []:
            if tree.is_one(format, file):
                yield _joined(name, file.name.partition(".")[0]), (format, file)
    for child in [child for child in folders if child.name == _INNER[0]] or folders:
        if not child.name.startswith("."):
            yield from _walk(tree, child, formats, _joined(name, "" if child.name in _INNER else child.name), depth - 1)


def _joined(name: str, part: str) -> str:
    return "/".join(filter(None, (name, part)))
