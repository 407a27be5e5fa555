"""A data module for the tests whose process hangs in the middle of a batch."""

import time
from pathlib import Path

from saelight import SyntheticDataModule


class Hanging(SyntheticDataModule):
    """Hangs in its 15th batch, and says so by a file."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.batches = 0

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.batches += 1
        if self.batches == 15:
            Path("hangs").touch()
            time.sleep(600)
        return super().on_after_batch_transfer(batch, dataloader_idx)
