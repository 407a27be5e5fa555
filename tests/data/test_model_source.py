"""Activations straight from a model: what batches hold, and that they are a function of text, seed and settings alone."""

import pytest
import torch

import saelight
from saelight.data.datamodule import ActivationDataModule
from saelight.data.harvest.harvester import harvest
from saelight.data.pairs import Pair
from saelight.data.shards.reader import ShardedRows
from tests.data.folders import read
from tests.data.from_model import SETTINGS, batches, from_model, write_text
from tests.support import letter_models
from tests.support.runs import StopAt, trainer

SAES = {"topk": saelight.TopK(expansion=4, k=4), "relu": saelight.ReLU(expansion=2)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return letter_models.llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "t")


@pytest.fixture
def make(model, files):
    return lambda **settings: from_model(model, files, **settings)


def fitted(tmp_path, data, saes=SAES, *, ckpt=None, **settings):
    bank = saelight.SAEBank(saes, d_in=data.d_in, d_out=data.d_out)
    trainer(tmp_path, **{"max_epochs": 2} | settings).fit(bank, data, ckpt_path=ckpt)
    return bank


def same(bank, other, names=SAES):
    def weights(of, name):
        return of.saes[of.names.index(name)].state_dict()

    pairs = [(weights(bank, name), weights(other, name)) for name in names]
    return all(torch.equal(mine[key], theirs[key]) for mine, theirs in pairs for key in mine)


def test_rows_are_a_harvests_rows_and_whole_documents_are_held_out(make, model, files, tmp_path):
    harvest(model, [files], ["layers.1"], str(tmp_path / "out"), context=64, device="cpu")
    x_ND, columns = read(tmp_path / "out")
    data = make()
    first = int((columns["document_ids"] >= columns["document_ids"][data.n_val_rows - 1] + 1).nonzero()[0])
    val, rows = data.opened.val, data.opened.rows
    assert val.stop == data.n_val_rows == 150
    held_out_ND, trained_ND = torch.empty(150, 16, dtype=rows.dtype), torch.empty(1600, 16, dtype=rows.dtype)
    val.rows.read(0, held_out_ND)
    rows.read(0, trained_ND)
    # Other windows share a batch, so the last bits differ.
    assert torch.allclose(held_out_ND.float(), x_ND[:150].float(), atol=0.05)
    assert torch.allclose(trained_ND.float(), x_ND[first : first + 1600].float(), atol=0.05)


def test_an_epoch_has_every_row_once_and_mixes_a_buffer_at_a_time(make):
    data = make()
    x_ND = torch.empty(1600, 16, dtype=torch.bfloat16)
    data.opened.rows.read(0, x_ND)
    seen_ND = torch.cat(batches(data, 32))
    for epoch_ND in seen_ND.split(1600):
        for stored_ND, mixed_ND in zip(x_ND.split(512), epoch_ND.split(512), strict=True):
            assert sorted(stored_ND.tolist()) == sorted(mixed_ND.tolist())
            assert not torch.equal(stored_ND, mixed_ND)
    assert not torch.equal(seen_ND[:1600], seen_ND[1600:])


SLOW = pytest.mark.slow
WINDOWS = [
    {},
    pytest.param({"packed": True, "model_dtype": "bfloat16"}, marks=SLOW),
    pytest.param({"packed": True, "attend_across": True, "bos": True, "dtype": "float32"}, marks=SLOW),
]


@pytest.mark.parametrize("settings", WINDOWS)
def test_every_batch_can_be_computed_without_those_before(make, settings):
    data = make(**settings)
    stream, states, seen = data.train_dataloader(), [], []
    for _ in range(2):
        for batch in stream:
            seen.append(batch)
            states.append(data.state_dict())
    for done in (7, 16, 26):
        again = make(**settings)
        again.load_state_dict(states[done - 1])
        left = batches(again, len(seen) - done)
        assert all(torch.equal(batch, other) for batch, other in zip(left, seen[done:], strict=True)), done


def test_a_resume_makes_no_more_than_a_buffer_and_the_groups_it_lies_in(make):
    data = make(rows=3600)
    stream = iter(data.train_dataloader())
    for _ in range(31):
        next(stream)
    again = make(rows=3600)
    again.load_state_dict(data.state_dict())
    stream = iter(again.train_dataloader())
    next(stream)
    stream.close()
    marks = [bookmark.rows for bookmark in again.opened.rows.stream._bookmarks]
    first_rows, goes_on = [row for row in marks if row < 700], [row for row in marks if row >= 700]
    assert marks == first_rows + goes_on
    # The buffer of the 31st batch begins with row 3072.
    assert 3072 - 900 < goes_on[0] <= 3072


@SLOW
def test_an_interrupted_fit_equals_the_unbroken_one(make, tmp_path):
    whole = fitted(tmp_path, make())
    for step in (3, 22):
        path = tmp_path / f"{step}.ckpt"
        with pytest.raises(ConnectionAbortedError):
            fitted(tmp_path, make(), callbacks=[StopAt(step, path)])
        assert same(whole, fitted(tmp_path, make(), ckpt=path)), step


@SLOW
def test_together_is_alone(make, tmp_path):
    together = fitted(tmp_path, make())
    for name, sae in SAES.items():
        assert same(together, fitted(tmp_path, make(), {name: sae}), [name])


def test_what_was_saved_gives_the_same_batches_and_start(make, tmp_path):
    data = make(save_to=str(tmp_path / "out"))
    seen = batches(data, 20)
    data.teardown("fit")
    shared = {name: SETTINGS[name] for name in ("buffer", "first_rows", "batch_size")}
    stored = ActivationDataModule(str(tmp_path / "out"), val_fraction=0, **shared)
    assert all(torch.equal(batch, other) for batch, other in zip(batches(stored, 20), seen, strict=True))
    assert torch.equal(stored.init_sample(300), data.init_sample(300))
    assert stored.normalisation.plain().keys() == data.normalisation.plain().keys()
    assert torch.equal(stored.normalisation(seen[0]), data.normalisation(seen[0]))
    assert ShardedRows(tmp_path / "out").known.dropped[0]["rows_seen"] >= 1600


@SLOW
@pytest.mark.parametrize("hooks", [["layers.1"], ["layers.0.mlp", "layers.1"]])
def test_a_fit_from_what_was_saved_is_the_same_bit_for_bit(make, tmp_path, hooks):
    saes = SAES if len(hooks) == 1 else {"skip": saelight.TopK(expansion=4, k=4)}
    out = tmp_path / "shards"
    data = make(hooks=hooks, save_to=str(out))
    bank = fitted(tmp_path, data, saes)
    assert not list(tmp_path.glob("*.partial"))
    folders = [out] if len(hooks) == 1 else [out / hook for hook in hooks]
    targets = {} if len(hooks) == 1 else {"target_path": str(folders[1]), "target_val_path": str(folders[1])}
    shared = {name: SETTINGS[name] for name in ("buffer", "first_rows", "batch_size")}
    stored = ActivationDataModule(str(folders[0]), val_path=str(folders[0]), **targets, **shared)
    assert stored.n_train_rows == 1600
    assert same(bank, fitted(tmp_path, stored, saes), saes)
    if len(hooks) == 2:
        assert isinstance(data.init_sample(10), Pair)


def test_a_resumed_run_completes_what_it_saves(make, tmp_path):
    """The rows of a run that was interrupted, in its 9th batch and in its 14th, are those of the unbroken one."""
    whole, broken = (make(save_to=str(tmp_path / name), rows=2400) for name in ("whole", "broken"))
    for _ in whole.train_dataloader():
        pass
    data, state = broken, None
    for stop in (9, 14, 24):
        if state is not None:
            data = make(save_to=str(tmp_path / "broken"), rows=2400)
            data.load_state_dict(state)
        stream = data.train_dataloader()
        for _ in stream:
            if stream.position == stop:
                break
        state = data.state_dict()
        data.teardown("fit")
    saved = [read(tmp_path / name) for name in ("whole", "broken")]
    assert torch.equal(saved[0][0], saved[1][0])
    assert all(torch.equal(column, saved[1][1][name]) for name, column in saved[0][1].items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "whole"]


def test_a_run_that_was_killed_says_that_it_saves_nothing_more(make, tmp_path):
    data = make(save_to=str(tmp_path / "out"), rows=3600)
    stream = data.train_dataloader()
    for _ in stream:
        if stream.position == 25:
            break
    state = data.state_dict()
    again = make(save_to=str(tmp_path / "other"), rows=3600)
    again.load_state_dict(state)
    with pytest.warns(UserWarning, match="other is not written, as training goes on at row"):
        again.train_dataloader()
    data.teardown("fit")


@SLOW
def test_what_is_whole_is_left_alone_by_a_resume(make, tmp_path):
    """Interrupted in its second epoch."""
    data = make(save_to=str(tmp_path / "out"))
    stream = data.train_dataloader()
    for _ in range(2):
        for _ in stream:
            if stream.position == 20:
                break
    state = data.state_dict()
    data.teardown("fit")
    written = (tmp_path / "out" / "metadata.json").stat().st_mtime_ns
    again = make(save_to=str(tmp_path / "out"))
    again.load_state_dict(state)
    for _ in again.train_dataloader():
        pass
    again.teardown("fit")
    assert (tmp_path / "out" / "metadata.json").stat().st_mtime_ns == written
