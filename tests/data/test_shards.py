"""The shard format: what is written is read, and what is wrong is said in one line."""

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


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_rows_are_found(dtype, value):
    x = torch.full((300, 3), torch.finfo(dtype).max, dtype=dtype)
    assert first_non_finite(x) is None
    x[211, 2] = value
    assert first_non_finite(x) == 211
