"""How long ten thousand shards take to open, and how much memory: `python -m benchmarks.streaming.opening --folder FOLDER`.

The files are sparse, of the size that their headers say, with true headers and metadata: what opening looks at is all there.
"""

import argparse
import contextlib
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from saelight.data.shards.metadata import METADATA, sealed
from saelight.files import safetensors_header

_COLUMNS = {"document_ids": ("I64", 8), "token_ids": ("I32", 4), "positions": ("I32", 4), "norms": ("F32", 4)}
_CHILD = """
import json, resource, sys, time
import torch
from saelight.data.datamodule import ActivationDataModule
from saelight.data.shards.reader import ShardedRows

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

start, busy, before = time.perf_counter(), time.process_time(), peak()
rows = ShardedRows(sys.argv[1])
busy = time.process_time() - busy
opened, rows_peak = time.perf_counter() - start, peak()
del rows
start = time.perf_counter()
data = ActivationDataModule(path=sys.argv[1], normalise="standard")
module, module_peak = time.perf_counter() - start, peak()
start = time.perf_counter()
stream = data.train_dataloader()
next(iter(stream))
buffers = data.describe().stream_bytes
first = time.perf_counter() - start
print(json.dumps({"busy": busy, "opened": opened, "module": module, "first": first, "before": before, "rows": rows_peak,
    "data": module_peak, "all": peak(), "buffers": buffers}))
"""


def write_sparse(folder: Path, shards: int, rows: int, d_in: int) -> None:
    """A folder of `rows` bfloat16 rows in all whose files take no room on a disk that knows holes."""
    folder.mkdir(parents=True)
    each = rows // shards
    tensors = {name: (dtype, (each,), each * size) for name, (dtype, size) in _COLUMNS.items()}
    header = safetensors_header(tensors | {"activations": ("BF16", (each, d_in), 2 * each * d_in)})
    size = len(header) + sum(of[2] for of in tensors.values()) + 2 * each * d_in
    entries = []
    for i in range(shards):
        name = f"activations-{i:05d}.safetensors"
        with (folder / name).open("wb") as file:
            file.write(header)
            if i >= 0.98 * shards:  # two documents: the second is validation's
                file.write((1).to_bytes(8, "little") * each)
            file.truncate(size)
        entries.append({"file": name, "rows": each, "bytes": size, "sha256": f"{i:064x}"})
    n = shards * each
    sums = {"count": n, "sum_of_squares": float(n * d_in), "sum": [0.0] * d_in}
    known = {"format": "saelight-shards", "version": 1, "model": "sparse", "hook": "none", "dtype": "bfloat16"}
    meta = known | {"d_in": d_in, "rows": n, "shards": entries, "sums": sums, "source": {}}
    (folder / METADATA).write_bytes(sealed(meta))


@contextlib.contextmanager
def sparse(parent: str | None, shards: int, rows: int, d_in: int) -> Iterator[Path]:
    """Such a folder for a while."""
    holder = Path(tempfile.mkdtemp(dir=parent))
    try:
        write_sparse(holder / "s", shards, rows, d_in)
        yield holder / "s"
    finally:
        shutil.rmtree(holder)


def measure(folder: Path) -> dict[str, float]:
    """Seconds and bytes, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _CHILD, folder], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where to make the files, on a disk that knows holes (default: the temporary one)")
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--d_in", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert soft == resource.RLIM_INFINITY or soft > 2 * given.rows // given.shards * given.d_in, (soft, hard)
    with sparse(given.folder, given.shards, given.rows, given.d_in) as folder:
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{given.shards:,} shards, {given.rows:,} rows × {given.d_in} bfloat16, {size / 1e12:.2f} TB as they would be")
        rounds = [measure(folder) for _ in range(given.rounds)]
    median = {key: sorted(of[key] for of in rounds)[math.floor(len(rounds) / 2)] for key in rounds[0]}
    more = {key: (median[key] - median["before"]) / 1e6 for key in ("rows", "data", "all")}
    print(f"shards opened in {median['opened']:.2f} s ({median['busy']:.2f} of CPU), {more['rows']:.0f} MB more")
    print(f"data module made in {median['module']:.2f} s, {more['data']:.0f} MB more")
    print(
        f"first batch after {median['first']:.2f} s, {more['all']:.0f} MB more; of the stream's buffers it needs "
        f"{median['buffers'] / 1e6:.0f}"
    )


if __name__ == "__main__":
    main()
