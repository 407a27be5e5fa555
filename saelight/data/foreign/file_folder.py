"""A folder of files of one kind, which follow one another by their names, numbers in them as numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from saelight.data.foreign import npy_file, npz_file, parquet_file, safetensors_file
from saelight.data.foreign.layout import COLUMN_NAMES, Address, Layout, joined, names_in
from saelight.data.foreign.row_parts import Part
from saelight.data.shards.metadata import FIRST
from saelight.errors import UserError


class Kind(NamedTuple):
    """One kind of file."""

    suffix: str
    read: Callable[[Address], Layout]


KINDS = [Kind(module.SUFFIX, module.read) for module in (npy_file, npz_file, safetensors_file, parquet_file)]


def is_here(path: Path) -> bool:
    return path.is_dir() and any(_files(path).values())


def read(address: Address) -> Layout:
    """All files, the name and the layer of the address being those in each. Raises `UserError` when they are of several
    kinds, or differ."""
    found = {suffix: files for suffix, files in _files(address.path).items() if files}
    if len(found) > 1:
        kinds = " and ".join(f"{len(files)} × {suffix}" for suffix, files in found.items())
        raise UserError(f"{address.path} holds {kinds}; keep each kind in a folder of its own, or name one file")
    ((suffix, files),) = found.items()
    (kind,) = [kind for kind in KINDS if kind.suffix == suffix]
    columns = {file: COLUMN_NAMES[file.stem] for file in files if suffix == npy_file.SUFFIX and file.stem in COLUMN_NAMES}
    rows = [file for file in files if file not in columns]
    if not rows:
        raise UserError(f"{address.path} holds no activations, only {', '.join(file.name for file in columns)}")
    layout = joined(address, [kind.read(address._replace(path=file)) for file in rows])
    n_rows = sum(part.rows for part in layout.parts)
    beside: dict[str, list[Part]] = {name: [npy_file.read_column(file, name, n_rows)] for file, name in columns.items()}
    return layout._replace(columns=layout.columns | beside, hook=address.name or address.path.name)


def _files(folder: Path) -> dict[str, list[Path]]:
    """The files of each kind in the folder. Of saelight's own shards that have lost their metadata there are none: what is
    left of them is not to be taken for somebody else's."""
    paths = [path for path in names_in(folder) if not path.is_dir()]
    if any(path.name == FIRST for path in paths):
        return {}
    return {kind.suffix: [path for path in paths if path.suffix == kind.suffix] for kind in KINDS}
