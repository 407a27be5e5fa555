"""What a reader says of the files at an address, and what is at one: which path, which tensor in it, which layer.

Shapes: N rows, D d_in.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saelight.data.foreign.row_parts import Part, Streamed
from saelight.data.shards.disk import cannot_read
from saelight.errors import UserError, did_you_mean

ALIASES = {
    "token_ids": ("token_ids", "token_id", "tokens", "token", "input_ids"),
    "positions": ("positions", "position", "pos"),
    "document_ids": ("document_ids", "document_id", "doc_ids", "doc_id"),
}
"""What others call the columns of shards, and these themselves."""
COLUMN_NAMES = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
_LAYER = re.compile(r"(.+)@(\d{1,9})")


class Address(NamedTuple):
    """`PATH`, `PATH:NAME`, `PATH@LAYER` or `PATH:NAME@LAYER`."""

    path: Path
    name: str | None = None
    """Of several tensors, columns or hooks the one that is meant."""
    layer: int | None = None

    def __str__(self) -> str:
        name = "" if self.name is None else f":{self.name}"
        return f"{self.path}{name}" + ("" if self.layer is None else f"@{self.layer}")

    def chosen(self, names: Sequence[str], what: str) -> str:
        """The name that is meant, of those that are there. Raises `UserError` with them when it is none, or not said."""
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        if self.name is not None and self.name not in names:
            raise UserError(f"{self.path} has no {what} {self.name!r}{did_you_mean(self.name, names)}: it has {listed}")
        if self.name is None and len(names) > 1:
            raise UserError(f"{self.path} has several {what}s ({listed}); say which, as {self.path}:{names[0]}")
        return self.name or names[0]

    def chosen_layer(self, layers: Sequence[int]) -> int:
        """The same for layers."""
        listed = ", ".join(map(str, layers[:40])) + (", …" if len(layers) > 40 else "")
        if self.layer is not None and self.layer not in layers:
            raise UserError(f"{self.path} has no layer {self.layer}: it has {listed}")
        if self.layer is None and len(layers) > 1:
            raise UserError(f"{self.path} has several layers ({listed}); say which, as {self}@{layers[0]}")
        return layers[0] if self.layer is None else self.layer

    def without_layers(self) -> "Address":
        """Itself. Raises `UserError` when it names a layer: what is there has none."""
        if self.layer is not None:
            raise UserError(f"{self.path} has no layers to choose from; leave out @{self.layer}")
        return self

    def without_names(self) -> "Address":
        """The same for a name."""
        if self.name is not None:
            raise UserError(f"{self.path} holds one array, without a name; leave out :{self.name}")
        return self


def parse(text: str | Path) -> Address | None:
    """What `text` means: a path that exists, or one followed by a name, a layer or both. None when nothing is there."""
    text = str(text)
    if _exists(Path(text)):
        return Address(Path(text))
    layer = _LAYER.fullmatch(text)
    for rest, number in ([(layer[1], int(layer[2]))] if layer else []) + [(text, None)]:
        for path, name in _split(rest):
            if _exists(Path(path)):
                return Address(Path(path), name, number)
    return None


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    yield text, None
    for at in (i for i in reversed(range(1, len(text) - 1)) if text[i] == ":"):
        yield text[:at], text[at + 1 :]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, a NUL: nothing has it
        return False


class Layout(NamedTuple):
    """What is at an address."""

    parts: list[Part | Streamed]
    """The rows, (N, D)."""
    d_in: int
    dtype: torch.dtype
    columns: dict[str, list[Part]]
    """Of token_ids, positions and document_ids those that there are: N numbers each."""
    model: str
    hook: str
    notes: dict[str, Any]
    """Further provenance, plain data."""
    files: list[Path]
    """What the rows lie in."""


def joined(address: Address, layouts: Sequence[Layout]) -> Layout:
    """Files that follow one another as one layout. Raises `UserError` when their widths, dtypes or columns differ."""
    first = layouts[0]
    for layout in layouts[1:]:
        for what, here, there in (
            ("width", first.d_in, layout.d_in),
            ("dtype", first.dtype, layout.dtype),
            ("layer", first.notes.get("layer"), layout.notes.get("layer")),
            ("columns", sorted(first.columns) or "none", sorted(layout.columns) or "none"),
        ):
            if here != there:
                raise UserError(
                    f"the files at {address.path} are of different {what}: {first.files[0].name} has {here}, "
                    f"{layout.files[0].name} has {there}; keep each kind in a folder of its own"
                )
    return first._replace(
        parts=[part for layout in layouts for part in layout.parts],
        columns={name: [part for layout in layouts for part in layout.columns[name]] for name in first.columns},
        files=[file for layout in layouts for file in layout.files],
    )


def names_in(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, with numbers in the names in the order of numbers."""
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural)
    except OSError as e:
        raise cannot_read(folder, e) from None


def natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts `x2` before `x10`."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", path.name)]
