"""Small shard folders, and ways to damage them."""

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """Change keys of a folder's metadata, its checksum with them."""
    file = path / "metadata.json"
    seal(file, json.dumps(json.loads(file.read_text()) | changes, indent=1))


def seal(file: Path, text: str) -> None:
    """Write metadata with the checksum that docs/shards.md asks for, in place of `text`'s last 64 hexadecimal digits."""
    *_, old = re.finditer('"[0-9a-f]{64}"', text)
    before, after = text[: old.start() + 1], text[old.end() - 1 :]
    digest = hashlib.sha256(f"{before}{'0' * 64}{after}".encode(errors="surrogatepass")).hexdigest()
    file.write_text(f"{before}{digest}{after}", errors="surrogatepass")


def edit_header(path: Path, shard: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a shard, and the metadata so that nothing else betrays it. `change` edits the header, or returns
    the text that takes its place."""
    file = path / f"activations-{shard:05d}.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    text = change(header)
    new = (text if isinstance(text, str) else json.dumps(header)).encode()
    file.write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + length :])
    reseal(path)


def reseal(path: Path) -> None:
    """Give the metadata the sizes and checksums of the shards as they are."""
    shards = json.loads((path / "metadata.json").read_text())["shards"]
    for entry in shards:
        raw = (path / entry["file"]).read_bytes()
        entry |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    edit(path, shards=shards)


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
