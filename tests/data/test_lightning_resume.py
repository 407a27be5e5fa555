"""Lightning drives the stream: stop anywhere, resume, and see exactly the batches that are left."""

import hashlib

import lightning.pytorch as pl
import pytest
import torch

from saelight.errors import UserError
from tests.data.lightning_runs import EPOCHS, HOOKS, Save, trainer
from tests.data.memory import MemoryDataModule

PER_EPOCH = 5
FIELDS = {"n": 53, "n_val": 7, "batch_size": 10}  # 3 rows left over in each epoch


class Recorder(pl.LightningModule):
    """Trains one number, and keeps a hash of every batch it trains on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen, self.validated = [], []

    def training_step(self, batch):
        self.seen.append(hashlib.sha256(batch.numpy().tobytes()).hexdigest()[:12])
        return (self.weight * batch).mean() * 1e-6

    def validation_step(self, batch):
        self.validated.append(batch.flatten().int().tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def run(tmp_path, *, ckpt=None, callbacks=(), data=None, **fields):
    module = Recorder()
    data = data or MemoryDataModule(**FIELDS)
    trainer(tmp_path, callbacks=list(callbacks), **fields).fit(module, data, ckpt_path=ckpt, weights_only=True)
    return module


SETTINGS = {
    "plain": {},
    "no validation": {"limit_val_batches": 0},
    "validation within epochs": {"val_check_interval": 2},
    "accumulation": {"accumulate_grad_batches": 2},
    "accumulation over everything": {"accumulate_grad_batches": 3, "val_check_interval": 2},
    "steps": {"max_steps": EPOCHS * PER_EPOCH, "max_epochs": -1},
    "short steps": {"max_steps": EPOCHS * 4, "max_epochs": -1, "limit_train_batches": 4},
    "short epochs": {"limit_train_batches": 4},
}
CASES = [(name, hook) for name in SETTINGS for hook in HOOKS if (name, hook) != ("no validation", "on_validation_end")]


@pytest.mark.parametrize(("name", "hook"), CASES)
def test_resume_sees_exactly_what_is_left(tmp_path, name, hook):
    save = Save(tmp_path, hook)
    whole = run(tmp_path, callbacks=[save], **SETTINGS[name])
    assert len(whole.seen) == EPOCHS * (4 if name.startswith("short") else PER_EPOCH)
    assert len(set(whole.seen)) == len(whole.seen)
    assert len(save.saved) >= EPOCHS
    for path, trained in save.saved.items():
        left = run(tmp_path, ckpt=path, **SETTINGS[name]).seen
        assert left == whole.seen[trained:], f"saved after {trained} batches"


@pytest.mark.parametrize("name", ["plain", "steps", "short steps"])
@pytest.mark.parametrize(("first", "second"), [(HOOKS[1], HOOKS[0]), (HOOKS[0], HOOKS[1]), (HOOKS[1], HOOKS[1])])
def test_a_resumed_run_resumes_too(tmp_path, name, first, second):
    save = Save(tmp_path, first)
    whole = run(tmp_path, callbacks=[save], **SETTINGS[name])
    path, trained = list(save.saved.items())[0 if first == HOOKS[1] else 3]
    again = Save(tmp_path / "again", second)
    assert run(tmp_path, ckpt=path, callbacks=[again], **SETTINGS[name]).seen == whole.seen[trained:]
    for path, more in again.saved.items():
        assert run(tmp_path, ckpt=path, **SETTINGS[name]).seen == whole.seen[trained + more :]


def test_validation_reads_the_rows_held_out(tmp_path):
    module = run(tmp_path, num_sanity_val_steps=0)
    assert module.validated == [list(range(53, 60))] * EPOCHS


def test_another_batch_size_is_refused_on_resume(tmp_path):
    for hook in HOOKS[:2]:
        folder = tmp_path / hook
        folder.mkdir()
        save = Save(folder, hook)
        run(tmp_path, callbacks=[save])
        for path in list(save.saved)[:2]:
            with pytest.raises(UserError, match="batch size 10, this run has 9"):
                run(tmp_path, ckpt=path, data=MemoryDataModule(**FIELDS | {"batch_size": 9}))
