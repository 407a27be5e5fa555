"""What `saelight predict --to delphi` writes: delphi's cache of latents, from which it explains and scores them.

    delphi/latents/<sae>/<first>_<last>.safetensors   all activations of a fifth of the latents
        locations (n, 3) uint16 or uint32   sequence, place in it, latent - first
        activations (n,) float16
        tokens (sequences, 256) int64
    delphi/latents/<sae>/config.json

Read off eai-delphi 0.1.3 (`latents/cache.py`, `latents/loader.py`). As there, tokens follow one another without regard to
documents, cut into sequences of one length, and what is left at the end is left out.

Shapes: B batch, F d_sae, E entries.
"""

import contextlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor

from saelight.bank.sae_bank import SAEBank
from saelight.callbacks.top_latents import WritesPredictions
from saelight.data.harvest import documents
from saelight.data.pairs import as_pair
from saelight.data.source import sides
from saelight.data.stored_rows import StoredRows
from saelight.errors import UserError
from saelight.files import replacing, safetensors_header
from saelight.run import run_folder

SEQUENCE = 256
SPLITS = 5
_LEAST = 1e-5
"""Smaller activations are none there."""
_LARGEST = float(np.finfo(np.float16).max)
_BLOCK = 1 << 20


class Entries(NamedTuple):
    """The latents of a batch that are not 0, by row."""

    rows_E: Tensor
    latents_E: Tensor
    values_E: Tensor


def entries(f_BF: Tensor, _most: int) -> Entries:
    """What of the latents (B, F) delphi keeps: all of them, however many."""
    rows_E, latents_E = (f_BF.abs() > _LEAST).nonzero(as_tuple=True)
    return Entries(rows_E, latents_E, f_BF[rows_E, latents_E].float())


class WriteDelphiCache(WritesPredictions):
    """Writes `delphi/latents/<sae>/` into the run folder, in place of each token's strongest latents.

    Activations stream to disk as they come; the folder gets its name once it is whole.
    """

    def on_predict_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        loader: Any = trainer.predict_dataloaders
        rows = sides(loader.rows)[0] if hasattr(loader, "rows") else None
        if not isinstance(rows, StoredRows) or "token_ids" not in rows.columns:
            raise UserError("delphi shows texts, and these data have no token ids: take shards of a harvest (--data.path)")
        if trainer.world_size > 1:
            raise UserError("predict --to delphi runs in one process: --trainer.devices 1")
        self._sequences, self._row = loader.n_rows // SEQUENCE, 0
        if not self._sequences:
            raise UserError(f"delphi takes sequences of {SEQUENCE} tokens, and the data have {loader.n_rows}: take more")
        self._stack = contextlib.ExitStack()
        self._folder = run_folder.of(trainer) / "delphi"
        partial = self._stack.enter_context(replacing(self._folder))
        self._files = {
            name: _SplitFiles(partial / "latents" / name, sae.d_sae, self._sequences)
            for name, sae in zip(bank.names, bank.saes, strict=True)
        }
        self._rows = rows
        bank.keeps = entries

    def on_predict_batch_end(self, trainer: L.Trainer, bank: L.LightningModule, outputs: Any, batch: Any, *_: Any) -> None:
        for name, found in outputs.items():
            self._files[name].add(self._row, *(part.cpu().numpy() for part in found))
        self._row += len(as_pair(batch).x_BD)

    def on_predict_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        config = {
            "dataset_repo": str(self._rows.path),
            "dataset_split": "",
            "dataset_name": "",
            "dataset_column": "",
            "batch_size": 1,
            "cache_ctx_len": SEQUENCE,
            "ctx_len": SEQUENCE,
            "n_tokens": self._sequences * SEQUENCE,
            "n_splits": SPLITS,
            "model_name": documents.expand(self._rows.known.model),
        }
        for files in self._files.values():
            files.finish(self._rows)
            (files.folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        self._stack.close()
        print(f"delphi's cache written to {self._folder}/latents/, for raw_dir of its LatentDataset", flush=True)

    def on_exception(self, trainer: L.Trainer, bank: L.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "_stack"):
            self._stack.__exit__(type(exception), exception, exception.__traceback__)


class _SplitFiles:
    """The files of one SAE, the numbers of each in parts until they are put together."""

    def __init__(self, folder: Path, d_sae: int, sequences: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.sequences = folder, sequences
        # As linspace(0, d_sae).long() cuts there; an SAE of fewer latents than that has fewer files.
        self.bounds = np.unique(torch.linspace(0, d_sae, steps=SPLITS + 1).long().numpy())
        widest = int(np.diff(self.bounds).max())
        self.dtype = np.uint16 if max(widest, sequences) <= 1 << 16 else np.uint32
        self._counts = [0] * (len(self.bounds) - 1)

    def add(self, first_row: int, rows_E: np.ndarray, latents_E: np.ndarray, values_E: np.ndarray) -> None:
        """Append the entries of rows from `first_row` on."""
        rows_E = rows_E + first_row
        inside = rows_E < self.sequences * SEQUENCE
        for i, (start, stop) in enumerate(itertools.pairwise(self.bounds)):
            here = inside & (latents_E >= start) & (latents_E < stop)
            rows, latents = rows_E[here], latents_E[here] - start
            locations = np.stack([rows // SEQUENCE, rows % SEQUENCE, latents], axis=1).astype(self.dtype)
            for part, numbers in ((0, locations), (1, values_E[here].clip(-_LARGEST, _LARGEST).astype(np.float16))):
                with self._part(i, part).open("ab") as file:
                    numbers.tofile(file)
            self._counts[i] += len(rows)

    def finish(self, rows: StoredRows) -> None:
        """Make a safetensors file of each one's parts and the tokens."""
        short = {np.uint16: "U16", np.uint32: "U32"}[self.dtype]
        tokens = self.sequences * SEQUENCE
        for i, count in enumerate(self._counts):
            name = f"{self.bounds[i]}_{self.bounds[i + 1] - 1}.safetensors"
            tensors: dict[str, tuple[str, Sequence[int], int]] = {
                "locations": (short, (count, 3), 3 * count * np.dtype(self.dtype).itemsize),
                "activations": ("F16", (count,), 2 * count),
                "tokens": ("I64", (self.sequences, SEQUENCE), 8 * tokens),
            }
            with (self.folder / name).open("wb") as file:
                file.write(safetensors_header(tensors))
                for part in (self._part(i, 0), self._part(i, 1)):
                    if part.exists():
                        with part.open("rb") as numbers:
                            while block := numbers.read(_BLOCK):
                                file.write(block)
                        part.unlink()
                for start in range(0, tokens, _BLOCK):
                    ids = rows.column("token_ids", start, min(_BLOCK, tokens - start))
                    ids.numpy().astype(np.int64).tofile(file)

    def _part(self, i: int, part: int) -> Path:
        return self.folder / f"{i}.{part}"
