"""What is wrong with the contents of a folder of shards is said in one line, by whatever reads it."""

import json
import random
import re

import pytest
import safetensors.torch

from saelight.data.shards.metadata import read_metadata
from saelight.errors import UserError
from tests.data.damaged import METADATA, SHARD, check_refused
from tests.data.folders import edit_header, read, reseal, seal
from tests.support.commands import refused

REMOVED = object()


# --- metadata


def change(path, place, value):
    """Set what `place` (dotted) of the metadata names, or remove it, and keep the checksum true."""
    meta = json.loads((path / METADATA).read_text())
    *outer, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = meta
    for part in outer:
        inner = inner[part]
    if value is REMOVED:
        del inner[last]
    else:
        inner[last] = value
    seal(path / METADATA, json.dumps(meta, indent=1))


NAME = "a shard's file must be a plain name in this folder"
BAD_METADATA = [
    ("format", "other", "does not say format 'saelight-shards'; these are not saelight's shards"),
    ("format", [], "these are not saelight's shards"),
    ("version", 7, "written by a newer saelight: version 7, this one reads up to 1; upgrade saelight"),
    ("version", 0, "version must be greater than or equal to 1, it is 0"),
    ("version", "1", "version must be a valid integer, it is '1'"),
    ("version", True, "version must be a valid integer, it is True"),
    ("version", 1.0, "version must be a valid integer, it is 1.0"),
    *[
        (key, REMOVED, f"lacks {key}")
        for key in ("version", "model", "hook", "dtype", "d_in", "rows", "shards", "sums", "source")
    ],
    ("sha256", REMOVED, "has no checksum of itself"),
    ("model", None, "model must be a valid string, it is None"),
    ("hook", 5, "hook must be a valid string, it is 5"),
    ("model", "a\ud800", "half a character"),
    ("dtype", "int8", "dtype must be 'bfloat16', 'float16' or 'float32', it is 'int8'"),
    ("dtype", [], r"dtype must be .*, it is \[\]"),
    ("d_in", 0, "d_in must be greater than or equal to 1, it is 0"),
    ("d_in", 4.0, "d_in must be a valid integer, it is 4.0"),
    ("d_in", True, "d_in must be a valid integer, it is True"),
    ("d_in", 5, "sums.sum has 4 numbers, d_in is 5"),
    ("rows", 0, "rows must be greater than or equal to 1, it is 0"),
    ("rows", -250, "rows must be greater than or equal to 1"),
    ("rows", 250.0, "rows must be a valid integer, it is 250.0"),
    ("rows", "250", "rows must be a valid integer, it is '250'"),
    ("rows", 251, "says 251 rows, its shards hold 250"),
    ("rows", 10**400, r"rows must be .*0{20}…"),
    ("shards", None, "shards must be a valid list, it is None"),
    ("shards", {}, "shards must be a valid list, it is {}"),
    ("shards", [], "says 250 rows, its shards hold 0"),
    ("shards.1", None, "shards.1 must be a valid object, it is None"),
    ("shards.1", REMOVED, "says 250 rows, its shards hold 150"),
    *[(f"shards.1.{key}", REMOVED, rf"lacks shards\.1\.{key}") for key in ("file", "rows", "bytes", "sha256")],
    ("shards.1.rows", 100.0, r"shards\.1\.rows must be a valid integer, it is 100.0"),
    ("shards.1.rows", -100, r"shards\.1\.rows must be greater than or equal to 0"),
    ("shards.1.rows", 99, "says 250 rows, its shards hold 249"),
    ("shards.1.bytes", 3.5, r"shards\.1\.bytes must be a valid integer"),
    ("shards.1.bytes", 5, f"{SHARD} has 100 rows in .* bytes, metadata.json says 100 in 5"),
    ("shards.1.sha256", None, r"shards\.1\.sha256 must be a valid string, it is None"),
    ("shards.1.sha256", "0" * 63, r"shards\.1\.sha256 .*must match pattern"),
    ("shards.1.sha256", "F" * 64, r"shards\.1\.sha256 .*must match pattern"),
    ("shards.1.file", "activations-00000.safetensors", "lists 'activations-00000.safetensors' twice"),
    ("shards.1.file", "other.safetensors", "other.safetensors is missing from .*; copy the folder whole"),
    ("shards.1.file", METADATA, "metadata.json is damaged, or no safetensors file|ends? inside its header"),
    ("shards.1.file", None, r"shards\.1\.file must be a valid string, it is None"),
    ("shards.1.file", 5, r"shards\.1\.file must be a valid string, it is 5"),
    ("shards.1.file", "", rf"{NAME}, it is ''"),
    ("shards.1.file", ".", rf"{NAME}, it is '\.'"),
    ("shards.1.file", "..", rf"{NAME}, it is '\.\.'"),
    ("shards.1.file", "../s/" + SHARD, NAME),
    ("shards.1.file", "./" + SHARD, NAME),
    ("shards.1.file", "/etc/passwd", rf"{NAME}, it is '/etc/passwd'"),
    ("shards.1.file", "..\\" + SHARD, NAME),
    ("shards.1.file", SHARD + "\0", NAME),
    ("shards.1.file", "a\nb", rf"{NAME}, it is 'a\\nb'"),
    ("shards.1.file", "a" * 5000, rf"{NAME}, it is 'a+…'"),
    *[("sums", value, f"sums must be a valid object, it is {re.escape(repr(value))}") for value in (None, [], 5)],
    ("sums", {}, r"lacks sums\.count"),
    *[(f"sums.{key}", REMOVED, rf"lacks sums\.{key}") for key in ("count", "sum_of_squares", "sum")],
    ("sums.count", 0, r"sums\.count must be greater than or equal to 1"),
    ("sums.count", 249, r"sums\.count is 249, rows is 250"),
    ("sums.count", 250.0, r"sums\.count must be a valid integer"),
    ("sums.sum", None, r"sums\.sum must be a valid list"),
    ("sums.sum", [1.0, 2.0, 3.0], r"sums\.sum has 3 numbers, d_in is 4"),
    ("sums.sum.2", "1", r"sums\.sum\.2 must be a valid number, it is '1'"),
    ("sums.sum.2", True, r"sums\.sum\.2 must be a valid number, it is True"),
    ("sums.sum.2", float("nan"), "NaN is no JSON number"),
    ("sums.sum.2", 10**400, r"sums\.sum\.2 must be a"),
    ("sums.sum.2", 1e300, "no rows have these sums"),
    ("sums.sum_of_squares", float("inf"), "Infinity is no JSON number"),
    ("sums.sum_of_squares", -1.0, r"sums\.sum_of_squares must be greater than or equal to 0"),
    ("sums.sum_of_squares", 0.0, "no rows have these sums"),
    ("source", None, "source must be a valid object, it is None"),
    ("source", "me", "source must be a valid object, it is 'me'"),
    ("source", {"filtered": 5}, "source: filtered must be a list, it is 5"),
    ("source", {"note": float("nan")}, "NaN is no JSON number"),
    ("dropped", None, "dropped must be a valid list"),
    ("dropped", [5], r"dropped\.0 must be a valid object"),
    ("dropped.0.reasons", [], r"dropped\.0\.reasons must be a valid object"),
    ("dropped.0.reasons.token.rows", "1", r"dropped\.0\.reasons\.token\.rows must be a valid integer"),
    ("dropped.0.limit", "x", r"dropped\.0\.limit must be a valid number"),
    ("dropped.0.share", REMOVED, r"lacks dropped\.0\.share"),
]


@pytest.mark.parametrize(("place", "value", "message"), BAD_METADATA)
def test_bad_metadata(path, place, value, message):
    change(path, place, value)
    check_refused(path, message)


NESTED = "[" * 100_000 + "]" * 100_000
BAD_TEXTS = [
    ("", "is no JSON"),
    ("{", "is no JSON"),
    ("null", "does not say format"),
    ("[]", "does not say format"),
    (NESTED, "nested too deeply"),
    ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
    ('{"format": "saelight-shards", "a": ' + "[" * 50 + "]" * 50 + "}", "nested too deeply"),
    ('{"format": "saelight-shards", "rows": 1, "rows": 2}', "the key 'rows' is there twice"),
    ('{"format": "saelight-shards", "rows": 1e999}', "the number '1e999' is beyond float64"),
    ('{"format": "saelight-shards", "rows": ' + "9" * 5000 + "}", "is no JSON"),
    ('\ufeff{"format": "saelight-shards"}', "is no JSON"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_metadata_that_are_no_json(path, text, message):
    (path / METADATA).write_text(text)
    check_refused(path, message)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_metadata_are_utf_8(path, encoding):
    (path / METADATA).write_text((path / METADATA).read_text(), encoding=encoding)
    check_refused(path, "is no JSON")


def test_deep_metadata_with_a_true_checksum(path):
    text = (path / METADATA).read_text()
    seal(path / METADATA, text.replace('"made by a test"', NESTED))
    check_refused(path, "nested too deeply")


def test_no_changed_bit_of_the_metadata_passes(path):
    chance, file = random.Random(0), path / METADATA
    raw = file.read_bytes()
    for at in chance.sample(range(len(raw)), 100):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(UserError):
            read_metadata(path)
    file.write_bytes(raw)
    assert read_metadata(path)["rows"] == 250


def test_edited_metadata_are_refused(path):
    file = path / METADATA
    file.write_text(file.read_text().replace("made by a test", "made by no test"))
    check_refused(path, "is damaged or was edited: its checksum does not hold")


# --- headers


def _tensor(**changes):
    return lambda header: header["activations"].update(changes)


def _offsets(name, change_offsets):
    return lambda header: header[name].update(data_offsets=change_offsets(*header[name]["data_offsets"]))


def _rename(old, new):
    return lambda header: header.update({new: header.pop(old)})


def _without(name):
    return lambda header: header.pop(name) and None


def _overlap(header):
    header["positions"]["data_offsets"] = header["token_ids"]["data_offsets"]


BAD_HEADERS = [
    (lambda header: "xy", "damaged, or no safetensors file"),
    (lambda header: "[]", "damaged, or no safetensors file .*must be a valid object"),
    (lambda header: "{}", "too long|no tensor 'activations'"),
    (lambda header: NESTED, "nested too deeply"),
    (lambda header: json.dumps(header)[:-1] + ', "norms": {}}', "the key 'norms' is there twice"),
    (lambda header: header.update(__metadata__={"a": 1}), "a must be a valid string, it is 1"),
    (lambda header: header.update(__metadata__=[]), "must be a valid object"),
    (lambda header: header.update(activations=None), "activations must be a valid object, it is None"),
    (_tensor(dtype=None), r"activations\.dtype must be a valid string"),
    (_tensor(dtype="F16"), "mixed dtype .*holds 'F16', metadata.json says float32"),
    (_tensor(dtype="F" * 5000), "mixed dtype .*holds 'F+…'"),
    (_tensor(shape=None), r"activations\.shape must be a valid list, it is None"),
    (_tensor(shape=[]), r"mixed width .*holds \[\], metadata.json says d_in 4"),
    (_tensor(shape=[100.0, 4.0]), r"activations\.shape\.0 must be a valid integer, it is 100.0"),
    (_tensor(shape=[100, True]), r"activations\.shape\.1 must be a valid integer"),
    (_tensor(shape=[-100, -4]), r"activations\.shape\.0 must be greater than or equal to 0"),
    (_tensor(shape=[100, 4, 1]), "mixed width"),
    (_tensor(shape=[80, 5]), r"mixed width .*holds \[80, 5\], metadata.json says d_in 4"),
    (_tensor(shape=[99, 4]), "has 99 rows in .*metadata.json says 100"),
    (_tensor(shape=[10**30, 4]), "must be less than"),
    (_tensor(data_offsets=None), r"data_offsets must be a valid list"),
    (_tensor(data_offsets=[]), r"data_offsets .*at least 2"),
    (_tensor(data_offsets=[1600]), r"data_offsets .*at least 2"),
    (_tensor(data_offsets=[0, 800, 1600]), r"data_offsets .*at most 2"),
    (_tensor(data_offsets={"0": 1}), r"data_offsets must be a valid list"),
    (_offsets("activations", lambda a, b: [float(a), float(b)]), r"data_offsets\.0 must be a valid integer"),
    (_offsets("activations", lambda a, b: [-a, b]), r"data_offsets\.0 must be greater than or equal to 0"),
    (_offsets("activations", lambda a, b: [b, a]), "'activations' lies at bytes .*, it must begin at"),
    (_offsets("activations", lambda a, b: [a, b + 4]), "truncated"),
    (_offsets("activations", lambda a, b: [a, b - 4]), "too long"),
    (_offsets("activations", lambda a, b: [a + 4, b]), "lies at bytes .*, it must begin at"),
    (_offsets("norms", lambda a, b: [a - 4, b]), "lies at bytes .*, it must begin at"),
    (_overlap, "lies at bytes .*, it must begin at"),
    (_without("activations"), "too long"),
    (_without("norms"), "lies at bytes"),
    (lambda header: header.update(norms={"shape": [100], "data_offsets": [0, 400]}), r"lacks norms\.dtype"),
    (lambda header: header["norms"].update(dtype="I32"), r"norms must be F32 \[100\] in 400 bytes, it is 'I32'"),
    (lambda header: header["norms"].update(shape=[50]), r"norms must be F32 \[100\] in 400 bytes, it is 'F32' \[50\]"),
    (lambda header: header["document_ids"].update(dtype="F64"), "document_ids must be I64"),
    (_rename("norms", "nprms"), "holds 'nprms', which no shard has"),
    (_rename("document_ids", "a\nb" + "c" * 5000), r"holds 'a\\nbc+…', which no shard has"),
    (_rename("activations", "activation"), "has no tensor 'activations'"),
]


@pytest.mark.parametrize(("damage", "message"), BAD_HEADERS, ids=range(len(BAD_HEADERS)))
def test_bad_headers(path, damage, message):
    edit_header(path, 1, damage)
    check_refused(path, message)


def _cut(path, size):
    raw = (path / SHARD).read_bytes()
    (path / SHARD).write_bytes(raw + b"more" if size is None else raw[:size])


def _drop_column(path):
    tensors = safetensors.torch.load_file(path / SHARD)
    del tensors["norms"]
    safetensors.torch.save_file(tensors, path / SHARD)
    reseal(path)


def _long_header(path):
    with (path / SHARD).open("r+b") as file:
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate(2 << 30)  # a hole: it takes no room


BAD_FILES = [
    (lambda p: (p / SHARD).unlink(), f"{SHARD} is missing from"),
    (lambda p: (p / METADATA).unlink(), "no shards at .*: metadata.json is missing; point to a folder that"),
    (lambda p: _cut(p, -8), f"{SHARD} is truncated"),
    (lambda p: _cut(p, 20), "truncated: 20 bytes end inside its header"),
    (lambda p: _cut(p, 0), "truncated: 0 bytes"),
    (lambda p: _cut(p, None), f"{SHARD} is too long"),
    (_drop_column, "differ in their columns"),
    (_long_header, "no safetensors file .a header of 1073741824 bytes"),
]


@pytest.mark.parametrize(("damage", "message"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_bad_files(path, damage, message):
    damage(path)
    check_refused(path, message)


# --- what the columns say


def test_decreasing_documents(path):
    assert read(path)[1]["document_ids"][120] == 12
    _set_document(path, row=120, value=3)
    check_refused(path, rf"document_ids decrease at .*{SHARD}, row 20: rows of one document must lie together")


def test_a_decrease_from_shard_to_shard(path):
    for row in range(100, 110):
        _set_document(path, row=row, value=8)
    check_refused(path, rf"document_ids decrease at .*{SHARD}, row 0")


def _set_document(path, row, value):
    file = path / f"activations-{row // 100:05d}.safetensors"
    raw = bytearray(file.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    at = 8 + length + json.loads(raw[8 : 8 + length])["document_ids"]["data_offsets"][0] + 8 * (row % 100)
    raw[at : at + 8] = value.to_bytes(8, "little")
    file.write_bytes(raw)
    reseal(path)


def test_commands_say_it_in_one_line(path, capsys):
    change(path, "rows", 250.0)
    for command in ("verify", "info"):
        assert "rows must be a valid integer, it is 250.0" in refused(capsys, "shards", command, str(path))
