"""What `saelight predict` writes: the strongest latents of every token, one safetensors file per SAE."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.callbacks.declarations import NoSettings
from saelight.data.pairs import as_pair
from saelight.files import safetensors_header
from saelight.run import run_folder


class WritesPredictions(NoSettings, SAECallback):
    """What writes what `predict` finds: a trainer has one such callback."""


class WriteTopLatents(WritesPredictions):
    """Writes `predictions/<sae>.safetensors` into the run folder: `values` (rows, K) float32, largest first, and
    `indices` (rows, K) int32, in the order of the data's rows.

    Rows stream to disk as they come, every rank writing its own; a file gets its name once it is whole.
    """

    def __init__(self) -> None:
        self._files: dict[str, _TopFile] = {}

    def on_predict_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        loader: Any = trainer.predict_dataloaders
        self._row = getattr(loader, "first_row", 0)
        rows = loader.n_rows if hasattr(loader, "n_rows") else len(loader.dataset)
        folder = run_folder.of(trainer) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        for name, sae in zip(bank.names, bank.saes, strict=True):
            k = min(bank.predict_top, sae.d_sae)
            self._files[name] = _TopFile(folder / f"{name}.safetensors", rows, k)
            if trainer.is_global_zero:
                self._files[name].create()
        trainer.strategy.barrier("predictions")
        for file in self._files.values():
            file.open()

    def on_predict_batch_end(self, trainer: L.Trainer, bank: L.LightningModule, outputs: Any, batch: Any, *_: Any) -> None:
        for name, top in outputs.items():
            self._files[name].write(self._row, top.values_BK.cpu().numpy(), top.indices_BK.cpu().numpy())
        self._row += len(as_pair(batch).x_BD)

    def on_predict_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        for file in self._files.values():
            file.close()
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            for file in self._files.values():
                file.finish()
            print(f"Top latents written to {run_folder.of(trainer) / 'predictions'}/", flush=True)
        self._files.clear()

    def on_exception(self, trainer: L.Trainer, bank: L.LightningModule, exception: BaseException) -> None:
        for file in self._files.values():
            file.partial.unlink(missing_ok=True)
        self._files.clear()


class _TopFile:
    """A safetensors file of known shape, filled in place: the whole of it need not fit in memory."""

    def __init__(self, path: Path, rows: int, k: int) -> None:
        self.path, self.shape = path, (rows, k)
        self.partial = path.with_name(path.name + ".partial")
        self.size = size = 4 * rows * k
        self.header = safetensors_header({"values": ("F32", (rows, k), size), "indices": ("I32", (rows, k), size)})

    def create(self) -> None:
        with self.partial.open("wb") as file:
            size = len(self.header) + 2 * self.size
            if hasattr(os, "posix_fallocate"):
                # A disk that fills up under a memory map would kill the process: ask for all of it now.
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            file.write(self.header)

    def open(self) -> None:
        start = len(self.header)
        self.values = np.memmap(self.partial, np.float32, "r+", start, self.shape)
        self.indices = np.memmap(self.partial, np.int32, "r+", start + self.size, self.shape)

    def write(self, row: int, values: np.ndarray, indices: np.ndarray) -> None:
        self.values[row : row + len(values)] = values
        self.indices[row : row + len(indices)] = indices

    def close(self) -> None:
        self.values.flush()
        self.indices.flush()

    def finish(self) -> None:
        self.partial.replace(self.path)
