"""Shards at a URL: the same bits as from a disk, through whatever goes wrong on the way, or one line."""

import importlib.util
import random
import re
import shutil
import threading
import time

import pytest
import torch

from saelight.data.datamodule import ActivationDataModule
from saelight.data.remote import patience, remote_files, remote_store
from saelight.data.remote.remote_url import Url, located
from saelight.data.shard_summary import summary
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.verify import verify
from saelight.data.stream.batches import BatchReader
from saelight.errors import UserError
from tests.data.folders import counted, read, write
from tests.data.remote_servers import CUT, STALL, TRUNCATE, WHOLE, serving
from tests.support.commands import refused, saelight_

N, BATCH = 4000, 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    x = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
    return write(tmp_path_factory.mktemp("served") / "s", x, rows_per_shard=700, piece=500, document=40)


@pytest.fixture
def site(folder):
    with serving(folder.parent) as site:
        yield site


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setenv("SAELIGHT_PATIENCE", "0.3")
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.01)


def batches(path, n=30, **settings):
    data = ActivationDataModule(path=str(path), batch_size=BATCH, val_batch_size=90, seed=3, **settings)
    train = iter(data.train_dataloader())
    return [*(next(train).clone() for _ in range(min(n, len(data.train_dataloader())))), *data.val_dataloader()]


def equal(some, others):
    return len(some) == len(others) and all(map(torch.equal, some, others))


def test_the_same_bits_and_the_same_identity(folder, site):
    url = f"{site.url}/s"
    (x, columns), (x_there, columns_there) = read(folder), read(url)
    assert torch.equal(x, x_there)
    assert equal([*columns.values()], [*columns_there.values()])
    assert equal(batches(folder), batches(url))
    for settings in ({}, {"max_samples": 2000}, {"val_fraction": 0.3}):
        here, there = ActivationDataModule(path=str(folder), **settings), ActivationDataModule(path=url, **settings)
        assert here.identity() == there.identity()
        assert torch.equal(here.init_sample(), there.init_sample())
    assert site.most_at_once <= remote_store.IN_FLIGHT


def test_whole_blocks_are_read_and_no_more(folder, site):
    batches(f"{site.url}/s")
    spans = [asked.span[1] - asked.span[0] for asked in site.asked if asked.method == "GET" and asked.span]
    rows = {span // 32 for span in spans if span >= 90 * 32 and span != 4096}
    assert max(rows) <= 512
    assert sum(spans) < 3 * N * 32 + 6 * 4096 + 1024 * N


@pytest.mark.parametrize("fault", [CUT, TRUNCATE, 500, 503, 429])
def test_faults_that_pass_leave_the_same_bits(folder, site, fault, monkeypatch):
    monkeypatch.setenv("SAELIGHT_PATIENCE", "60")
    chance = random.Random(0)
    site.fault = lambda asked: fault if chance.random() < 0.3 and (fault != TRUNCATE or asked.span) else None
    assert equal(batches(folder, n=6), batches(f"{site.url}/s", n=6))


def test_a_stalled_request_is_made_again(folder, site, monkeypatch):
    monkeypatch.setattr(remote_store, "_SECONDS", 0.3)
    stalled = iter([None] * 20 + [STALL])
    site.fault = lambda asked: next(stalled, None)
    assert torch.equal(read(f"{site.url}/s")[0], read(folder)[0])


def test_a_connection_that_is_lost_for_a_while_is_a_pause(folder, site, monkeypatch):
    monkeypatch.setenv("SAELIGHT_PATIENCE", "60")
    rows, x = ShardedRows(f"{site.url}/s"), torch.empty(N, 8)
    until = time.monotonic() + 0.5
    site.fault = lambda asked: CUT if time.monotonic() < until else None
    rows.read(0, x)
    assert time.monotonic() > until
    assert torch.equal(x, read(folder)[0])


LINES = {
    "cut": (CUT, r"cannot read http://127\.0\.0\.1:\d+/s/activations-0000\d.safetensors: .*, for 0:0\d; check the address"),
    "500": (500, r"HTTP 500 .*check the address and the connection, and start again: a run goes on with --ckpt_path last"),
    "403": (403, r"cannot read .*: access denied; log in"),
    "404": (404, r"activations-0000\d.safetensors is missing from http://.*/s; check the address"),
    "400": (400, r"cannot read .*: HTTP 400 .*; check the address"),
    "truncated": (TRUNCATE, r"\d+ of \d+ bytes came, for 0:0\d"),
    "whole": (WHOLE, r"http://.*/s gives whole files where parts are asked for \(no HTTP ranges\); copy it to a disk"),
}


@pytest.mark.parametrize("kind", LINES)
def test_faults_that_stay_are_one_line(site, kind):
    rows, (fault, line) = ShardedRows(f"{site.url}/s"), LINES[kind]
    site.fault = lambda asked: fault if asked.method == "GET" else None
    with pytest.raises(UserError, match=line) as found:
        rows.read(0, torch.empty(N, 8))
    assert "\n" not in str(found.value)


def test_what_is_not_there_is_one_line(site, capsys, folder):
    for url, line in (
        (f"{site.url}/none", "no shards at http://.*/none: metadata.json is missing; what other tools wrote is read from"),
        ("http://127.0.0.1:9/s", r"cannot read http://127.0.0.1:9/s/metadata.json: .*for 0:0\d; check the address"),
        ("nowhere://bucket/s", "nowhere://bucket: no scheme 'nowhere'"),
        ("htp://host/s", "no scheme 'htp'; did you mean 'http'?"),
        ("s3://", "'s3://' is no address of a folder"),
    ):
        for command in (["info"], ["verify"]):
            assert re.search(line, refused(capsys, "shards", *command, url))
    with pytest.raises(UserError, match=r"no shards at .*nothing"):
        ShardedRows(f"file://{folder}/nothing")


def test_a_damaged_file_there_is_found_as_here(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "s")
    shard = tmp_path / "s" / "activations-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with serving(tmp_path) as site, pytest.raises(UserError, match=r"activations-00002.safetensors is truncated: \d+ bytes"):
        ShardedRows(f"{site.url}/s")
    shard.unlink()
    with serving(tmp_path) as site, pytest.raises(UserError, match=r"00002.safetensors is missing from http"):
        ShardedRows(f"{site.url}/s")


@pytest.mark.parametrize(
    ("change", "line"), [(lambda raw: raw[:-64], "had 31024"), (lambda raw: raw[:-1] + b"!", "is another")]
)
def test_a_file_that_changes_meanwhile_is_one_line(folder, tmp_path, change, line, monkeypatch):
    monkeypatch.setattr(remote_files, "_LOOK_AGAIN", -1.0)
    shutil.copytree(folder, tmp_path / "s")
    with serving(tmp_path) as site:
        rows = ShardedRows(f"{site.url}/s")
        shard = tmp_path / "s" / "activations-00001.safetensors"
        shard.write_bytes(change(shard.read_bytes()))
        with pytest.raises(UserError, match=rf"activations-00001.safetensors changed while it was read: it {line}"):
            rows.read(0, torch.empty(N, 8))


def test_verify_and_info(folder, site, capsys):
    assert verify(f"{site.url}/s").endswith("6 shards, 4,000 rows: checksums, finite values and sums hold")
    assert sum(asked.method == "GET" and asked.name == "activations-00000.safetensors" for asked in site.asked) <= 8
    assert summary(f"{site.url}/s") == summary(folder)
    assert saelight_("shards", "info", f"{site.url}/s") == 0
    assert "4,000 × 8 float32" in capsys.readouterr().out


def test_verify_finds_a_changed_byte(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "s")
    shard = tmp_path / "s" / "activations-00004.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    with serving(tmp_path) as site, pytest.raises(UserError, match=r"activations-00004.safetensors is damaged: sha256"):
        verify(f"{site.url}/s")


def test_a_stopped_reader_does_not_wait_for_a_lost_connection(site, monkeypatch):
    monkeypatch.setenv("SAELIGHT_PATIENCE", "60")
    stream = ActivationDataModule(path=f"{site.url}/s", batch_size=BATCH).train_dataloader()
    site.fault = lambda asked: 503
    reader = BatchReader(stream.rows, stream.plan, BATCH, 0)
    while not any(thread.name == "saelight-prefetch" for thread in threading.enumerate()):
        time.sleep(0.01)
    time.sleep(0.2)
    begun = time.monotonic()
    reader.close()
    assert time.monotonic() - begun < 5


def test_urls():
    url = Url("s3://bucket/folder/")
    assert str(url / "x") == "s3://bucket/folder/x"
    assert ((url / "x").name, str(url.parent), url.root) == ("x", "s3://bucket", "s3://bucket")
    signed = Url("https://me:secret@host/f?sig=abc") / "x"
    assert signed.full == "https://me:secret@host/f/x?sig=abc"
    assert str(signed) == "https://host/f/x"
    assert str(located("file:///a%20b/c")) == "/a b/c"
    assert str(located("a/b")) == "a/b"


def test_counted_rows_say_where_they_are(site, tmp_path):
    write(tmp_path / "s", counted(250))
    with serving(tmp_path) as site:
        assert ShardedRows(f"{site.url}/s").where(120) == f"{site.url}/s/activations-00001.safetensors, row 20"


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_package_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"gs:// needs a package that is not installed: pip install 'saelight\[gs\]'"):
        ShardedRows("gs://bucket/s")
