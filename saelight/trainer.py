"""saelight's Trainer: Lightning's, with a run folder, per-SAE logs, exports, exact checkpoints and a table at the end."""

import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities import rank_zero_only

from saelight import runs
from saelight.callbacks import ExportSAEs, SaveCheckpoint, TokenProgress, WriteTopLatents
from saelight.errors import UserError
from saelight.loggers import PerSAE
from saelight.report import results, table, write_results


class Trainer(L.Trainer):
    """A `lightning.Trainer` whose every run has a folder, `<root>/<name>/` (docs/training.md)."""

    def __init__(self, *, name: str | None = None, root: str = "runs", folder: str | None = None, **kwargs: Any) -> None:
        """
        Args:
            name: The run's name, and its folder's in `root`; numbered (`name-2`) when that exists. Default: `run`; on the
                command line the config file's name.
            root: Where run folders lie.
            folder: The run's folder itself, in place of root and name; refused when it exists.
            **kwargs: Lightning's own settings. The default logger is `saelight.loggers.PerSAE`.
        """
        if str(kwargs.get("precision")) in ("16-mixed", "16"):
            # Lightning would train in another precision where there is no GPU.
            raise UserError(
                "trainer.precision 16-mixed is not for a bank (all SAEs would share one gradient scaler, and one SAE's "
                "overflow would stop them all): use bf16-mixed or 32-true"
            )
        self.run_name, self.run_root = name or "run", Path(root)
        self.wanted_folder = Path(folder) if folder else None
        self.folder: Path | None = None
        """This run's folder, from the moment there is one."""
        if kwargs.get("logger") in (None, True):
            kwargs["logger"] = PerSAE()
        if kwargs.get("enable_model_summary") is None:
            # Nine SAEs are one line of it: "saes".
            kwargs["enable_model_summary"] = False
        kwargs["callbacks"] = _with_defaults(kwargs)
        super().__init__(**kwargs)

    def fit(
        self,
        model: L.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: L.LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = True,
    ) -> None:
        """Train, validate the final weights, write `results.jsonl` and print the table.

        Args:
            ckpt_path: A checkpoint to go on from, in its run's folder; `last`: the one of this name's newest run.
        """
        if self.max_epochs is None and self.max_steps == -1:
            if model.hparams["max_tokens"] is None:
                raise UserError("how long to train? set trainer.max_epochs, trainer.max_steps or model.max_tokens")
            self.fit_loop.max_epochs = -1
        ckpt_path = self._place(ckpt_path, fresh=True)
        start = time.monotonic()
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)
        seconds = time.monotonic() - start
        if self.enable_validation and model.evaluated_at != self.global_step:
            loaders = {"datamodule": self.datamodule} if self.datamodule else {"dataloaders": val_dataloaders}
            self._without_loggers(super().validate, model, verbose=False, weights_only=weights_only, **loaders)
        if self.is_global_zero and not self.fast_dev_run:
            rows = results(self, model, seconds)
            write_results(self.folder / "results.jsonl", rows)
            print(table(rows), flush=True)

    def validate(
        self,
        model: L.LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | None = None,
        verbose: bool = True,
        datamodule: L.LightningDataModule | None = None,
        weights_only: bool | None = True,
    ) -> Any:
        """Evaluate on the validation data and print the table.

        Args:
            ckpt_path: The checkpoint to evaluate; `last`: the one of this name's newest run.
            verbose: Print the table.
        """
        return self._evaluate(super().validate, model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    def test(
        self,
        model: L.LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | None = None,
        verbose: bool = True,
        datamodule: L.LightningDataModule | None = None,
        weights_only: bool | None = True,
    ) -> Any:
        """Evaluate on the test data and print the table.

        Args:
            ckpt_path: The checkpoint to evaluate; `last`: the one of this name's newest run.
            verbose: Print the table.
        """
        return self._evaluate(super().test, model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    def _evaluate(self, run, model, dataloaders, ckpt_path, verbose, datamodule, weights_only) -> Any:
        ckpt_path = self._place(ckpt_path)
        values = self._without_loggers(run, model, dataloaders, ckpt_path, False, datamodule, weights_only)
        if verbose and self.is_global_zero:
            print(table(results(self, self.lightning_module)), flush=True)
        return values

    def predict(
        self,
        model: L.LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: L.LightningDataModule | None = None,
        return_predictions: bool | None = False,
        ckpt_path: str | None = None,
        weights_only: bool | None = True,
    ) -> Any:
        """Write each token's strongest latents to `predictions/<sae>.safetensors` in the run folder.

        Args:
            return_predictions: Return them too, all in memory.
            ckpt_path: The checkpoint whose SAEs predict; `last`: the one of this name's newest run.
        """
        ckpt_path = self._place(ckpt_path, fresh=self.folder is None)
        predictions = self._without_loggers(
            super().predict, model, dataloaders, datamodule, return_predictions, ckpt_path, weights_only
        )
        if self.is_global_zero:
            print(f"Top latents written to {self.folder / 'predictions'}/", flush=True)
        return predictions

    def _without_loggers(self, run, *args: Any, **kwargs: Any) -> Any:
        # An evaluation after training is no part of the training curves.
        loggers, self.loggers = self.loggers, []
        try:
            return run(*args, **kwargs)
        finally:
            self.loggers = loggers

    # --- the run folder

    def _place(self, ckpt_path: str | os.PathLike | None, fresh: bool = False) -> str | os.PathLike | None:
        """Settle the run folder: the checkpoint's when one is given, else a new one where `fresh`."""
        if ckpt_path == "last":
            folder = self.wanted_folder or runs.latest(self.run_root, self.run_name)
            ckpt_path = runs.checkpoint(folder)
        if ckpt_path is not None:
            if not Path(ckpt_path).is_file():
                raise UserError(f"no checkpoint at {ckpt_path}")
            self._enter(runs.folder_of(ckpt_path))
        elif fresh and not self.fast_dev_run and rank_zero_only.rank == 0:
            self._enter(self._claim())
        return ckpt_path

    def _claim(self) -> Path:
        return runs.claim_exactly(self.wanted_folder) if self.wanted_folder else runs.claim(self.run_root, self.run_name)

    def _enter(self, folder: Path | None) -> None:
        self.folder = folder
        for logger in self.loggers:
            if isinstance(logger, PerSAE) and folder is not None:
                logger.set_folder(folder)


def _with_defaults(kwargs: dict[str, Any]) -> list[L.Callback]:
    """The user's callbacks, and those of ours that they do not replace or turn off."""
    callbacks = kwargs.get("callbacks") or []
    callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
    ours = {ExportSAEs: ExportSAEs, WriteTopLatents: WriteTopLatents}
    if kwargs.get("enable_progress_bar") is not False:
        ours[ProgressBar] = TokenProgress
    if kwargs.get("enable_checkpointing") is not False:
        ours[SaveCheckpoint] = SaveCheckpoint
    missing = [make() for kind, make in ours.items() if not any(isinstance(c, kind) for c in callbacks)]
    return [*callbacks, *missing, _ShareFolder()]


class _ShareFolder(L.Callback):
    """Tells the other ranks the folder that rank 0 claimed."""

    def setup(self, trainer: Trainer, pl_module: L.LightningModule, stage: str) -> None:
        folder = trainer.strategy.broadcast(str(trainer.folder) if trainer.folder else None)
        trainer.folder = Path(folder) if folder else None
