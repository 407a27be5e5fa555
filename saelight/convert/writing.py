"""SAEs into folders of other formats, one or all that a folder holds, whole or not at all."""

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from saelight.bars import bar
from saelight.convert import formats, origin
from saelight.convert.format import Format
from saelight.convert.sae_sources import all_at
from saelight.errors import UserError
from saelight.files import check_path, replacing
from saelight.hub.hub_place import is_on_a_hub
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE


class Converted(NamedTuple):
    """What was made."""

    folders: list[Path]
    notes: list[str]
    """What the user has to know of it."""


def write(sae: SAE, path: str | os.PathLike[str], to: str = "saelight") -> None:
    """Write an SAE, which takes and gives the model's own activations, to a new folder of another format.

    Args:
        sae: As `saelight.load` and `saelight.convert.read` give it; its `provenance` goes along.
        path: The folder to make.
        to: The format.

    Raises:
        UserError: for a format that cannot say this SAE, and for a path that exists.
    """
    if not isinstance(sae, SAE):
        raise UserError(f"write takes an SAE, as saelight.load gives it, not a {type(sae).__name__}")
    format, path = formats.named(to, to_write=True), Path(path)
    _check_new(path)
    provenance = _provenance(sae, path.name)
    try:
        with replacing(path) as partial:
            _write_one(format, sae, provenance, partial)
    except OSError as error:
        raise _cannot_be_made(path, error) from None


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str,
    format: str | None = None,
    leave_out: Collection[str] = (),
) -> Converted:
    """Convert the SAE at `source`, or all that it holds (a run, a sweep, a repository on a hub), into `out`.

    Args:
        to: The format to write.
        format: The source's. Default: found out.
        leave_out: Names of SAEs that are not to be converted.

    Raises:
        UserError: where one of them cannot be converted: then nothing is written.
    """
    target, out = formats.named(to, to_write=True), Path(out)
    _check_new(out)
    chosen, one = all_at(source, format, leave_out)
    saes: dict[str, tuple[SAE, Provenance]] = {}
    notes: dict[str, None] = {}
    refusals: dict[str, UserError] = {}
    try:
        with replacing(out) as partial, bar(total=len(chosen), unit=" SAEs", desc="convert", delay=2) as progress:
            for name, found in chosen.items():
                try:
                    sae = found.read()
                    if target.write_set:
                        saes[name] = sae, _provenance(sae, name)
                    elif note := _write_one(target, sae, _provenance(sae, name), partial if one else partial / name):
                        notes[note] = None
                except UserError as error:
                    refusals[name] = error
                progress.update()
            if refusals:
                raise _refused(refusals, len(chosen))
            if target.write_set:
                partial.mkdir()
                target.write_set(saes, partial)
    except OSError as error:
        raise _cannot_be_made(out, error) from None
    return Converted([out] if one or target.write_set else [out / name for name in chosen], [*notes])


def _refused(refusals: dict[str, UserError], total: int) -> UserError:
    """One line for those that cannot be converted, and how the others can."""
    name, error = next(iter(refusals.items()))
    if total == 1:
        return error
    others = f"; --leave-out {' '.join(refusals)} converts the others" if len(refusals) < total else ""
    more = f", and {len(refusals) - 1} more cannot be converted" if len(refusals) > 1 else ""
    return UserError(f"{name}: {error}{more}{others}")


def _write_one(format: Format, sae: SAE, provenance: Provenance, folder: Path) -> str | None:
    folder.mkdir(parents=True)
    if format.write_set:
        format.write_set({provenance.name: (sae, provenance)}, folder)
        return None
    return format.write(sae, provenance, folder) if format.write else None


def _provenance(sae: SAE, name: str) -> Provenance:
    """Where an SAE comes from, its places in the model under both names."""
    known = sae.provenance or Provenance(name=name, seed=sae.seed)
    target = known.target_source and origin.with_both_names(known.target_source)
    return replace(known, source=origin.with_both_names(known.source), target_source=target)


def _check_new(path: Path) -> None:
    check_path(path, "the folder to make")
    if is_on_a_hub(path):
        raise UserError(f"{path} is on a hub, and this writes to this machine: `saelight push` shares what it has written")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists: name another folder, or remove it")


def _cannot_be_made(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be made ({error.strerror or error}): name a folder where you may write")
