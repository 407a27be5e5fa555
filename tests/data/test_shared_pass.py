"""Runs that share a model's pass: the rows are those of a run by itself, and the model runs once for all."""

import os
import resource
import shutil
import threading

import pytest
import torch

from saelight.data.harvest.pass_folder import FOLDER, clear, pass_folder
from saelight.data.harvest.pass_index import PassIndex, State
from saelight.data.harvest.window_batches import WindowRunner
from saelight.files import hold
from tests.data.from_model import batches, from_model, write_text
from tests.support import letter_models

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return letter_models.llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "t", 400)


@pytest.fixture
def make(model, files):
    return lambda **settings: from_model(model, files, **settings)


@pytest.fixture
def folder(monkeypatch):
    with pass_folder() as path:
        monkeypatch.setenv(FOLDER, str(path))
        yield path


@pytest.fixture
def made(monkeypatch):
    """The groups of windows that models have run, each by its first document and token."""
    of_all, rows = [], WindowRunner.rows

    def run(self, group, done):
        of_all.append(group[0].segments[0][:2])
        return rows(self, group, done)

    monkeypatch.setattr(WindowRunner, "rows", run)
    return of_all


def equal(seen, others):
    return len(seen) == len(others) and all(torch.equal(x, y) for x, y in zip(seen, others, strict=True))


def test_two_share_a_pass_and_have_the_rows_of_each_alone(make, folder, made):
    alone, whole = batches(make(shared_gb=0), 20), len(made)
    first, second = make(), make()
    for data in (first, second):
        assert equal(batches(data, 20), alone)
    assert sorted(made[whole:]) == sorted({*made})
    assert len(list(folder.glob("*.safetensors"))) == len({*made})


def test_who_makes_a_group_and_who_reads_it(tmp_path):
    a, b, c = (PassIndex(tmp_path, "pass", hooks, 100) for hooks in (["x"], ["x", "y"], ["x"]))
    assert a.ask("1") == (State.OURS, ("x", "y"))
    assert b.ask("1").state is State.OTHERS
    assert b.ask("2", ahead=True).state is State.OURS
    assert a.reserve("1", 60)
    assert not b.reserve("2", 60), "what is being written stays"
    b.release("2")
    (tmp_path / "1.safetensors").touch()
    a.partial.touch()
    a.publish("1")
    assert a.ask("2").state is State.OURS
    assert a.reserve("2", 60), "the oldest goes"
    a.partial.touch()
    a.publish("2")
    assert [path.stem for path in tmp_path.glob("*.safetensors")] == ["2"]
    assert b.ask("1").state is State.OURS, "c wants it, too"
    a._held.close()
    assert c.ask("1").state is State.OTHERS
    b._held.close()  # as at the end of its process
    assert c.ask("1") == (State.OURS, ("x",)), "the dead hold nobody up, and want nothing"
    c.release("1")
    late = PassIndex(tmp_path, "pass", ["z"], 100)
    assert late.ask("2").state is State.GONE, "its place was not known"
    other = PassIndex(tmp_path, "another pass", ["w"], 100)
    assert other.ask("3") == (State.OURS, ("w",))
    for index in (c, late, other):
        index.leave()
    assert not list(tmp_path.glob("*.lock"))


def test_nobody_keeps_for_one_alone_what_the_others_have_had(tmp_path):
    a, b = (PassIndex(tmp_path, "pass", ["x"], 100) for _ in range(2))
    for key in "123":
        assert a.ask(key).state is State.OURS
        assert a.reserve(key, 100)
        a.partial.touch()
        a.publish(key)
        assert a.ask(key).state is State.THERE
    assert b.ask("1").state is State.GONE
    assert b.ask("3").state is State.THERE
    assert b.ask("1").state is State.OURS, "as nobody knows of it any more"
    for index in (a, b):
        index.leave()


def test_who_has_stopped_holds_nobody_up_for_long(tmp_path):
    a, b = (PassIndex(tmp_path, "pass", ["x"], 100) for _ in range(2))
    assert a.ask("1").state is State.OURS
    os.utime(next(path for path in tmp_path.glob("*.lock") if path.stem == a._name), (0, 0))
    assert b.ask("1").state is State.OURS
    assert not a.reserve("1", 10)
    for index in (a, b):
        index.leave()


def test_what_a_killed_sweep_left_in_memory_is_removed_by_the_next(folder):
    left, alive, new = (folder.with_name(f"{folder.name}-{name}") for name in ("left", "alive", "new"))
    for path in (left, alive, new):
        path.mkdir()
        (path / "owner.lock").touch()
        (path / "1.safetensors").touch()
    reader = hold(alive / "reader.lock")
    for path in (left, alive):
        os.utime(path, (0, 0))
    with pass_folder() as mine:
        assert not left.exists()
        assert alive.exists()
        assert new.exists()
    assert not mine.exists()
    reader.close()
    for path in (alive, new):
        clear(path)
        assert not path.exists()
    clear(folder)
    assert folder.exists(), "its owner lives"


@SLOW
def test_where_a_file_system_has_no_room_every_run_makes_its_own(make, folder, made):
    settings = {"rows": 14_000, "dtype": "float32"}
    alone, whole = batches(make(**settings, shared_gb=0), 140), len({*made})
    del made[:]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        assert equal(batches(make(**settings), 140), alone)
        assert equal(batches(make(**settings), 140), alone)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 2 * whole - 2 <= len(made) <= 2 * whole, "for the few held-out rows there is room"
    assert {path.suffix for path in folder.iterdir()} == {".lock", ".sqlite", ".safetensors"}
    assert len([*folder.glob("*.safetensors")]) <= 2


@SLOW
def test_several_at_once_make_each_group_once(make, folder, made):
    alone = batches(make(rows=14_000, shared_gb=0), 140)
    del made[:]
    seen = {}

    def read(number):
        seen[number] = batches(make(rows=14_000), 140)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(equal(seen[number], alone) for number in range(3))
    assert len(made) == len({*made}) >= 14


@SLOW
@pytest.mark.parametrize("settings", [{}, {"packed": True, "model_dtype": "bfloat16"}, {"max_norm": None}])
def test_hooks_of_all_come_of_one_pass(make, folder, made, settings):
    hooks = [["layers.0"], ["blocks.1.hook_resid_post"], ["layers.0.mlp.input", "model.layers.1"]]
    alone = [batches(make(hooks=of, rows=14_000, shared_gb=0, **settings), 140) for of in hooks]
    every = [make(hooks=of, rows=14_000, **settings) for of in hooks]
    del made[:]
    for data, expected in zip(every, alone, strict=True):
        assert equal(batches(data, 140), expected)
    assert len(made) == len({*made}) >= 4


@SLOW
def test_a_slow_one_a_fast_one_and_one_that_resumes_behind(make, folder, made):
    """In room for two groups of some 27 KB."""
    small = {"rows": 14_000, "shared_gb": 6e-5}
    alone = batches(make(rows=14_000, shared_gb=0), 140)
    fast, slow = make(**small), make(**small)
    seen, state = [], None
    ahead, behind = (iter(data.train_dataloader()) for data in (fast, slow))
    for _ in range(3):
        seen.append(next(behind))
    state = slow.state_dict()
    del made[:]
    assert equal([next(ahead) for _ in range(120)], alone[:120])
    fasts = len(made)
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 6e-5 * 1e9 + 1000
    seen += [next(behind) for _ in range(117)]
    assert equal(seen, alone[:120])
    assert len(made) > fasts
    resumed = make(**small)
    resumed.load_state_dict(state)
    assert equal(batches(resumed, 137), alone[3:])


@SLOW
def test_a_folder_that_goes_is_said_and_every_run_goes_on(make, folder):
    alone = batches(make(rows=14_000, shared_gb=0), 140)
    data = make(rows=14_000)
    shutil.rmtree(folder)
    with pytest.warns(UserWarning, match="no model pass is shared any more, this run makes its rows itself: "):
        assert equal(batches(data, 140), alone)
    with pytest.warns(UserWarning, match="no model pass is shared"):
        assert equal(batches(make(rows=14_000), 140), alone)
