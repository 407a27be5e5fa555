"""saelight trains: one bank for many SAEs, which read each batch together. All settings but lr and L0 are its defaults."""

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from tqdm import tqdm

import saelight
from benchmarks.quality.data import Data
from benchmarks.quality.evaluate import evaluate
from benchmarks.quality.runs import Result, Run
from saelight.saes import SAEConfig

FIXED_COUNT = {"topk": saelight.TopK, "batch_topk": saelight.BatchTopK}
PENALISED = {"relu": saelight.ReLU, "gated": saelight.Gated, "jump_relu": saelight.JumpReLU}


def config(run: Run) -> SAEConfig:
    """The SAE of a run: its width, its L0 and its learning rate."""
    settings = {"d_sae": run.d_sae} | ({} if run.lr is None else {"lr": run.lr})
    if run.variant == "matryoshka":
        return saelight.Matryoshka(base=saelight.BatchTopK(k=run.l0), **settings)
    if run.variant in FIXED_COUNT:
        return FIXED_COUNT[run.variant](k=run.l0, **settings)
    return PENALISED[run.variant](target_l0=run.l0, **settings)


def train(runs: Sequence[Run], data: Data) -> list[Result]:
    """One pass for all of them: the same data, tokens, batch and seed."""
    saes = {_name(run): config(run) for run in runs}
    module = data.module(runs[0].batch, runs[0].seed)
    bank = saelight.SAEBank(saes, d_in=module.d_in, seed=runs[0].seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = saelight.Trainer(
            folder=f"{folder}/run",
            max_epochs=1,
            accelerator="cpu",
            devices=1,
            callbacks=[_Bar(f"{runs[0].data} saelight, {len(runs)} SAEs, seed {runs[0].seed}")],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
        start = time.process_time()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.filterwarnings("ignore", module="lightning.*")
            try:
                trainer.fit(bank, datamodule=module)
            except SystemExit:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from None
        seconds = (time.process_time() - start) / len(runs)
        return [_measured(run, Path(folder) / "run" / "saes" / _name(run), data, seconds, len(runs)) for run in runs]


def _measured(run: Run, folder: Path, data: Data, seconds: float, together: int) -> Result:
    sae = saelight.load(folder)
    held_out, never_fired = evaluate(sae, data.held_out(), data.measured_rows)
    other, _ = evaluate(sae, data.other(), data.measured_rows)
    return Result(run, held_out, other, never_fired, seconds, together)


def _name(run: Run) -> str:
    # The name decides the SAE's seed: the same in whatever company.
    return f"{run.variant}-{run.l0}-{'default' if run.lr is None else format(run.lr, 'g')}"


class _Bar(L.Callback):
    """A progress bar like the other libraries'."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_train_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self.bar = tqdm(total=int(trainer.estimated_stepping_batches), desc=self.title, mininterval=5, leave=False)

    def on_train_batch_end(self, trainer: L.Trainer, bank: L.LightningModule, *_: object) -> None:
        self.bar.update()

    def on_train_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self.bar.close()
