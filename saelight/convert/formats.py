"""The formats there are, which one a path is of, and the SAEs that a folder holds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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


class Found(NamedTuple):
    """One SAE on disk."""

    format: Format
    path: Path


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
        raise UserError(f"{path} is not on this machine: download the folder, and give its path")
    try:
        return next((Found(each, path) for each in _asked(format) if each.is_one(path)), None)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None


def inside(path: Path, format: str | None = None) -> dict[str, Found]:
    """The SAEs that a folder (a run, a sweep) holds, by a name for each. Raises `UserError` where it cannot be looked at."""
    try:
        found: dict[str, Found] = {}
        for name, one in _walk(path, _asked(format), "", _DEEPEST):
            # Under their own names, where those that say more are the same.
            found[name if name not in found else str(one.path.relative_to(path))] = one
        return found
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None


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


def _asked(format: str | None) -> list[Format]:
    return [named(format)] if format else [*FORMATS.values()]


def _walk(path: Path, formats: list[Format], name: str, depth: int) -> Iterator[tuple[str, Found]]:
    for format in formats:
        if format.is_one(path):
            yield name, Found(format, path)
            return
    if not path.is_dir() or depth == 0:
        return
    for format in formats:
        for file in sorted(path.glob(format.several)) if format.several else []:
            if format.is_one(file):
                yield _joined(name, file.name.partition(".")[0]), Found(format, file)
    inner = [path / _INNER[0]] if (path / _INNER[0]).is_dir() else sorted(path.iterdir())
    for child in inner:
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from _walk(child, formats, _joined(name, "" if child.name in _INNER else child.name), depth - 1)


def _joined(name: str, part: str) -> str:
    return "/".join(filter(None, (name, part)))
