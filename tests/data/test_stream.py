"""The loaders: what they give out, when their thread stops, what they refuse."""

import gc
import itertools
import subprocess
import sys
import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saelight.data.shards.reader import ShardedRows
from saelight.data.stream.loaders import SequentialStream, TrainStream
from saelight.data.stream.order import cut
from saelight.errors import UserError
from tests.data.folders import counted, poison, write
from tests.data.memory import MemoryRows, numbered


def stream(n, batch, *, block=16, rows=None, **fields):
    return TrainStream(rows or numbered(n), cut(0, n, block), batch, **({"window": 4} | fields))


def threads():
    return [t for t in threading.enumerate() if t.name == "saelight-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    gc.collect()
    assert threads() == []


def epochs(loader, n):
    return [[batch.flatten().int().tolist() for batch in loader] for _ in range(n)]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 300),
    batch=st.integers(1, 70),
    block=st.integers(1, 40),
    window=st.integers(1, 5),
    world=st.integers(1, 3),
)
def test_batches_are_the_endless_order_cut_up(n, batch, block, window, world):
    if n < batch * world:
        with pytest.raises(UserError, match="do not fill one batch"):
            stream(n, batch, block=block, window=window, world=world)
        return
    loaders = [stream(n, batch, block=block, window=window, world=world, rank=rank) for rank in range(world)]
    assert {len(loader) for loader in loaders} == {n // (batch * world)}
    given_out = [epochs(loader, 3) for loader in loaders]
    assert all(len(epoch) == len(loaders[0]) for per_rank in given_out for epoch in per_rank)
    if world == 1:  # every row comes once before any comes twice, left-over rows of an epoch first in the next
        seen = list(itertools.chain(*itertools.chain(*given_out[0])))
        for start in range(0, len(seen), n):
            part = seen[start : start + n]
            assert len(set(part)) == len(part)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(40, 200),
    batch=st.integers(1, 40),
    start=st.integers(0, 60),
    rank=st.integers(0, 1),
    world=st.integers(1, 2),
)
def test_a_batch_does_not_depend_on_where_one_starts(n, batch, start, rank, world):
    rank = rank % world
    if n < batch * world:
        return
    whole = stream(n, batch, rank=rank, world=world)
    resumed = stream(n, batch, rank=rank, world=world)
    state = whole.state_dict()
    resumed.load_state_dict(state | dict(zip(("epoch", "batch"), divmod(start, len(whole)), strict=True)))
    wanted = list(itertools.chain(*epochs(whole, start // len(whole) + 2)))[start:]
    got = list(itertools.chain(*epochs(resumed, 2)))
    assert got[: len(wanted)] == wanted[: len(got)]


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 300),
    batch=st.integers(1, 70),
    block=st.integers(1, 40),
    window=st.integers(1, 5),
    start=st.integers(0, 30),
    world=st.integers(1, 2),
)
def test_a_device_gathers_the_same_batches(n, batch, block, window, start, world):
    if n < batch * world:
        return
    there, here = (
        stream(n, batch, block=block, window=window, rank=world - 1, world=world, device=device)
        for device in (torch.device("cpu"), None)
    )
    for loader in (there, here):
        loader.load_state_dict(loader.state_dict() | dict(zip(("epoch", "batch"), divmod(start, len(loader)), strict=True)))
    assert epochs(there, 3) == epochs(here, 3)
    assert there.state_dict() == here.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_device_gathers_the_same_bits(dtype):
    rows = MemoryRows(torch.randn(500, 7).to(dtype))
    there, here = (TrainStream(rows, cut(0, 500, 33), 64, window=3, device=device) for device in (torch.device("cpu"), None))
    for x, y in zip(there, here, strict=True):
        assert torch.equal(x, y)
        assert x.dtype == dtype


def test_a_devices_window_is_copied_once_and_its_batches_are_their_own():
    rows = numbered(96)
    loader = stream(96, 32, rows=rows, window=6, device=torch.device("cpu"))
    batches = iter(loader)
    first = next(batches)
    kept = first.clone()
    list(itertools.islice(batches, 2))
    batches = iter(loader)  # both windows on the device have been filled again
    list(itertools.islice(batches, 9))
    assert torch.equal(first, kept)
    assert rows.reads <= 6 * (4 + 2)


def test_rows_fit_their_contents_across_shards(tmp_path):
    x = torch.randn(1000, 8).bfloat16()
    rows = ShardedRows(write(tmp_path / "s", x, dtype="bfloat16", rows_per_shard=70))
    seen = torch.cat(list(TrainStream(rows, cut(0, 1000, 33), 100, window=3)))
    assert seen.dtype == torch.bfloat16
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, x.tolist()))


def test_batches_are_fresh_memory():
    a, b = itertools.islice(stream(200, 50), 2)
    before = b.clone()
    a.zero_()
    assert torch.equal(b, before)


def test_a_window_is_read_once_across_epochs():
    rows = numbered(96)
    loader = stream(96, 32, rows=rows, window=6)  # one window a pass, three batches of it
    previous = None
    for _ in range(5):  # Lightning keeps an epoch's iterator until the next one is made
        previous = iter(loader)
        list(itertools.islice(previous, 3))
    assert rows.reads <= 6 * (5 + 2)  # and two read ahead


def test_a_trainer_may_end_epochs_early():
    whole = epochs(stream(100, 10), 3)
    loader = stream(100, 10)
    seen = []
    for epoch in range(5):  # each cut short, as by limit_train_batches
        loader.sampler.set_epoch(epoch)
        seen += [b.flatten().int().tolist() for b in itertools.islice(loader, 6)]
    assert seen == list(itertools.chain(*whole))
    late = stream(100, 10)
    late.sampler.set_epoch(2)
    assert [b.flatten().int().tolist() for b in itertools.islice(late, 10)] == whole[2]


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_dropping_closing_or_failing_stops_the_thread(device):
    loader = stream(5000, 10, device=device)
    batches = iter(loader)
    next(batches)
    assert len(threads()) == 1
    del batches
    gc.collect()
    assert threads() == []
    batches = iter(loader)
    next(batches)
    batches.close()
    assert threads() == []
    assert next(batches).shape == (10, 1)  # goes on where it was
    batches.close()
    sequential = iter(SequentialStream(numbered(100), 0, 100, 10))
    next(sequential)
    del sequential
    gc.collect()
    assert threads() == []


class _Slow(MemoryRows):
    def read(self, start, out):
        time.sleep(0.05)
        super().read(start, out)


def test_stopping_does_not_wait_for_a_window():
    loader = TrainStream(_Slow(torch.zeros(2000, 1)), cut(0, 2000, 1), 1, window=1000)
    batches = iter(loader)
    consumer = threading.Thread(target=lambda: next(batches, None))
    consumer.start()
    time.sleep(0.2)
    reader = batches._reader
    start = time.monotonic()
    reader.close()
    consumer.join()
    assert time.monotonic() - start < 1
    assert threads() == []


def test_exit_with_a_running_reader_is_quiet():
    code = (
        "import torch\nfrom saelight.data.stream.order import cut\nfrom saelight.data.stream.loaders import TrainStream\n"
        "from saelight.data.synthetic import SyntheticRows\n"
        "it = iter(TrainStream(SyntheticRows(rows=200_000), cut(0, 200_000), 64))\nnext(it)\nprint('end')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_nan_names_shard_and_row(tmp_path):
    path = write(tmp_path / "s", counted(400))
    poison(path, shard=3, row=17)
    rows = ShardedRows(path)
    there = TrainStream(rows, cut(0, 400, 32), 50, device=torch.device("cpu"))
    for loader in (TrainStream(rows, cut(0, 400, 32), 50), there, SequentialStream(rows, 0, 400, 50)):
        batches = iter(loader)
        with pytest.raises(UserError, match=r"activations-00003\.safetensors, row 17 \(row 317 in all\)"):
            list(batches)
    batches = iter(TrainStream(rows, cut(0, 400, 32), 50))
    for _ in range(2):  # asking again does not hang
        with pytest.raises(UserError):
            next(batches)


def test_a_shard_cut_while_training_is_one_line(tmp_path):
    path = write(tmp_path / "s", counted(400))
    rows = ShardedRows(path)
    with (path / "activations-00002.safetensors").open("r+b") as file:
        file.truncate(500)
    with pytest.raises(UserError, match=r"activations-00002\.safetensors had \d+ bytes when it was opened and now has 500"):
        list(TrainStream(rows, cut(0, 400, 32), 50))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 20}, "batch size 10, this run has 20"),
        ({"seed": 5}, "seed 0, this run has 5"),
        ({"world": 2, "rank": 1}, "world size 1, this run has 2"),
        ({"n": 90}, "training rows 100, this run has 90"),
        ({"rows": "other"}, "data fingerprint memory, this run has other"),
    ],
)
def test_resume_with_another_order_is_refused(change, words):
    fields = {"n": 100, "batch": 10} | change
    if "batch_size" in fields:
        fields["batch"] = fields.pop("batch_size")
    if "rows" in fields:
        fields["rows"] = numbered(100)
        fields["rows"].fingerprint = "other"
    with pytest.raises(UserError, match=words):
        stream(**fields).load_state_dict(stream(100, 10).state_dict())


def test_state_is_the_same_on_every_rank():
    states = []
    for rank in range(3):
        loader = stream(300, 10, rank=rank, world=3)
        list(itertools.islice(loader, 4))
        states.append(loader.state_dict())
    assert states[0] == states[1] == states[2]
    assert (states[0]["epoch"], states[0]["batch"]) == (0, 4)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 200), first=st.integers(0, 50), batch=st.integers(1, 60), world=st.integers(1, 4))
def test_sequential_reads_every_row_once_in_order(n, first, batch, world):
    rows = numbered(first + n)
    if n < world:
        with pytest.raises(UserError, match="cannot be shared"):
            SequentialStream(rows, first, first + n, batch, 0, world)
        return
    seen = []
    for rank in range(world):
        loader = SequentialStream(rows, first, first + n, batch, rank, world)
        batches = [b.flatten().int().tolist() for b in loader]
        assert len(batches) == len(loader)
        assert batches[0][0] == loader.first_row
        assert all(len(b) == batch for b in batches[:-1])
        seen += itertools.chain(*batches)
    assert seen == list(range(first, first + n))
