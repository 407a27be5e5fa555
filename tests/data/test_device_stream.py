"""A run whose batches a device gathers: bit for bit the one whose batches the host gathers, resumes included."""

import lightning as L
import torch

import saelight
from saelight.run import run_folder
from tests.support.checkpoints import assert_same_state
from tests.support.runs import data, trainer

STEP = 13  # within an epoch, and within a window


def rows_of(there: bool, **settings):
    """Rows whose batches are gathered as on a CUDA device, which here is the CPU itself, or by the host."""
    rows = data(**settings)
    if there:
        rows.gathers_on = lambda: torch.device("cpu")
    return rows


class Save(L.Callback):
    """A checkpoint on the way."""

    def on_train_batch_end(self, trainer, bank, outputs, batch, batch_idx):
        if trainer.global_step == STEP:
            trainer.save_checkpoint(trainer.folder / "checkpoints" / "on-the-way.ckpt")


def fit(folder, there: bool, **more):
    rows = rows_of(there, rows=830)  # 8 batches and 30 rows over
    t = trainer(folder, max_epochs=3, callbacks=[Save()])
    t.fit(saelight.SAEBank({"topk": saelight.TopK(d_sae=32, k=4, lr=1e-3)}, d_in=16), datamodule=rows, **more)
    return t.folder


def test_either_goes_on_exactly_where_the_other_was(tmp_path):
    host, device = (fit(tmp_path / name, there) for name, there in (("host", False), ("device", True)))
    ends = [run_folder.checkpoint(host), run_folder.checkpoint(device)]
    assert_same_state(*ends)
    for begun, there in ((host, True), (device, False)):
        whole = ends[0].rename(tmp_path / "whole.ckpt") if begun == host else tmp_path / "whole.ckpt"
        fit(tmp_path, there, ckpt_path=begun / "checkpoints" / "on-the-way.ckpt")
        assert_same_state(run_folder.checkpoint(begun), whole)


def test_lightning_hands_on_what_the_device_gathered():
    there = rows_of(True, normalise="none")
    given = next(iter(there.train_dataloader()))
    strategy = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).strategy
    assert strategy.batch_to_device(given, torch.device("cpu")).data_ptr() == given.data_ptr()
