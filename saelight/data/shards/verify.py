"""Whether a shard folder is what was written.

Shapes: N rows of a shard, D d_in.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, islice
from pathlib import Path
from typing import NamedTuple

import torch

from saelight.bars import bar as progress
from saelight.data.finite import first_non_finite
from saelight.data.remote.remote_url import Url
from saelight.data.shards.metadata import METADATA
from saelight.data.shards.reader import ACTIVATIONS, DOCUMENT_IDS, NORMS, ShardedRows, decreasing, first_decrease
from saelight.data.shards.verified import Verified
from saelight.data.shards.writer import shard_sums
from saelight.errors import UserError

_TOLERANCE = 1e-9
_MOST_WORKERS, _MOST_BYTES = 8, 2 << 30
"""Shards that are read at once, and their bytes in memory."""


class _Checked(NamedTuple):
    """What the check of one shard leaves for the folder's."""

    squares: float
    sum_D: torch.Tensor
    first_document: int | None
    last_document: int | None


def verify(path: str | Path | Url) -> str:
    """Check every checksum, that all values are finite, that documents lie in order, and that norms and sums are those of
    the rows. Several shards are read at a time; a check that was interrupted goes on behind those it had found whole.

    Returns what was checked, in a line. Raises `UserError` naming the first bad shard.
    """
    rows = ShardedRows(path)
    entries = rows.metadata["shards"]
    ends = list(accumulate(entry["rows"] for entry in entries))
    done = Verified(rows)
    before = f" ({done.shards} of them before)" if done.shards else ""
    size, held = sum(entry["bytes"] for entry in entries), sum(entry["bytes"] for entry in entries[: done.shards])
    largest = max(entry["bytes"] for entry in entries)
    workers = max(1, min(_MOST_WORKERS, os.cpu_count() or 1, _MOST_BYTES // max(1, 2 * largest)))
    with progress(total=size, initial=held, unit="B", desc="verify", delay=2) as bar, done.kept():

        def check(i: int) -> _Checked:
            return _check(rows, i, ends[i] - entries[i]["rows"], bar.update)

        for i, shard in enumerate(_in_order(check, range(done.shards, len(entries)), workers), done.shards):
            first = shard.first_document
            if first is not None and done.last_document is not None and first < done.last_document:
                raise UserError(decreasing(rows.where(ends[i] - entries[i]["rows"])))
            done.add(shard.squares, shard.sum_D, shard.last_document)
    scale = math.sqrt(done.squares * rows.n_rows) or 1.0  # bounds every |Σ x_d|
    off = (rows.sums.sum_D - done.sum_D).abs().max().item() / scale
    if abs(rows.sums.sum_of_squares - done.squares) > _TOLERANCE * done.squares or off > _TOLERANCE:
        raise UserError(f"the sums in {rows.path / METADATA} are not those of its rows; harvest again")
    return f"{rows.path}: {len(entries)} shards{before}, {rows.n_rows:,} rows: checksums, finite values and sums hold"


def _in_order(check: Callable[[int], _Checked], shards: range, workers: int) -> Iterator[_Checked]:
    """The checks' results in the order of the shards, `workers` of them at work."""
    pool = ThreadPoolExecutor(workers)
    try:
        waiting = iter(shards)
        running = [pool.submit(check, i) for i in islice(waiting, workers)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(check, i) for i in islice(waiting, 1)]
    finally:
        pool.shutdown(cancel_futures=True)


def _check(rows: ShardedRows, number: int, first: int, read: Callable[[int], object]) -> _Checked:
    """Check shard `number`, whose first row is `first`; `read` is told of bytes as they come."""
    entry = rows.metadata["shards"][number]
    file = rows.path / entry["file"]
    digest = hashlib.sha256()

    def piece(raw: memoryview) -> None:
        digest.update(raw)
        read(len(raw))

    tensors = rows.whole(number, piece)
    if (found := digest.hexdigest()) != entry["sha256"]:
        raise UserError(
            f"shard {file} is damaged: sha256 {found[:16]}…, written as {entry['sha256'][:16]}…; copy it again, or harvest "
            "again"
        )
    x_ND, ids_N = tensors[ACTIVATIONS], tensors.get(DOCUMENT_IDS, torch.empty(0))
    if (bad := first_non_finite(x_ND)) is not None:
        raise UserError(f"NaN or infinite activations: {rows.where(first + bad)}; harvest again")
    if (down := first_decrease(ids_N, None)) is not None:
        raise UserError(decreasing(rows.where(first + down)))
    sums = shard_sums(x_ND)
    if NORMS in tensors and not torch.allclose(tensors[NORMS], sums.norms_N, atol=0):
        raise UserError(f"the norms in {file} are not those of its rows; harvest again")
    documents = (int(ids_N[0]), int(ids_N[-1])) if len(ids_N) else (None, None)
    return _Checked(sums.squares, sums.sum_D, *documents)
