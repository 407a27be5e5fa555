"""Train and evaluate a bank on one or two processes, each fed its part of every batch; run as a program.

python -m tests.distributed.halves PROCESSES OUT.pt [SAE to poison with NaN on the last rank]
"""

import os
import sys

import lightning as L
import torch

from tests.support.activations import sparse_activations
from tests.support.banks import D_IN, bank

STEPS, BATCH = 24, 64


class Parts:
    """Batches (B, D), of which each rank sees its contiguous part."""

    def __init__(self, x: torch.Tensor, world: int) -> None:
        self.x, self.world, self.batch_size = x, world, BATCH // world

    def __len__(self) -> int:
        return len(self.x) // BATCH

    def __iter__(self):
        # As Lightning's launcher sets it: known before the process group is.
        rank = int(os.environ.get("LOCAL_RANK", 0))
        for batch in self.x.split(BATCH):
            yield batch.chunk(self.world)[rank]


class Data(L.LightningDataModule):
    """The parts of training and validation data; the initial sample is the same on every rank."""

    def __init__(self, world: int) -> None:
        super().__init__()
        self.world, self.d_in, self.x = world, D_IN, sparse_activations(STEPS * BATCH)

    def init_sample(self, n: int) -> torch.Tensor:
        return self.x[:n]

    def train_dataloader(self) -> Parts:
        return Parts(self.x, self.world)

    def val_dataloader(self) -> Parts:
        return Parts(sparse_activations(256, seed=9), self.world)


class Poison(L.Callback):
    """One rank sees a NaN in one SAE's loss: after the reduce, every rank has it in the gradient."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_batch_start(self, trainer, bank, batch, batch_idx):
        if batch_idx == 5 and trainer.global_rank == trainer.world_size - 1:
            with torch.no_grad():
                bank[self.name].b_dec[0] = torch.nan


def main(world: int, out: str, poisoned: str | None = None) -> None:
    b = bank()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Poison(poisoned)] if poisoned else [],
    )
    trainer.fit(b, datamodule=Data(world))
    if trainer.is_global_zero:
        counters = {name: (b[name].tokens_since_fired, b[name].dead()) for name in b.names}
        result = {
            "weights": {name: dict(b[name].named_parameters()) for name in b.names},
            "counters": counters,
            "tokens": b.tokens_seen,
            "evaluation": b.last_metrics,
            "stopped": sorted(b.quarantine.stopped),
        }
        torch.save(result, out)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
