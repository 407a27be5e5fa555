"""Lightning drives pairs: every step gets whole pairs, and resume goes on with exactly those that are left.

    python -m tests.data.test_pairs_lightning OUT '{"path": ..., "target_path": ...}'

is two processes that train and predict, and write the rows they saw.
"""

import json
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from saelight.data.datamodule import ActivationDataModule
from tests.data.folders import counted, write
from tests.data.lightning_runs import EPOCHS, HOOKS, Save, trainer

N, VAL = 330, 30


class Recorder(pl.LightningModule):
    """Trains one number, and keeps the numbers of the rows of every batch; the target must be minus the input."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.rows = {"train": [], "validate": [], "predict": []}
        self.seen = self.rows["train"]

    def note(self, stage, batch):
        x_BD, y_BD = batch
        assert batch.x_BD is x_BD
        assert torch.equal(x_BD[:, :1].expand(-1, 3), -y_BD)
        self.rows[stage].append(x_BD[:, 0].int().tolist())
        return x_BD

    def training_step(self, batch):
        return (self.weight * self.note("train", batch)).mean() * 1e-6

    def validation_step(self, batch):
        self.log("mean", self.note("validate", batch).mean(), sync_dist=True)

    def predict_step(self, batch):
        self.note("predict", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    x = write(root / "x", counted(N, 2))
    return {"path": str(x), "target_path": str(write(root / "y", -counted(N, 3), dtype="float16", rows_per_shard=77))}


def data_module(folders):
    return ActivationDataModule(**folders, batch_size=40, val_fraction=VAL / N, normalise="none")


def run(tmp_path, folders, *, ckpt=None, callbacks=(), **fields):
    module, data = Recorder(), data_module(folders)
    trainer(tmp_path, callbacks=list(callbacks), **fields).fit(module, data, ckpt_path=ckpt, weights_only=True)
    return module


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("fields", [{}, {"accumulate_grad_batches": 2, "val_check_interval": 2}])
def test_resume_sees_exactly_the_pairs_that_are_left(tmp_path, folders, fields, hook):
    save = Save(tmp_path, hook)
    whole = run(tmp_path, folders, callbacks=[save], **fields)
    assert len(whole.seen) == EPOCHS * ((N - VAL) // 40)
    assert whole.rows["validate"][-1] == list(range(N - VAL + 1, N + 1))
    assert len(save.saved) >= EPOCHS
    for path, trained in save.saved.items():
        assert run(tmp_path, folders, ckpt=path, **fields).seen == whole.seen[trained:], f"saved after {trained} batches"


@pytest.mark.slow
def test_two_processes_share_the_pairs(tmp_path, folders):
    command = [sys.executable, "-W", "ignore", "-m", __name__, str(tmp_path), json.dumps(folders)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=200, capture_output=True)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for stage, rows in (("validate", range(N - VAL + 1, N + 1)), ("predict", range(1, N + 1))):
        assert [row for rank in ranks for batch in rank[stage] for row in batch] == list(rows)
    trained = [[row for batch in rank["train"] for row in batch] for rank in ranks]
    assert [len(rows) for rows in trained] == [(N - VAL) // 80 * 40] * 2
    assert set().union(*trained) <= set(range(1, N - VAL + 1))


def main(out, folders):
    module = Recorder()
    two = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=out,
    )
    two.fit(module, data_module(folders))
    two.predict(module, data_module(folders), return_predictions=False)
    (Path(out) / f"{two.global_rank}.json").write_text(json.dumps(module.rows))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
