"""Files of other tools that are damaged, odd, or of something else: right, or one line with the remedy."""

import os
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from saelight.data.datamodule import ActivationDataModule
from saelight.data.foreign.converting import convert
from saelight.data.foreign.opening import open_rows
from saelight.data.foreign.parquet_file import SUFFIX
from saelight.errors import UserError
from tests.data import foreign_files
from tests.data.foreign_files import CONTEXT, CONTEXTS, D, N, X
from tests.data.foreign_makers import (
    Make,
    appended,
    both,
    compressed_arrow,
    cut,
    edited,
    layer_file,
    link,
    npy,
    npz,
    parquet,
    pickled_chunks,
    tensors,
    text,
)
from tests.support.commands import refused

pytestmark = pytest.mark.usefixtures("nothing_waits")


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


SAEV, MEMMAPS, MOSS, LENS = foreign_files.saev, foreign_files.memmaps, foreign_files.openmoss, foreign_files.sae_lens
HOOK = "blocks.3.hook_resid_post"
CHUNK = f"{HOOK}/shard-0-chunk-00000000.safetensors"
CONVERT = "write it once as shards: `saelight shards convert"

REFUSED: dict[str, tuple[Make, str, str]] = {
    "nothing there": (lambda _: None, "x.npy", "there is no such file; check the path"),
    "a text": (text("x.txt", "1 2 3"), "x.txt", "it is a file; point to the folder of the shards, or to a file"),
    "a text called npy": (text("x.npy", "1 2 3"), "x.npy", "is damaged, or no .npy file"),
    "an empty npy": (text("x.npy", ""), "x.npy", "is damaged, or no .npy file"),
    "an empty folder": (lambda _: None, ".", "metadata.json is missing"),
    "a broken link": (link, ".", "x.npy is missing from"),
    "one dimension": (npy(X[0]), "x.npy", r"has shape \(6,\); activations are rows × width: save x.reshape\(-1, width\)"),
    "three dimensions": (npy(X.reshape(10, -1, D)), "x.npy", r"has shape \(10, 130, 6\); activations are"),
    "no dimension": (npy(3.0), "x.npy", r"has shape \(\); activations are"),
    "no rows": (npy(X[:0]), "x.npy", r"is empty: its shape is \(0, 6\)"),
    "no width": (npy(X[:, :0]), "x.npy", r"is empty: its shape is \(1300, 0\)"),
    "int8": (npy(X.astype("i1")), "x.npy", "holds int8: quantised activations need their scales"),
    "uint8": (npy(X.astype("u1")), "x.npy", "holds uint8: quantised"),
    "bool": (npy(X > 0), "x.npy", "holds bool: quantised"),
    "complex": (npy(X.astype("c8")), "x.npy", "holds complex64; activations are float16, bfloat16"),
    "records": (npy(np.zeros(3, [("a", "f4")])), "x.npy", "has shape"),
    "bits without a name": (npy(X.astype("f2").view("V2")), "x.npy", "holds .V2; activations are"),
    "objects": (
        npy(np.array([[1, "a"], [None, 2]], object)),
        "x.npy",
        "holds Python objects, which saelight never unpickles",
    ),
    "objects in an npz": (npz(x=np.array([[1, "a"]], object)), "x.npz", "holds Python objects, which saelight never"),
    "columns side by side": (
        npy(np.asfortranarray(X)),
        "x.npy",
        rf"stored by columns \(Fortran order\); {CONVERT} .*x.npy OUT`",
    ),
    "a cut npy": (cut(npy(X), "x.npy", 5000), "x.npy", "is truncated: 5000 bytes, its header says 31328"),
    "a cut header": (cut(npy(X), "x.npy", 40), "x.npy", "is damaged, or no .npy file"),
    "two arrays in a file": (appended(npy(X), "x.npy"), "x.npy", "has 31352 bytes, its header says 31328; save one array"),
    "a name in an npy": (npy(X), "x.npy:acts", "holds one array, without a name; leave out :acts"),
    "a layer in an npy": (npy(X), "x.npy@3", "has no layers to choose from; leave out @3"),
    "a compressed npz": (
        lambda folder: np.savez_compressed(folder / "x.npz", x=X),
        "x.npz",
        rf"x.npz:x is compressed; {CONVERT} .*x.npz OUT`",
    ),
    "several in an npz": (npz(a=X, b=X), "x.npz", r"has several arrays \(a \(1300, 6\), b .*\); say which, as .*x.npz:a"),
    "another in an npz": (npz(acts=X, b=X), "x.npz:actz", "has no array 'actz'; did you mean 'acts'.: it has acts, b"),
    "none in an npz": (npz(), "x.npz", "holds no arrays"),
    "only vectors": (npz(a=X[0], b=X[1]), "x.npz", "has no array of rows × width: it has a"),
    "a cut npz": (cut(npz(x=X), "x.npz", 5000), "x.npz", "is damaged, or no .npz file"),
    "tokens too few": (npz(x=X, tokens=np.arange(9)), "x.npz", "x.npz:tokens has 9 numbers for 1300 rows; one per row"),
    "tokens with fractions": (
        both(npy(X), npy(X[:, 0], "tokens.npy")),
        ".",
        "tokens.npy holds float32, where whole numbers",
    ),
    "documents mixed": (
        npz(x=X, document_ids=np.arange(N) % 7),
        "x.npz",
        "document_ids decrease at .* sort the rows by document",
    ),
    "float8": (tensors(x=zeros(4, 4).to(torch.float8_e4m3fn)), "x.safetensors", "holds F8_E4M3; activations are"),
    "an int tensor": (tensors(x=zeros(4, 4).char()), "x.safetensors", "holds int8: quantised"),
    "several tensors": (tensors(x=zeros(4, 4), y=zeros(4, 3)), "x.safetensors", r"several arrays \(x .*\); say which, as"),
    "no tensor": (tensors(), "x.safetensors", "holds no tensors"),
    "tensors of one dimension": (tensors(bias=zeros(4), b=zeros(4)), "x.safetensors", "has no array of rows × width"),
    "a cut tensor": (cut(tensors(x=zeros(99, 4)), "x.safetensors", 500), "x.safetensors", "is truncated: 500 bytes"),
    "own shards without metadata": (
        lambda folder: save_file({"activations": zeros(4, 4)}, folder / "activations-00000.safetensors"),
        ".",
        "metadata.json is missing",
    ),
    "a folder of folders": (
        both(
            text("a/x.txt", "1"),
            npy(X, "b.npy"),
            lambda folder: ((folder / "b").mkdir(), (folder / "b.npy").rename(folder / "b/b.npy")),
        ),
        ".",
        r"no activations in .* itself, only in folders in it \(b\); name one of them",
    ),
    "two kinds": (both(npy(X), tensors(x=zeros(4, 4))), ".", r"holds 1 × .npy and 1 × .safetensors; keep each kind"),
    "two widths": (both(npy(X, "a.npy"), npy(X[:, :3], "b.npy")), ".", "different width: a.npy has 6, b.npy has 3"),
    "two dtypes": (both(npy(X, "a.npy"), npy(X.astype("f2"), "b.npy")), ".", "different dtype: a.npy has torch.float32"),
    "tokens alone": (npy(np.arange(9), "tokens.npy"), ".", "holds no activations, only tokens.npy"),
    "tokens of fewer": (both(npy(X), npy(np.arange(9), "tokens.npy")), ".", "tokens.npy has 9 numbers for 1300 rows"),
    "a text called parquet": (text(f"x{SUFFIX}", "PAR1"), "x.parquet", "is damaged, or no Parquet"),
    "a cut parquet": (cut(parquet(a=list(X)), "x.parquet", 5000), "x.parquet", "is damaged, or no Parquet"),
    "ragged lists": (parquet(a=[[1.0, 2.0], [1.0]]), "x.parquet", "has lists of different lengths: 2 and, at 1, 1"),
    "ragged far away": (
        parquet(a=[[1.0, 2.0]] * 9000 + [[1.0]] * 9000),
        "x.parquet",
        "has lists of different lengths: 2 and",
    ),
    "empty lists": (parquet(a=pa.array([[]], pa.list_(pa.float32()))), "x.parquet", "has empty lists"),
    "a missing list": (parquet(a=[[1.0, 2.0], None]), "x.parquet", "has 1 missing values"),
    "a missing number": (parquet(a=[[1.0, 2.0], [None, 1.0]]), "x.parquet", "has 1 missing values"),
    "a missing dimension": (parquet(a=[1.0, None], b=[1.0, 2.0]), "x.parquet", "x.parquet:a has 1 missing values"),
    "no rows in parquet": (parquet(a=pa.array([], pa.list_(pa.float32()))), "x.parquet", "has no rows"),
    "no floats": (parquet(a=["x"], b=[1]), "x.parquet", "has no column of lists of floats, .*a string, b int64"),
    "a dimension of ints": (parquet(a=[1.0], b=[1]), "x.parquet", "its columns are not all floats .*a double, b int64"),
    "lists of ints": (parquet(a=[[1, 2]]), "x.parquet:a", "x.parquet:a holds int64: quantised"),
    "lists of lists": (parquet(a=[[[1.0]]]), "x.parquet:a", "x.parquet:a holds .*; rows are lists of floats"),
    "one column twice": (parquet(["a", "a"], b=[1.0], c=[2.0]), "x.parquet", "has several columns 'a'; name each once"),
    "several lists": (
        parquet(a=[[1.0]], b=[[1.0]]),
        "x.parquet",
        r"has several columns \(a, b\); say which, as .*x.parquet:a",
    ),
    "another column": (parquet(acts=[[1.0]]), "x.parquet:act", "has no column 'act'; did you mean 'acts'.: it has acts"),
    "several layers": (
        parquet(a=[[1.0], [2.0]], layer_idx=[3, 4]),
        "x.parquet",
        r"several layers \(3, 4\); say which, as .*@3",
    ),
    "another layer": (parquet(a=[[1.0], [2.0]], layer_idx=[3, 4]), "x.parquet@5", "has no layer 5: it has 3, 4"),
    "layers by name": (
        parquet(a=[[1.0], [2.0]], layer=["x", "y"]),
        "x.parquet",
        "x.parquet:layer holds (large_)?string; layers are chosen by whole numbers",
    ),
    "a layer in each file": (
        both(layer_file(3), layer_file(4)),
        ".",
        "different layer: x3.parquet has 3, x4.parquet has 4; keep each kind in a folder of its own",
    ),
    "no layers": (parquet(a=[[1.0], [2.0]]), "x.parquet@5", "has no layers to choose from; leave out @5"),
    "saev, no layer said": (SAEV, ".", r"has several layers \(11, 23\); say which, as .*@11"),
    "saev, another layer": (SAEV, ".@12", "has no layer 12: it has 11, 23"),
    "saev, a cut file": (
        cut(SAEV, "acts000001.bin", 999),
        ".@23",
        "has 999 bytes and 40 examples; metadata.json says 24960 bytes",
    ),
    "saev, unfinished": (
        edited(SAEV, "metadata.json", n_examples=140),
        ".@23",
        "counts 100 examples, metadata.json says 140",
    ),
    "saev, no width": (
        edited(SAEV, "metadata.json", d_model=0),
        ".@23",
        "metadata.json is damaged, or something else .d_model",
    ),
    "saev, no sizes": (edited(SAEV, "metadata.json", max_tokens_per_shard=None), ".@23", "metadata.json is damaged"),
    "saev, far names": (
        both(SAEV, text("shards.json", '[{"name": "../a.bin", "n_examples": 40}]')),
        ".@23",
        "shards.json is damaged, or something else .*plain name",
    ),
    "saev, a lost file": (
        both(SAEV, lambda folder: (folder / "acts000000.bin").unlink()),
        ".@11",
        "acts000000.bin is missing",
    ),
    "arrow, a cut stream": (cut(LENS, "data-00001-of-00004.arrow", 700), ".", "is damaged, or no Arrow stream|is empty"),
    "arrow, an empty file": (cut(LENS, "data-00001-of-00004.arrow", 0), ".", "data-00001-of-00004.arrow is empty"),
    "arrow, a lost file": (
        both(LENS, lambda folder: (folder / "data-00000-of-00004.arrow").unlink()),
        ".",
        "is missing from",
    ),
    "arrow, no files": (text("state.json", '{"_data_files": []}'), ".", "state.json is damaged, or something else"),
    "arrow, splits": (text("dataset_dict.json", '{"splits": ["train"]}'), ".", "several splits of a data set; name one"),
    "arrow, a choice": (
        edited(LENS, "state.json", _indices_data_files=[{"filename": "i.arrow"}]),
        ".",
        "is a choice of a data set's rows; write it anew with flatten_indices",
    ),
    "arrow, another column": (LENS, ".:blocks.4.hook_resid_post", "has no column .*did you mean 'blocks.3.hook_resid_post'"),
    "arrow, compressed": (compressed_arrow, ".", f"is compressed; {CONVERT}"),
    "openmoss, a cut chunk": (cut(MOSS, CHUNK, 999), ".", "is truncated|ends? inside its header"),
    "openmoss, another hook": (MOSS, ".:blocks.4.hook_resid_post", "has no hook .*did you mean"),
    "openmoss, a hook's folder": (MOSS, f"{HOOK}:x", "is the folder of one hook; leave out :x"),
    "openmoss, pickled": (pickled_chunks, ".", f"is pickled by torch.save; {CONVERT}"),
    "openmoss, no activation": (
        lambda folder: save_file({"tokens": zeros(3)}, folder / "chunk-00000000.safetensors"),
        ".",
        "has no tensor 'activation': it has tokens",
    ),
    "openmoss, other tokens": (
        lambda folder: save_file(
            {"activation": zeros(2, 3, 4), "tokens": zeros(2, 4)}, folder / "chunk-00000000.safetensors"
        ),
        ".",
        r"tokens has shape \(2, 4\), activation is of \(2, 3\) tokens",
    ),
    "memmap, a cut file": (
        cut(MEMMAPS, "layer_3_out/shard_1.memmap", 99),
        "layer_3_out",
        "has 99 bytes, shard_1.meta says 9600",
    ),
    "memmap, a lost file": (
        both(MEMMAPS, lambda folder: (folder / "layer_3_out/shard_1.memmap").unlink()),
        "layer_3_out",
        "shard_1.memmap is missing",
    ),
    "memmap, a lost shard": (
        edited(MEMMAPS, "layer_3_out/config.json", shard_count=3),
        "layer_3_out",
        "has 2 shards, config.json says 3; copy the folder whole",
    ),
    "memmap, int8": (
        edited(MEMMAPS, "layer_3_out/shard_0.meta", dtype="torch.int8"),
        "layer_3_out",
        "holds int8: quantised",
    ),
    "memmap, no shape": (both(MEMMAPS, text("layer_3_out/shard_0.meta", "{}")), "layer_3_out", "shard_0.meta is damaged"),
    "memmap, other tokens": (
        both(MEMMAPS, lambda folder: torch.save(torch.arange(9), folder / "tokens.pt")),
        "layer_3_out",
        "tokens.pt has 9 tokens for the 1300 rows",
    ),
    "memmap, pickled code": (
        both(MEMMAPS, lambda folder: torch.save(print, folder / "tokens.pt")),
        "layer_3_out",
        "tokens.pt is damaged, or holds more than a tensor",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_one_line(what, tmp_path):
    make, name, line = REFUSED[what]
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    address = str(folder) + name.removeprefix(".") if name.startswith(".") else f"{folder}/{name}"
    with pytest.raises(UserError, match=line) as caught:
        open_rows(address)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


CONVERTED = {
    "columns side by side": N,
    "a compressed npz": N,
    "arrow, compressed": N,
    "openmoss, pickled": N,
}


@pytest.mark.parametrize("what", CONVERTED)
def test_what_is_not_read_in_place_is_converted(what, tmp_path):
    make, name, _ = REFUSED[what]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    convert(tmp_path / "data" / name, tmp_path / "out")
    rows = open_rows(tmp_path / "out")
    rows.read(0, x_ND := torch.empty(N, D))
    assert np.array_equal(x_ND.numpy(), X)


def test_commands_say_it_too(tmp_path, capsys):
    npy(X.astype("i1"))(tmp_path)
    path = str(tmp_path / "x.npy")
    for command in (["info", path], ["verify", path], ["filter", path, "out"], ["convert", path, "out"]):
        assert "holds int8: quantised" in refused(capsys, "shards", *command)
    assert "no activations at nothing: there is no such file or folder" in refused(
        capsys, "shards", "convert", "nothing", "out"
    )
    assert not list(tmp_path.glob("out*"))


def test_a_value_that_is_not_finite(tmp_path, capsys):
    x = X.astype("f8")
    x[700, 3] = 1e300  # no float32
    np.save(tmp_path / "x.npy", x)
    path = str(tmp_path / "x.npy")
    data = ActivationDataModule(path, batch_size=100, normalise="none", val_fraction=0)
    with pytest.raises(UserError, match=r"NaN or infinite activations: .*x.npy, row 700"):
        list(data.train_dataloader())
    assert "x.npy, row 700; write them again without" in refused(capsys, "shards", "verify", path)
    assert "NaN or infinite activation in row 700" in refused(capsys, "shards", "convert", path, "out")


def test_files_that_change_under_the_run(tmp_path):
    np.save(tmp_path / "x.npy", X)
    for size in (5000, 40_000):
        rows = open_rows(tmp_path / "x.npy")
        os.truncate(tmp_path / "x.npy", size)
        with pytest.raises(UserError, match=f"had 31328 bytes when it was opened and now has {size}"):
            rows.read(0, torch.empty(N, D))
        np.save(tmp_path / "x.npy", X)
    rows = open_rows(tmp_path / "x.npy")
    rows.read(0, torch.empty(10, D))
    os.truncate(tmp_path / "x.npy", 5000)
    with pytest.raises(UserError, match="became shorter while it was read"):
        rows.read(0, torch.empty(N, D))


def test_without_pyarrow(tmp_path, monkeypatch):
    foreign_files.parquet_lists(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"takes pyarrow: pip install 'saelight\[parquet\]'"):
        open_rows(tmp_path / "x.parquet")


def test_large_parquet_is_converted(tmp_path, monkeypatch):
    made = foreign_files.parquet_layers(tmp_path)
    monkeypatch.setattr("saelight.data.foreign.foreign_rows._HELD_BYTES", X.nbytes - 1)
    with pytest.raises(UserError, match=rf"too large to be decoded into memory; {CONVERT} .*x.parquet:h@7 OUT`"):
        open_rows(made.address)
    assert f"{CONTEXT * CONTEXTS:,} rows" in convert(made.address, tmp_path / "out")
