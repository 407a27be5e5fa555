"""A data module for the tests whose process dies in the middle of training, as often as its marker file says."""

import os
from pathlib import Path

from saelight import SyntheticDataModule


class Crashing(SyntheticDataModule):
    """Dies without a word at its 15th batch while `marker` holds a positive number, which it counts down."""

    def __init__(self, marker: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.marker, self.batches = Path(marker), 0

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.batches += 1
        left = int(self.marker.read_text())
        if self.batches == 15 and left:
            self.marker.write_text(str(left - 1))
            print("the last words", flush=True)
            os._exit(7)
        return super().on_after_batch_transfer(batch, dataloader_idx)
