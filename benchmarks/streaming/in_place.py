"""The training stream beside raw sequential reading, of own shards and of others' files in place:
`python -m benchmarks.streaming.in_place --folder FOLDER`.

One thread reads and one gathers, as in training; the parties take turns. Cold: the page cache is told to drop the files.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from saelight.data.foreign.opening import open_rows
from saelight.data.shards.writer import ShardWriter
from saelight.data.stored_rows import StoredRows
from saelight.data.stream.loaders import TrainStream
from saelight.data.stream.order import cut

_PIECE = 8 << 20
_CONTEXT = 50


def write_all(folder: Path, n: int, d_in: int) -> dict[str, Path]:
    """The same float32 rows in each layout that is read in place; their paths, by name."""
    x_ND = np.random.default_rng(0).standard_normal((n, d_in), dtype=np.float32)
    with ShardWriter(folder / "shards", model="m", hook="h", dtype="float32", d_in=d_in) as writer:
        for start in range(0, n, 8192):
            writer.append(x_ND[start : start + 8192])
    np.save(folder / "x.npy", x_ND)
    (folder / "saev").mkdir()
    (folder / "arrow").mkdir()
    _write_saev(folder / "saev", x_ND)
    _write_arrow(folder / "arrow", x_ND)
    return {name: folder / name for name in ("shards", "x.npy", "arrow", "saev")}


def _write_saev(folder: Path, x_ND: np.ndarray) -> None:
    """saev's shards: one layer, examples of a context's tokens."""
    contexts, each = len(x_ND) // _CONTEXT, 1000
    known = {"family": "clip", "ckpt": "m", "layers": [0], "content_tokens_per_example": _CONTEXT, "cls_token": False}
    known |= {"d_model": x_ND.shape[1], "n_examples": contexts, "max_tokens_per_shard": each * _CONTEXT}
    (folder / "metadata.json").write_text(json.dumps(known | {"data": "", "dtype": "float32", "protocol": "2.1"}))
    shards = []
    for i, start in enumerate(range(0, contexts, each)):
        n = min(each, contexts - start)
        file = folder / f"acts{i:06}.bin"
        with file.open("wb") as opened:
            x_ND[start * _CONTEXT : (start + n) * _CONTEXT].tofile(opened)
            opened.truncate(each * _CONTEXT * x_ND.shape[1] * 4)
        shards.append({"name": file.name, "n_examples": n})
    (folder / "shards.json").write_text(json.dumps(shards))


def _write_arrow(folder: Path, x_ND: np.ndarray) -> None:
    """SAELens's cache: lists of lists, in Arrow streams."""
    import pyarrow as pa

    each, names = 1000 * _CONTEXT, []
    for i, start in enumerate(range(0, len(x_ND), each)):
        part_ND = x_ND[start : start + each]
        starts = np.arange(0, part_ND.size + 1, x_ND.shape[1], dtype=np.int32)
        inner = pa.ListArray.from_arrays(starts, pa.array(part_ND.reshape(-1)))
        contexts = pa.ListArray.from_arrays(np.arange(0, len(inner) + 1, _CONTEXT, dtype=np.int32), inner)
        table = pa.table({"hook": contexts})
        names.append(f"data-{i:05d}.arrow")
        with pa.ipc.new_stream(folder / names[-1], table.schema) as stream:
            stream.write_table(table, max_chunksize=100)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_split": None}))
    (folder / "dataset_info.json").write_text("{}")


def files_of(path: Path) -> list[Path]:
    """The files that hold rows."""
    return (
        [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and file.stat().st_size > 1 << 20]
    )


def drop(files: list[Path]) -> None:
    """Ask the system to forget the files' pages."""
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def raw(files: list[Path]) -> float:
    """GB/s of reading the files from end to end."""
    buffer, done, start = bytearray(_PIECE), 0, time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while got := opened.readinto(buffer):
                done += got
    return done / (time.perf_counter() - start) / 1e9


def streamed(rows: StoredRows, batch: int) -> float:
    """GB/s of one epoch of the training stream."""
    stream, done, start = TrainStream(rows, cut(0, rows.n_rows), batch), 0, time.perf_counter()
    for x_BD in stream:
        done += x_BD.numel() * x_BD.element_size()
    return done / (time.perf_counter() - start) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where to write the files (default: the temporary one)")
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--d_in", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        places = write_all(folder, given.rows, given.d_in)
        opened = {name: open_rows(str(path)) for name, path in places.items()}
        files = {name: files_of(path) for name, path in places.items()}
        print(
            f"{given.rows:,} × {given.d_in} float32, {given.rows * given.d_in * 4 / 1e9:.1f} GB; GB/s, median (all rounds)"
        )
        for state in ("cold", "warm"):
            figures: dict[str, list[tuple[float, float]]] = {name: [] for name in places}
            for _ in range(given.rounds):
                for name in places:
                    parties: list[Callable[[], float]] = [
                        lambda name=name: raw(files[name]),
                        lambda name=name: streamed(opened[name], given.batch),
                    ]
                    if state == "warm":
                        raw(files[name])
                    measured = []
                    for party in parties:
                        if state == "cold":
                            drop(files[name])
                        measured.append(party())
                    figures[name].append((measured[0], measured[1]))
            for name, pairs in figures.items():
                ratios = [stream / plain for plain, stream in pairs]
                each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                print(
                    f"{state} {name:<16} raw {statistics.median(p for p, _ in pairs):.2f}  stream "
                    f"{statistics.median(s for _, s in pairs):.2f}  ratio {statistics.median(ratios):.2f} ({each})"
                )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
