"""Ranges kept on a local disk: bounded, the least recently used going first, and never believed without their checksum."""

import asyncio
import os
import threading
import time

import pytest
import torch

from saelight.data.datamodule import ActivationDataModule
from saelight.data.remote.range_cache import RangeCache
from saelight.data.shards.reader import ShardedRows
from saelight.errors import UserError
from tests.data.folders import write
from tests.data.remote_servers import serving

NAME = "ab" + 62 * "0"


def get(cache, start, length=100, name=NAME):
    return asyncio.run(cache.get(name, start, length))


def put(cache, start, data, name=NAME):
    asyncio.run(cache.put(name, start, data))


def test_what_is_kept_comes_back_until_the_disk_changes_it(tmp_path):
    cache = RangeCache(tmp_path / "c", 10_000)
    put(cache, 5, bytes(range(100)))
    assert get(cache, 5) == bytes(range(100))
    assert [get(cache, 5, 99), get(cache, 6), get(cache, 5, name="cd" + 62 * "0")] == [None] * 3
    (file,) = (tmp_path / "c").rglob("*.range")
    for raw in (file.read_bytes()[:-1], file.read_bytes()[:-1] + b"!", b""):
        put(cache, 5, bytes(range(100)))
        file.write_bytes(raw)
        assert get(cache, 5) is None
        assert not file.exists()


def test_what_was_used_longest_ago_goes(tmp_path):
    cache = RangeCache(tmp_path, 1320)  # ten ranges of 100 bytes with their checksums
    for start in range(10):
        put(cache, start, bytes(100))
        (file,) = tmp_path.glob(f"*/{NAME}-{start}-100.range")
        os.utime(file, (start, start))
    assert get(cache, 0)
    for start in range(10, 14):
        put(cache, start, bytes(100))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.range")) <= 1.05 * 1320
    assert get(cache, 0)
    assert get(cache, 13)
    assert [get(cache, start) for start in (1, 2)] == [None, None]


def test_many_threads_and_processes_share_a_folder(tmp_path):
    caches = [RangeCache(tmp_path, 5000) for _ in range(4)]

    def work(i):
        for start in range(60):
            put(caches[i], start, bytes([start]) * 100)
            assert get(caches[i], start) in (None, bytes([start]) * 100)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.range")) <= 1.25 * 5000


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot keep data in .*file: .*; give another data.cache_dir"):
        RangeCache(tmp_path / "file", 100)
    for cache_gb in (0, -1):
        with pytest.raises(UserError, match="cache_gb must be"):
            ActivationDataModule(path="x", cache_dir="c", cache_gb=cache_gb)


def test_the_second_epoch_asks_the_server_for_nothing(tmp_path):
    x = torch.randn(3000, 8)
    write(tmp_path / "served" / "s", x, rows_per_shard=1000)
    with serving(tmp_path / "served") as site:
        data = ActivationDataModule(path=f"{site.url}/s", batch_size=500, cache_dir=str(tmp_path / "c"), val_fraction=0)
        first = [batch.clone() for batch in data.train_dataloader()]
        time.sleep(0.1)
        asked = len(site.asked)
        again = ActivationDataModule(path=f"{site.url}/s", batch_size=500, cache_dir=str(tmp_path / "c"), val_fraction=0)
        opened = len(site.asked)
        assert all(map(torch.equal, first, again.train_dataloader()))
        assert asked < opened == len(site.asked)
        assert (
            again.identity()
            == ActivationDataModule(path=str(tmp_path / "served" / "s"), batch_size=500, val_fraction=0).identity()
        )
        assert ShardedRows(f"{site.url}/s").held_bytes <= 3000 * 8 * 4 + 100_000
