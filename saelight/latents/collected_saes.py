"""Which SAEs a collection is of, and what they are shown: those at the paths that are named, with the data of their runs."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from saelight.convert import formats
from saelight.data.foreign.opening import open_rows
from saelight.data.source import Rows
from saelight.errors import UserError
from saelight.latents import latents_format as layout
from saelight.latents.configured_rows import is_config, rows_of_config, rows_of_fit
from saelight.parsing.config_files import read_mapping
from saelight.saes.sae import SAE
from saelight.saes.sae_folder import published

_AT_ONCE = 1 << 20
"""Latents of all SAEs that are in memory at once: 1.5 GB of records, beside the weights."""


class Subject(NamedTuple):
    """An SAE whose latents are looked at."""

    name: str
    path: Path
    sae: SAE
    """It takes the model's own activations."""
    digest: str
    """Of its weights."""
    run: Path | None
    """The run that it is of; SAEs of one run are compared."""

    @property
    def folder(self) -> Path:
        """Where its latents are kept."""
        return layout.folder_of(self.path)

    def is_beside(self, other: "Subject") -> bool:
        """Whether both are of one run."""
        return self.run is not None and self.run == other.run


class Shown(NamedTuple):
    """Rows, and the SAEs that are shown them."""

    path: str
    rows: Rows
    subjects: list[Subject]

    def has_room(self, rows: Rows, d_sae: int) -> bool:
        """Whether an SAE with so many latents can be shown these rows too."""
        latents = sum(subject.sae.d_sae for subject in self.subjects)
        return rows.fingerprint == self.rows.fingerprint and latents + d_sae <= _AT_ONCE

    @property
    def data(self) -> layout.Data:
        """What the files say of the rows."""
        source = self.rows.source
        model, hook = (source.get(key) if isinstance(source.get(key), str) else None for key in ("model", "hook"))
        columns = [*getattr(self.rows, "columns", ())]
        return {"path": self.path, "model": model, "hook": hook, "fingerprint": self.rows.fingerprint, "columns": columns}


def find(paths: Sequence[str | Path], data: str | None) -> Iterator[Shown]:
    """The SAEs at `paths`, or that folders there (runs, sweeps) hold, by the rows that they are shown: as many at a time as
    have a million latents.

    Args:
        data: The rows, for all, or the config of a fit or a harvest that says which; default: those of the run that each SAE
            is of.

    Raises:
        UserError: for a path that holds none, one that cannot be read, and rows that are not there or do not fit.
    """
    found: dict[Path, tuple[str, formats.Found]] = {}
    for path in map(Path, paths):
        one = formats.at(path)
        inner = {path.absolute().name: one} if one else formats.inside(path)
        if not inner:
            raise formats.none_at(path)
        found |= {each.path.resolve(): (name, each) for name, each in inner.items()}
    opened: dict[str, tuple[str, Rows]] = {}
    waiting: Shown | None = None
    for path, (name, each) in found.items():
        run = path.parents[1] if path.parent.name == "saes" else None
        sae = each.format.read(each.path, True, False)
        hook = _hook(sae)
        spec = _of_run(run, name) if data is None else {}
        asked = json.dumps([spec, data and hook], sort_keys=True, default=str)
        if asked not in opened:
            opened[asked] = _rows(data, spec, run, hook)
        key, rows = opened[asked]
        if sae.d_in != rows.d_in:
            raise UserError(f"{name} takes {sae.d_in} numbers, a row of {key} has {rows.d_in}: give --data of its own hook")
        if waiting and not waiting.has_room(rows, sae.d_sae):
            yield waiting
            waiting = None
        waiting = waiting or Shown(key, rows, [])
        waiting.subjects.append(Subject(name, path, sae, _digest(sae), run))
    if waiting:
        yield waiting


def notes(shown: Shown) -> list[str]:
    """What the user has to know of the rows before they are gone through."""
    data, said = shown.data, []
    for subject in shown.subjects:
        hook = _hook(subject.sae)
        if data["hook"] and hook and hook != data["hook"]:
            said.append(f"{subject.name} was trained on {hook}, {shown.path} is of {data['hook']}: check --data")
    if "token_ids" not in data["columns"]:
        said.append(
            f"{shown.path} has no token ids: densities, histograms, rows of the strongest activations and related latents "
            "are collected, contexts and frequent tokens are not; saelight shards harvest writes token ids"
        )
    return said


def _hook(sae: SAE) -> str | None:
    """Where in the model it was trained, if that is known."""
    hook = sae.provenance.source.get("hook") if sae.provenance else None
    return hook if isinstance(hook, str) else None


def _of_run(run: Path | None, name: str) -> Mapping[str, Any]:
    """The `data` section of a run's config."""
    config = run / "config.yaml" if run is not None else None
    if config is None or not config.is_file():
        raise UserError(f"nothing says what {name} was trained on (it has no run with a config.yaml): give --data PATH")
    spec = read_mapping(config).get("data")
    if not isinstance(spec, dict):
        raise UserError(f"{config} names no data: give --data PATH")
    return spec


def _rows(data: str | None, spec: Mapping[str, Any], run: Path | None, hook: str | None) -> tuple[str, Rows]:
    if data is not None:
        return rows_of_config(data, hook) if is_config(data) else (data, open_rows(data))
    try:
        return rows_of_fit(spec, f"{run}/config.yaml")
    except UserError as error:
        if "give --data PATH" in str(error):
            raise
        raise UserError(f"the data of {run} cannot be opened ({error}): if they have moved, give --data PATH") from None


def _digest(sae: SAE) -> str:
    found = hashlib.sha256()
    tensors: dict[str, Tensor] = published(sae)
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().contiguous().numpy().data)
    return found.hexdigest()
