"""Small shard folders, and ways to damage them."""

import contextlib
import io
import json
from pathlib import Path

import torch
from torch import Tensor

from saelight.cli import shard_commands
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.writer import ShardWriter


def counted(rows: int, d_in: int = 4) -> Tensor:
    """Rows (rows, d_in) float32 that carry their own number: row i is i + 1 in every coordinate."""
    return torch.arange(1.0, rows + 1).unsqueeze(1).expand(rows, d_in).contiguous()


SINK_EVERY = 125


def with_sinks(rows: int, d_in: int = 16, seed: int = 0) -> Tensor:
    """Normal rows (rows, d_in) of which each 125th (0.8 %), from the first on, is 100 times as long."""
    x_ND = torch.randn(rows, d_in, generator=torch.Generator().manual_seed(seed))
    x_ND[::SINK_EVERY] *= 100
    return x_ND


def write(
    path: Path,
    x_ND: Tensor,
    *,
    dtype: str = "float32",
    rows_per_shard: int | None = 100,
    piece: int = 37,
    document: int | None = None,
    **columns: Tensor,
) -> Path:
    """A shard folder of `x_ND`, appended in pieces; `document` is the length of each document."""
    if document is not None:
        columns["document_ids"] = torch.arange(len(x_ND)) // document
    with ShardWriter(
        path,
        model="test",
        hook="layer",
        dtype=dtype,
        d_in=x_ND.shape[1],
        rows_per_shard=rows_per_shard,
        source={"note": "made by a test"},
    ) as writer:
        for start in range(0, len(x_ND), piece):
            writer.append(x_ND[start : start + piece], **{k: c[start : start + piece] for k, c in columns.items()})
    return path


def read(path: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """All rows (N, D) of a shard folder, as stored, and its columns (N,)."""
    rows = ShardedRows(path)
    x_ND = torch.empty(rows.n_rows, rows.d_in, dtype=rows.dtype)
    rows.read(0, x_ND)
    return x_ND, {name: rows.column(name, 0, rows.n_rows) for name in rows.columns}


def command(*args: object) -> str:
    """What `saelight shards ARGS` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        shard_commands.run(list(map(str, args)))
    return out.getvalue()


def edit(path: Path, **changes: object) -> None:
    """Change keys of a folder's metadata."""
    file = path / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def poison(path: Path, shard: int, row: int, value: float = float("nan")) -> None:
    """Overwrite one float32 row of a shard."""
    file = path / f"activations-{shard:05d}.safetensors"
    raw = bytearray(file.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    tensor = json.loads(raw[8 : 8 + length])["activations"]
    width = tensor["shape"][1] * 4
    at = 8 + length + tensor["data_offsets"][0] + row * width
    raw[at : at + width] = torch.full((tensor["shape"][1],), value).numpy().tobytes()
    file.write_bytes(raw)
