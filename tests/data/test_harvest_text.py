"""Documents: the same ones in the same order, whatever holds them, and one line for what cannot be read."""

import bz2
import gzip
import json
import lzma
import random
import sys

import pytest

from saelight.data.harvest.corpus import Corpus
from saelight.data.harvest.text_settings import TextSettings
from saelight.errors import UserError

TEXTS = ["One.", "Two words.", "Über drei Wörter."]
IDS = [[5, 6, 7], [8], [9, 10]]


def corpus(*files, **settings):
    return Corpus(TextSettings([str(file) for file in files], **settings))


def contents(*files, **settings):
    documents = list(corpus(*files, **settings))
    assert [document.id for document in documents] == list(range(len(documents)))
    return [document.content for document in documents]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(path, **columns):
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), path, row_group_size=2)
    return path


@pytest.mark.parametrize(("column", "wanted"), [("text", TEXTS), ("input_ids", IDS)])
def test_rows_are_documents_in_their_order(column, wanted, tmp_path):
    rows = [{"n": i, column: value} for i, value in enumerate(wanted)]
    # An empty document is none, and a blank line no row.
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines([*rows, {column: None}, {column: wanted[0][:0]}]) + b"\n \n")
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        (tmp_path / f"a.ndjson{suffix}").write_bytes(pack(lines(rows)))
        assert contents(tmp_path / f"a.ndjson{suffix}") == wanted
    assert contents(tmp_path / "a.jsonl") == wanted
    assert contents(parquet(tmp_path / "a.parquet", n=[1, 2, 3, 4], **{column: [*wanted, None]})) == wanted
    (tmp_path / "a.json").write_bytes(lines(rows))
    assert contents(tmp_path / "a.json", column=column) == wanted


def test_kinds_of_columns(tmp_path):
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    parquet(path, text=pa.array(TEXTS).dictionary_encode(), tokens=pa.array([[1, 2]] * 3, pa.list_(pa.uint16(), 2)))
    assert contents(path) == TEXTS
    assert contents(path, column="tokens") == [[1, 2]] * 3
    # Where both are there, the text is read.
    (tmp_path / "b.jsonl").write_bytes(lines([{"input_ids": [1], "text": "One."}]))
    assert contents(tmp_path / "b.jsonl") == ["One."]


def test_folders_and_mixtures(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, text in zip(("a.txt", "deep/b.md", "deep/er/c"), TEXTS, strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "deep" / "packed.txt.gz").write_bytes(gzip.compress(b"Four."))
    assert sorted(contents(tmp_path)) == sorted([*TEXTS, "Four."])
    assert contents(tmp_path) == contents(tmp_path / "**")
    # Beside rows lie notes on them.
    (tmp_path / "deep" / "rows.jsonl").write_bytes(lines([{"text": "Five."}]))
    assert contents(tmp_path) == ["Five."]
    assert sorted(contents(tmp_path / "**")) == sorted([*TEXTS, "Four.", "Five."])
    assert contents(tmp_path / "**", seed=3) != contents(tmp_path / "**")
    documents = corpus(tmp_path / "**")
    assert list(documents) == list(documents)


PARQUET = "is damaged, or no Parquet"


@pytest.mark.parametrize(
    ("name", "data", "settings", "line"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', {}, r"a.jsonl, line 2, is damaged, or no JSON \(Expecting"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "\xff"}\n', {}, "a.jsonl, line 3, is damaged, or no JSON"),
        ("a.jsonl", b"[" * 100_000, {}, "a.jsonl, line 1, is damaged, or no JSON"),
        ("a.jsonl", b"[1, 2]\n", {}, "line 1, holds list, no object; write each document as"),
        ("a.jsonl", b"\n", {}, "a.jsonl is empty; leave it out"),
        ("a.jsonl", lines([{"txt": "a", "n": 1}]), {}, "line 1, has no column text or input_ids, only txt, n; choose one"),
        ("a.jsonl", lines([{"text": "a"}]), {"column": "txet"}, "no column 'txet', only text; did you mean 'text'"),
        ("a.jsonl", lines([{"text": "a"}, {"n": 1}]), {}, "line 2, has no column 'text', only n"),
        ("a.jsonl", lines([{"text": 1.5}]), {}, "line 1: column 'text' holds float '1.5'; a document is"),
        ("a.jsonl", lines([{"text": {"en": "a"}}]), {}, "line 1: column 'text' holds dict .*; a document is"),
        ("a.jsonl", lines([{"input_ids": [1, True]}]), {}, "holds a list with bool 'True'; token ids are whole numbers"),
        (
            "a.jsonl.gz",
            gzip.compress(lines([{"text": "a" * 99}] * 99), mtime=0)[:-9],
            {},
            "a.jsonl.gz is damaged or ends too early",
        ),
        ("a.jsonl.gz", b"no gzip", {}, "a.jsonl.gz is damaged or ends too early"),
        ("a.jsonl.zst", b"", {}, "a.jsonl.zst is packed by zstd; unpack it"),
        ("a.parquet", b"PAR1 no", {}, PARQUET),
        ("a.parquet", {"n": [1]}, {}, "a.parquet has no column text or input_ids, only n; choose one with `column`"),
        ("a.parquet", {"text": ["a"], "n": [1]}, {"column": "m"}, "has no column 'm', only text, n; choose one of these"),
        ("a.parquet", {"text": [1.5]}, {}, "column 'text' holds double; a document is a text or a list of token ids"),
        ("a.parquet", {"input_ids": [[[1]]]}, {}, "column 'input_ids' holds list<.*; a document is"),
        ("a.parquet", {"input_ids": [[1, None]]}, {}, "row 0: column 'input_ids' holds a list with NoneType 'None'"),
    ],
)
def test_what_cannot_be_read_is_one_line(name, data, settings, line, tmp_path):
    path = tmp_path / name
    if isinstance(data, dict):
        parquet(path, **data)
    else:
        path.write_bytes(data)
    with pytest.raises(UserError, match=line) as caught:
        list(corpus(path, **settings))
    assert "\n" not in str(caught.value)


def test_a_parquet_file_that_is_cut_off_is_refused_before_anything_is_read(tmp_path):
    whole = parquet(tmp_path / "a.parquet", text=TEXTS).read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    with pytest.raises(UserError, match=PARQUET):
        corpus(tmp_path / "a.parquet")


def test_rows_of_several_files_are_told_of_before_any_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": "a"}]))
    (tmp_path / "b.jsonl").write_bytes(lines([{"body": "b"}]))
    with pytest.raises(UserError, match=r"b\.jsonl, line 1, has no column"):
        corpus(tmp_path / "*.jsonl")


def test_without_pyarrow_and_datasets_the_extras_are_named(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet", text=TEXTS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"takes pyarrow: pip install 'saelight\[parquet\]'"):
        corpus(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"takes the datasets library; pip install 'saelight\[datasets\]'"):
        corpus("hf://owner/name")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.xz", ".parquet"])
def test_no_damage_is_more_than_one_line(suffix, tmp_path):
    rows = [{"text": text * 9, "n": i} for i, text in enumerate(TEXTS * 20)]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        parquet(path, text=[row["text"] for row in rows], input_ids=[[row["n"]] for row in rows])
    else:
        pack = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.xz": lzma.compress}[suffix]
        path.write_bytes(pack(lines(rows)))
    whole, gen, refused = path.read_bytes(), random.Random(0), []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(gen.randint(1, 3)):
            data[gen.randrange(len(data))] = gen.randrange(256)
        path.write_bytes(data[: gen.choice([len(data), gen.randrange(len(data))])])
        try:
            list(corpus(path))
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert [line for line in refused if "\n" in line or str(path) not in line] == []
