"""Whether a shard folder is what was written."""

import hashlib
import math
from pathlib import Path

import torch
from tqdm import tqdm

from saelight.bars import bar as progress
from saelight.data.finite import first_non_finite
from saelight.data.shards.disk import reading
from saelight.data.shards.metadata import METADATA
from saelight.data.shards.reader import DOCUMENT_IDS, NORMS, ShardedRows, decreasing, first_decrease
from saelight.data.shards.writer import shard_sums
from saelight.errors import UserError

_PIECE = 16 << 20
_TOLERANCE = 1e-9


def verify(path: str | Path) -> str:
    """Check every checksum, that all values are finite, that documents lie in order, and that norms and sums are those of
    the rows.

    Returns what was checked, in a line. Raises `UserError` naming the first bad shard.
    """
    rows = ShardedRows(path)
    squares, sum_D, first = 0.0, torch.zeros(rows.d_in, dtype=torch.float64), 0
    last_document: int | None = None
    with progress(total=sum(e["bytes"] for e in rows.metadata["shards"]), unit="B", desc="verify", delay=2) as bar:
        for entry in rows.metadata["shards"]:
            if (found := _checksum(rows.path / entry["file"], bar)) != entry["sha256"]:
                raise UserError(
                    f"shard {rows.path / entry['file']} is damaged: sha256 {found[:16]}…, written as "
                    f"{entry['sha256'][:16]}…; copy it again, or harvest again"
                )
            x_ND = torch.empty(entry["rows"], rows.d_in, dtype=rows.dtype)
            rows.read(first, x_ND)
            if (bad := first_non_finite(x_ND)) is not None:
                raise UserError(f"NaN or infinite activations: {rows.where(first + bad)}; harvest again")
            if DOCUMENT_IDS in rows.columns:
                ids_N = rows.column(DOCUMENT_IDS, first, len(x_ND))
                if (down := first_decrease(ids_N, last_document)) is not None:
                    raise UserError(decreasing(rows.where(first + down)))
                last_document = int(ids_N[-1]) if len(ids_N) else last_document
            shard = shard_sums(x_ND)
            if NORMS in rows.columns and not torch.allclose(rows.column(NORMS, first, len(x_ND)), shard.norms_N, atol=0):
                raise UserError(f"the norms in {rows.path / entry['file']} are not those of its rows; harvest again")
            squares, sum_D, first = squares + shard.squares, sum_D + shard.sum_D, first + entry["rows"]
    scale = math.sqrt(squares * rows.n_rows) or 1.0  # bounds every |Σ x_d|
    off = (rows.sums.sum_D - sum_D).abs().max().item() / scale
    if abs(rows.sums.sum_of_squares - squares) > _TOLERANCE * squares or off > _TOLERANCE:
        raise UserError(f"the sums in {rows.path / METADATA} are not those of its rows; harvest again")
    shards = len(rows.metadata["shards"])
    return f"{rows.path}: {shards} shards, {rows.n_rows:,} rows: checksums, finite values and sums hold"


def _checksum(path: Path, bar: tqdm) -> str:
    digest = hashlib.sha256()
    with reading(path) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()
