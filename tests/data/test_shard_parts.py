"""A shard folder written in parts, by processes of their own: merged without a copy, and gone on with after a kill."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from saelight.data.row_filter import Piece, RowFilter
from saelight.data.shards.folder_part import Part, SharedFolder
from saelight.data.shards.merging import merge
from saelight.data.shards.part_writer import PartWriter
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.verify import verify
from saelight.errors import UserError
from tests.data.folders import counted, read, write
from tests.data.part_harvests import HOOKS, KILLED, harvested
from tests.support.commands import refused

N = 1000
SETTINGS = {"model": "test", "hook": "layer", "dtype": "float32", "d_in": 4, "source": {"note": "a"}}


def write_part(out, number, of=3, stop=None, settings=SETTINGS, rows_per_shard=70):
    """Write a part of `counted(N)`, from where it was; killed after `stop` rows, if at all."""
    part = Part(number, of)
    mine, documents = part.share(counted(N)), part.share(torch.arange(N) // 11)
    with PartWriter(out, part, rows_per_shard=rows_per_shard, **settings) as writer:
        for start in range(0, len(mine), 37):
            if stop is not None and start >= stop:
                raise KeyboardInterrupt
            writer.append(mine[start : start + 37], document_ids=documents[start : start + 37])
        writer.source["documents"] = 1


@pytest.mark.parametrize("url", [False, True])
def test_parts_become_the_folder_that_one_writer_makes(tmp_path, url):
    out = f"memory://{tmp_path.name}/s" if url else tmp_path / "s"
    for number in (3, 1):
        write_part(out, number)
    with pytest.raises(UserError, match=r"s is not whole yet: of 3 parts 2 is not done; harvest these parts, then merge"):
        merge(out)
    with pytest.raises(KeyboardInterrupt):
        write_part(out, 2, stop=200)
    with pytest.raises(UserError, match="2 is not done"):
        merge(out)
    write_part(out, 2)
    before = None if url else {path.name: path.stat().st_ino for path in (tmp_path / "s.partial").glob("*.safetensors")}
    assert merge(out) == f"1,000 rows of 3 parts in {out}: 15 shards"
    x, columns = read(out)
    assert torch.equal(x, counted(N))
    assert torch.equal(columns["document_ids"], torch.arange(N) // 11)
    assert "checksums, finite values and sums hold" in verify(out)
    assert ShardedRows(out).source["documents"] == 3
    if not url:
        assert {path.name: path.stat().st_ino for path in (tmp_path / "s").glob("*.safetensors")} == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]
        assert not [path.name for path in (tmp_path / "s").iterdir() if not re.search("activations|metadata", path.name)]
    with pytest.raises(UserError, match="exists; choose another folder"):
        write_part(out, 2)
    with pytest.raises(UserError, match="exists"):
        merge(out)


@pytest.mark.parametrize("stop", [0, 111, 333])
def test_a_part_goes_on_at_its_last_whole_shard(tmp_path, stop):
    out = tmp_path / "s"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write_part(out, 1, of=1, stop=stop)
    write_part(out, 1, of=1)
    merge(out)
    write(tmp_path / "whole", counted(N), rows_per_shard=70, document=11)
    parts, whole = (ShardedRows(path) for path in (out, tmp_path / "whole"))
    assert parts.fingerprint == whole.fingerprint
    assert torch.equal(parts.sums.sum_D, whole.sums.sum_D)


def test_bad_parts_are_one_line(tmp_path, capsys):
    for text in ("0/4", "5/4", "1/0", "3", "1/4/2", "a/b", "", "-1/4"):
        with pytest.raises(UserError, match=re.escape(f"part {text!r} is none; write it as 3/16")):
            Part.parsed(text)
    assert "no parts of none" in refused(capsys, "shards", "merge", "none")
    out = tmp_path / "s"
    write_part(out, 1)
    with pytest.raises(UserError, match=r"holds part 1/3, this is part 1/4; finish those"):
        write_part(out, 1, of=4)
    for changed in ({"model": "other"}, {"source": {"note": "b"}}, {"dtype": "float16"}, {"d_in": 5}):
        with pytest.raises(UserError, match=rf"part 1/3 in .* has ({next(iter(changed))}|note) .*give all parts the same"):
            write_part(out, 2, settings=SETTINGS | changed)
    with pytest.raises(UserError, match=r"s.partial holds '.*', which no writer of shards left there"):
        write(out, counted(10))
    folder = SharedFolder(out)
    with PartWriter(out, Part(3, 3), **SETTINGS), pytest.raises(UserError, match="being written by another process"):
        write_part(out, 3)
    (folder.place / "part-00001-of-00003.json").write_text("{}")
    with pytest.raises(UserError, match=r"part-00001-of-00003.json is damaged .*; remove it, and run that part again"):
        merge(out)


def test_the_filter_goes_on_where_it_was():
    x = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    x[::97] *= 50
    columns = {"positions": torch.arange(20_000) % 64, "document_ids": torch.arange(20_000) // 64}
    pieces = [Piece({"h": x}, columns).take(slice(i, i + 500)) for i in range(0, 20_000, 500)]
    whole, first = RowFilter(), RowFilter()
    wanted = [piece.x["h"] for piece in whole(pieces)]
    found = [piece.x["h"] for piece in first(pieces[:30])]
    second = RowFilter()
    second.load_state(json.loads(json.dumps(first.state())))
    found += [piece.x["h"] for piece in second(pieces[30:])]
    assert torch.equal(torch.cat(found), torch.cat(wanted))
    assert second.report("h") == whole.report("h")


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(1,), (3, 2), (7,)])
def test_a_harvest_in_parts_killed_and_gone_on_with_equals_the_unbroken_one(tmp_path, kills):
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(12):
        (texts / f"{i}.txt").write_text(" ".join(f"word{(i * j * j) % 997} of text {j}" for j in range(400)))
    for part in ("2/2", "1/2"):
        harvested(texts, tmp_path / "unbroken", part)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    for kill in kills:
        command = [sys.executable, "-c", KILLED, texts, tmp_path / "killed", "1/2", str(kill)]
        assert subprocess.run(command, env=env, capture_output=True).returncode == -signal.SIGKILL
    for part in ("1/2", "2/2"):
        harvested(texts, tmp_path / "killed", part)
    for hook in HOOKS:
        unbroken, killed = (ShardedRows(tmp_path / name / hook) for name in ("unbroken", "killed"))
        assert unbroken.fingerprint == killed.fingerprint
        assert unbroken.metadata == killed.metadata
        assert unbroken.n_rows == 12_000
        assert unbroken.columns == ["token_ids", "positions", "document_ids", "norms"]


@pytest.mark.slow
def test_a_part_without_text_is_done_too(tmp_path, capsys):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("one two three " * 300)
    (texts / "b.txt").write_text("\u200b")  # no space, and no token
    for part in ("1/2", "2/2"):
        harvested(texts, tmp_path / "out", part)
    assert ShardedRows(tmp_path / "out" / HOOKS[0]).n_rows > 500
    with pytest.raises(UserError, match="3 parts of 2 documents: take at most as many parts as documents"):
        harvested(texts, tmp_path / "more", "1/3")
