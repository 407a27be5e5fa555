"""`saelight shards filter` and what `info` says: on rows of which 0.8 % are sinks."""

import hashlib
import json

import pytest
import safetensors.torch
import torch

from saelight.data.datamodule import ActivationDataModule
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.verify import verify
from saelight.errors import UserError
from tests.data.folders import SINK_EVERY, command, edit, read, with_sinks, write

N = 4000


def columns(n=N):
    return {"token_ids": torch.arange(n) % 50, "positions": torch.arange(n) % SINK_EVERY}


def test_one_folder(tmp_path):
    x = with_sinks(N)
    src = write(tmp_path / "src", x, document=500, **columns())
    said = command("filter", src, tmp_path / "out")
    keep = torch.arange(N) % SINK_EVERY != 0
    kept, known = read(tmp_path / "out")
    assert torch.equal(kept, x[keep])
    assert torch.equal(known["positions"], columns()["positions"][keep].int())
    # A context shows the gap: here the first token of each window is missing.
    assert known["positions"][:2].tolist() == [1, 2]
    assert torch.equal(known["norms"], x[keep].double().norm(dim=1).float())
    meta = ShardedRows(tmp_path / "out").metadata
    (report,) = meta["dropped"]
    squares = x.double().square().sum(1)
    assert report["share"] == pytest.approx((squares[~keep].sum() / squares.sum()).item())
    assert report["reasons"]["norm"]["rows"] == 32
    assert meta["source"]["filtered"] == [{"max_norm": 10.0, "skip_positions": 0, "drop_tokens": []}]
    assert said.startswith(f"3,968 rows in {tmp_path / 'out'}\ndropped from {src}: 32 of 4,000 rows, 98.")
    verify(tmp_path / "out")

    again = command("filter", tmp_path / "out", tmp_path / "less", "--skip_positions", 3, "--drop_tokens", "[7, 8]")
    _, known = read(tmp_path / "less")
    assert known["positions"].min() == 3
    assert not torch.isin(known["token_ids"], torch.tensor([7, 8])).any()
    assert "position 64 (" in again
    assert len(ShardedRows(tmp_path / "less").metadata["dropped"]) == 2
    assert "dropped (2)" in command("info", tmp_path / "less")


def test_hooks_are_filtered_together_and_stay_pairs(tmp_path):
    x, y = with_sinks(N), torch.randn(N, 3)
    y[77] *= 500
    write(tmp_path / "both" / "mlp.in", x, document=500, **columns())
    write(tmp_path / "both" / "mlp.out", y, dtype="bfloat16", document=500, **columns())
    command("filter", tmp_path / "both", tmp_path / "out")
    keep = torch.arange(N) % SINK_EVERY != 0
    keep[77] = False
    assert torch.equal(read(tmp_path / "out" / "mlp.in")[0], x[keep])
    assert torch.equal(read(tmp_path / "out" / "mlp.out")[0], y[keep].bfloat16())
    data = ActivationDataModule(str(tmp_path / "out/mlp.in"), target_path=str(tmp_path / "out/mlp.out"), batch_size=100)
    assert data.opened.rows.n_rows == keep.sum()
    reports = [ShardedRows(tmp_path / "out" / hook).metadata["dropped"][0] for hook in ("mlp.in", "mlp.out")]
    assert [report["rows_dropped"] for report in reports] == [33, 33]


def test_a_whole_folder_or_none(tmp_path):
    src = write(tmp_path / "both" / "a", with_sinks(N))
    with pytest.raises(UserError, match="skip_positions needs the column positions"):
        command("filter", src, tmp_path / "out", "--skip_positions", 1)
    write(tmp_path / "both" / "b", with_sinks(N - 1))
    with pytest.raises(UserError, match="4000 rows"):
        command("filter", tmp_path / "both", tmp_path / "out")
    with pytest.raises(UserError, match="no such folder"):
        command("filter", tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match="exists; choose another"):
        command("filter", src, src)
    assert [path.name for path in tmp_path.iterdir()] == ["both"]


def test_info_tells_of_sinks_means_and_flat_dimensions(tmp_path):
    x = with_sinks(N)
    x[:, 3], x[:, 5] = 2.0, x[:, 4]
    x[:, 0] += 3
    path = write(tmp_path / "s", x)
    said = dict(line.split(maxsplit=1) for line in command("info", path).splitlines() if not line.startswith("rms norm"))
    norms = x.double().norm(dim=1)
    squares = norms.square().sort().values
    assert said["max/median"] == f"{norms.max() / norms.median():,.4g}"
    assert f"50 %: {norms.median():,.4g}" in said["norms"]
    assert said["norms"].endswith("(all 4,000 rows)")
    first, second, third = said["Σ‖x‖²"].replace(";", ",").split(", ")
    assert first == f"{squares[-4:].sum() / squares.sum():.1%} in the top 0.1 % of rows"
    assert second == f"{squares[-40:].sum() / squares.sum():.1%} in the top 1 %"
    assert third.endswith("in the 32 above 10 × the median norm")
    spread = x.double() - x.double().mean(0)
    gamma = x.double().mean(0).norm() / spread.square().sum(1).mean().sqrt()
    assert said["γ"] == f"{gamma:.4g} (‖mean‖ over the standard deviation)"
    assert said["dimensions"] == "1 constant, 1 duplicated (in a sample of 4,000 rows)"


def strip_norms(path):
    """Make a folder as it was before norms were a column."""
    shards = json.loads((path / "metadata.json").read_text())["shards"]
    for entry in shards:
        file = path / entry["file"]
        tensors = safetensors.torch.load_file(file)
        del tensors["norms"]
        safetensors.torch.save_file(tensors, file)
        entry["bytes"] = file.stat().st_size
    edit(path, shards=shards)


def test_without_a_column_norms_are_of_a_seeded_sample(tmp_path):
    path = write(tmp_path / "s", with_sinks(20_000), rows_per_shard=None, piece=5000)
    whole = command("info", path)
    strip_norms(path)
    assert ShardedRows(path).columns == []
    said = command("info", path)
    assert said == command("info", path)
    assert "(all 20,000 rows)" in whole
    assert "(a sample of 8,192 of 20,000 rows)" in said
    assert "above 10 × the median norm" in said


def test_verify_recomputes_the_norms(tmp_path):
    path = write(tmp_path / "s", with_sinks(50), rows_per_shard=50)
    file = path / "activations-00000.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["norms"][7] += 1
    safetensors.torch.save_file(tensors, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    edit(path, shards=[{"file": file.name, "rows": 50, "bytes": file.stat().st_size, "sha256": digest}])
    with pytest.raises(UserError, match=r"the norms in .*00000.* are not those of its rows"):
        verify(path)
