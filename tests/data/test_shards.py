"""The shard format: what is written is read, and what is wrong is said in one line."""

import json
import pickle

import pytest
import safetensors.torch
import torch

from saelight.data.finite import first_non_finite
from saelight.data.shard_summary import summary
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.verify import verify
from saelight.errors import UserError
from tests.data.folders import counted, edit, poison, write

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [False, True])
def test_round_trip(tmp_path, dtype, columns):
    x = torch.randn(251, 7, generator=torch.Generator().manual_seed(0))
    extra = {"token_ids": torch.arange(251) % 50, "positions": torch.arange(251) % 9} if columns else {}
    path = write(tmp_path / "s", x, dtype=dtype, document=17 if columns else None, **extra)
    rows = ShardedRows(path)
    assert (rows.n_rows, rows.d_in, rows.dtype) == (251, 7, DTYPES[dtype])
    stored = x.to(DTYPES[dtype])
    for start, n in [(0, 251), (0, 1), (99, 2), (100, 100), (250, 1), (30, 190)]:
        out = torch.empty(n, 7, dtype=rows.dtype)
        rows.read(start, out)
        assert torch.equal(out, stored[start : start + n])
        rows.will_need(start, n)
    assert rows.columns == (["token_ids", "positions", "document_ids"] if columns else []) + ["norms"]
    assert torch.equal(rows.column("norms", 60, 150), stored[60:210].double().norm(dim=1).float())
    for name, column in extra.items():
        assert torch.equal(rows.column(name, 60, 150), column[60:210].int())
    assert rows.mean_square_norm == pytest.approx(stored.double().square().sum(1).mean().item(), rel=1e-12)
    assert rows.source["hook"] == "layer"
    assert rows.source["note"] == "made by a test"
    # Other tools read the very same files.
    first = safetensors.torch.load_file(path / "activations-00000.safetensors")
    assert torch.equal(first["activations"], stored[:100])


def test_a_reader_survives_pickling(tmp_path):
    rows = pickle.loads(pickle.dumps(ShardedRows(write(tmp_path / "s", counted(120)))))
    out = torch.empty(120, 4)
    rows.read(0, out)
    assert torch.equal(out, counted(120))


def test_a_fingerprint_is_of_the_contents(tmp_path):
    a, b, c = (ShardedRows(write(tmp_path / n, x)) for n, x in (("a", counted(9)), ("b", counted(9)), ("c", -counted(9))))
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_where_names_the_shard_and_the_row_in_it(tmp_path):
    rows = ShardedRows(write(tmp_path / "s", counted(250)))
    assert rows.where(217).endswith("activations-00002.safetensors, row 17")


def test_summary_and_verify(tmp_path):
    path = write(tmp_path / "s", torch.randn(250, 6), dtype="bfloat16", document=10)
    assert "250 × 6 bfloat16" in summary(path)
    assert "3 shards, 250 rows" in verify(path)


def test_verify_names_the_damaged_shard(tmp_path):
    path = write(tmp_path / "s", counted(250))
    poison(path, shard=1, row=5, value=3.0)
    with pytest.raises(UserError, match=r"activations-00001\.safetensors is damaged: sha256"):
        verify(path)


def test_verify_recomputes_the_sums(tmp_path):
    path = write(tmp_path / "s", counted(50))
    edit(path, sums={"count": 50, "sum_of_squares": 1.0, "sum": [0.0] * 4})
    with pytest.raises(UserError, match=r"sums in .* are not those of its rows"):
        verify(path)


def _missing_folder(path):
    (path / "metadata.json").rename(path.parent / "kept")
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


def _mixed(path, x):
    file = path / "activations-00001.safetensors"
    safetensors.torch.save_file({"activations": x}, file)


def _drop_last_shard_line(path):
    edit(path, shards=json.loads((path / "metadata.json").read_text())["shards"][:-1])


BAD = {
    "no folder": (_missing_folder, "there is no such folder"),
    "no metadata": (lambda p: (p / "metadata.json").unlink(), "metadata.json is missing"),
    "no json": (lambda p: (p / "metadata.json").write_text("{"), "is no JSON"),
    "not ours": (lambda p: edit(p, format="other"), "not saelight's shards"),
    "newer": (lambda p: edit(p, version=7), "written by a newer saelight: version 7, this one reads up to 1; upgrade"),
    "a key missing": (
        lambda p: (p / "metadata.json").write_text('{"format": "saelight-shards", "version": 1}'),
        "lacks model",
    ),
    "a shard line broken": (lambda p: edit(p, shards=[{"file": "x"}]), "does not say file, rows, bytes and sha256"),
    "odd dtype": (lambda p: edit(p, dtype="int8"), "dtype 'int8' is none of"),
    "empty": (lambda p: edit(p, rows=0), r"empty \(0 rows\)"),
    "shard missing": (lambda p: (p / "activations-00001.safetensors").unlink(), "activations-00001.safetensors is missing"),
    "truncated": (lambda p: _cut(p, -8), "activations-00001.safetensors is truncated"),
    "truncated header": (lambda p: _cut(p, 20), "ends? inside its header"),
    "zero bytes": (lambda p: _cut(p, 0), "truncated: 0 bytes"),
    "too long": (lambda p: _cut(p, None), "too long"),
    "mixed width": (lambda p: _mixed(p, torch.zeros(100, 5)), r"mixed width .*activations-00001.* d_in 4"),
    "mixed dtype": (lambda p: _mixed(p, torch.zeros(100, 4).half()), "mixed dtype .*F16"),
    "rows differ": (lambda p: _mixed(p, torch.zeros(99, 4)), "has 99 rows"),
    "a shard unlisted": (_drop_last_shard_line, "says 250 rows, its shards hold 200"),
    "no safetensors": (lambda p: _cut(p, None, b"\x02" + b"\0" * 7 + b"xy"), "no safetensors"),
}


def _cut(path, size, instead=None):
    file = path / "activations-00001.safetensors"
    raw = file.read_bytes()
    file.write_bytes(instead or (raw + b"more" if size is None else raw[:size]))


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_get_one_line(tmp_path, name):
    path = write(tmp_path / "s", counted(250))
    damage, message = BAD[name]
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        ShardedRows(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_rows_are_found(dtype, value):
    x = torch.full((300, 3), torch.finfo(dtype).max, dtype=dtype)
    assert first_non_finite(x) is None
    x[211, 2] = value
    assert first_non_finite(x) == 211
