"""What makes a damaged or odd file of another tool in a folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from tests.data import foreign_files

Make = Callable[[Path], object]


def npy(x: object, name: str = "x.npy") -> Make:
    return lambda folder: np.save(folder / name, np.asarray(x), allow_pickle=True)


def npz(**arrays: object) -> Make:
    return lambda folder: np.savez(folder / "x.npz", **{name: np.asarray(x) for name, x in arrays.items()})


def tensors(**named: torch.Tensor) -> Make:
    return lambda folder: save_file(named, folder / "x.safetensors")


def parquet(names: list[str] | None = None, **columns: object) -> Make:
    table = pa.table(columns)
    return lambda folder: pq.write_table(table if names is None else table.rename_columns(names), folder / "x.parquet")


def layer_file(layer: int) -> Make:
    table = pa.table({"a": [[1.0]], "layer_idx": [layer]})
    return lambda folder: pq.write_table(table, folder / f"x{layer}.parquet")


def cut(make: Make, name: str, size: int) -> Make:
    def damaged(folder: Path) -> None:
        make(folder)
        os.truncate(folder / name, size)

    return damaged


def both(*makes: Make) -> Make:
    return lambda folder: [make(folder) for make in makes]


def text(name: str, content: str) -> Make:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return write


def edited(make: Make, name: str, **changes: object) -> Make:
    def changed(folder: Path) -> None:
        make(folder)
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return changed


def appended(make: Make, name: str) -> Make:
    def grown(folder: Path) -> None:
        make(folder)
        with (folder / name).open("ab") as file:
            file.write(b"\0" * 24)

    return grown


def link(folder: Path) -> None:
    (folder / "x.npy").symlink_to("nowhere")


def pickled_chunks(folder: Path) -> None:
    torch.save(foreign_files.chunk_of(0, 100), folder / "chunk-00000000.pt")


def compressed_arrow(folder: Path) -> None:
    foreign_files.write_arrow(folder / "a.arrow", 0, 100, compression="zstd")
    (folder / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
