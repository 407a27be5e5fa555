"""saelight's Trainer: Lightning's, with a run folder, per-SAE logs, exports, exact checkpoints and a table at the end."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar

from saelight.bank import SAEBank
from saelight.bank.restore import restoring
from saelight.bank.trainer_attributes import undeclared
from saelight.callbacks import ExportSAEs, SaveCheckpoint, TokenProgress, WatchHealth, WriteProgress, WriteTopLatents
from saelight.callbacks.top_latents import WritesPredictions
from saelight.errors import UserError
from saelight.files import check_name, check_path
from saelight.loggers import PerSAE
from saelight.ranges import checked
from saelight.run import checkpoint_path, lightnings_own, run_folder, slurm_job
from saelight.run.fit_loop import FitLoop
from saelight.run.float32_products import MatmulPrecision, float32_products
from saelight.run.quiet import silence_lightning
from saelight.run.report import results, table, write_results
from saelight.run.room_to_train import check_room_to_train


def _evaluation(method: str, data: str) -> Callable[..., Any]:
    """`Trainer.validate` or `Trainer.test`, which differ in Lightning's method and in the data."""

    def evaluate(
        self: "Trainer",
        model: L.LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: L.LightningDataModule | None = None,
        weights_only: bool | None = True,
    ) -> Any:
        ckpt_path, run = self._place(ckpt_path), getattr(super(Trainer, self), method)
        with self._running(), restoring(ckpt_path):
            values = self._without_loggers(run, model, dataloaders, ckpt_path, False, datamodule, weights_only)
        if verbose and self.is_global_zero:
            assert isinstance(self.lightning_module, SAEBank)
            print(table(results(self, self.lightning_module, self.writes)), flush=True)
        return values

    evaluate.__name__, evaluate.__qualname__ = method, f"Trainer.{method}"
    evaluate.__doc__ = f"""Evaluate on the {data} data and print the table.

        Args:
            ckpt_path: The checkpoint to evaluate; `last`: the one of this name's newest run.
            verbose: Print the table.
        """
    return evaluate


class Trainer(L.Trainer):
    """A `lightning.Trainer` whose every run has a folder, `<root>/<name>/` (docs/training.md)."""

    # Lightning's connectors set these without declaring them.
    callbacks: list[L.Callback]
    datamodule: L.LightningDataModule | None
    fast_dev_run: int | bool

    def __init__(
        self,
        *,
        name: str | None = None,
        root: str | None = "runs",
        folder: str | None = None,
        float32_matmul_precision: MatmulPrecision | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            name: The run's name, and its folder's in `root`; numbered (`name-2`) when that exists. Default: `run`; on the
                command line the config file's name.
            root: Where run folders lie. None, without a folder: nothing is written, and `results` is all there is.
            folder: The run's folder itself, in place of root and name; refused when it exists.
            float32_matmul_precision: `torch.set_float32_matmul_precision` while the run lasts. Default: `high`, TF32, for
                32-true on CUDA, unless torch was told something before; elsewhere as torch is.
            **kwargs: Lightning's own settings. The default logger is `saelight.loggers.PerSAE`.
        """
        silence_lightning()
        # As in a config, None is the default.
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        lightnings_own.check(kwargs)
        if name is not None:
            check_name(name, "trainer.name")
        for what, path in (("trainer.root", root), ("trainer.folder", folder)):
            check_path(path or "", what)
        checked("trainer.float32_matmul_precision", float32_matmul_precision, MatmulPrecision | None)
        self.float32_matmul_precision = float32_matmul_precision
        if str(kwargs.get("precision")) in ("16-mixed", "16"):
            # Lightning would train in another precision where there is no GPU.
            raise UserError(
                "trainer.precision 16-mixed is not for a bank (all SAEs would share one gradient scaler, and one SAE's "
                "overflow would stop them all): use bf16-mixed or 32-true"
            )
        self.writes = root is not None or folder is not None
        """Whether runs have folders."""
        self.run_name, self.run_root = name or "run", Path(root or "runs")
        self.wanted_folder = Path(folder) if folder else None
        self.results: list[dict[str, Any]] = []
        """After a fit: a dict per SAE, what `results.jsonl` has."""
        self.folder: Path | None = None
        """This run's folder, from the moment there is one."""
        self.lock: IO[str] | None = None
        """What keeps other processes from training in it, while a fit goes on."""
        if not self.writes:
            kwargs |= {"logger": False, "enable_checkpointing": False}
        elif kwargs.get("logger") in (None, True):
            kwargs["logger"] = PerSAE()
        if kwargs.get("enable_model_summary") is None:
            # Nine SAEs are one line of it: "saes".
            kwargs["enable_model_summary"] = False
        kwargs["callbacks"] = _with_defaults(kwargs, self.writes)
        kwargs["plugins"] = slurm_job.plugins(kwargs.get("plugins"), kwargs.get("strategy"))
        with lightnings_own.building():
            super().__init__(**kwargs)
        lightnings_own.check_processes(self)
        # A bank lowers it to what max_tokens come to.
        self._given_max_steps = self.max_steps

    def fit(
        self,
        model: L.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: L.LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = True,
    ) -> None:
        """Train, validate the final weights, write `results.jsonl` and print the table.

        Args:
            ckpt_path: A checkpoint to go on from, in its run's folder; `last`: the one of this name's newest run.
        """
        if not isinstance(model, SAEBank):
            raise UserError(
                f"saelight.Trainer trains an SAEBank, not {type(model).__name__}: use lightning.Trainer for others"
            )
        if self.max_epochs is None and self.max_steps == -1:
            if model.hparams["max_tokens"] is None:
                raise UserError("how long to train? set trainer.max_epochs, trainer.max_steps or model.max_tokens")
            self.fit_loop.max_epochs = -1
        if ckpt_path is None:
            self.folder = None
            if self.wanted_folder and self.wanted_folder.exists():
                raise run_folder.exists(self.wanted_folder)
        check_room_to_train(self, model, datamodule or train_dataloaders)
        ckpt_path = self._place(ckpt_path)
        lightnings_own.check_monitors(self, model, getattr(datamodule or train_dataloaders, "features", None))
        self._begin_anew()
        try:
            with self._running(), restoring(ckpt_path):
                super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)
            if self.enable_validation and model.evaluated_at != self.global_step:
                loaders: dict[str, Any] = (
                    {"datamodule": self.datamodule} if self.datamodule else {"dataloaders": val_dataloaders}
                )
                with self._running():
                    super().validate(model, verbose=False, weights_only=weights_only, **loaders)
            if self.is_global_zero and not self.fast_dev_run:
                self._report(model)
        finally:
            if self.lock is not None:
                self.lock.close()

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        device, precision = self.strategy.root_device, self.precision
        with lightnings_own.running(), float32_products(self.float32_matmul_precision, device, precision):
            yield

    def _report(self, bank: SAEBank) -> None:
        """What came of a fit, to `results.jsonl` and as a table."""
        clock = next(callback for callback in self.callbacks if isinstance(callback, WriteProgress))
        bank.measure_latents()
        self.results = results(self, bank, self.writes, clock)
        if self.writes:
            assert self.folder is not None
            write_results(self.folder / "results.jsonl", self.results)
            clock.close(self, bank, self.results)
            print(table(self.results), flush=True)

    validate = _evaluation("validate", "validation")
    test = _evaluation("test", "test")

    def predict(
        self,
        model: L.LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: L.LightningDataModule | None = None,
        return_predictions: bool | None = False,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = True,
    ) -> Any:
        """Write each token's strongest latents to `predictions/<sae>.safetensors` in the run folder.

        Args:
            return_predictions: Return them too, all in memory.
            ckpt_path: The checkpoint whose SAEs predict; `last`: the one of this name's newest run.
        """
        ckpt_path = self._place(ckpt_path)
        with self._running(), restoring(ckpt_path):
            return self._without_loggers(
                super().predict, model, dataloaders, datamodule, return_predictions, ckpt_path, weights_only
            )

    def _begin_anew(self) -> None:
        """Let another `fit` train: Lightning's loops would take the first one's end for its own."""
        steps = self.fit_loop.epoch_loop
        self.fit_loop = FitLoop(self, self.fit_loop.min_epochs, self.fit_loop.max_epochs)
        self.fit_loop.epoch_loop = type(steps)(self, steps.min_steps, self._given_max_steps)
        self.should_stop = False

    def _without_loggers(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # An evaluation after training is no part of the training curves.
        loggers, self.loggers = self.loggers, []
        try:
            return run(*args, **kwargs)
        finally:
            self.loggers = loggers

    def _place(self, ckpt_path: str | Path | None) -> str | Path | None:
        """Find the checkpoint, and with it the run folder it lies in."""
        if ckpt_path is not None:
            self.folder = None
            ckpt_path = checkpoint_path.find(ckpt_path, self.wanted_folder, self.run_root, self.run_name)
            self.folder = run_folder.folder_of(ckpt_path)
        return ckpt_path


def _with_defaults(kwargs: dict[str, Any], writes: bool) -> list[L.Callback]:
    """The user's callbacks, and those of ours that they do not replace or turn off."""
    callbacks = kwargs.get("callbacks") or []
    callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
    ours: dict[type[L.Callback], Callable[[], L.Callback]] = {WatchHealth: WatchHealth, WriteProgress: WriteProgress}
    if writes:
        ours = {ExportSAEs: ExportSAEs, **ours, WritesPredictions: WriteTopLatents}
    if kwargs.get("enable_progress_bar") is not False:
        ours[ProgressBar] = TokenProgress
    if kwargs.get("enable_checkpointing") is not False:
        ours[SaveCheckpoint] = SaveCheckpoint
    missing = [make() for kind, make in ours.items() if not any(isinstance(c, kind) for c in callbacks)]
    return [*([_RunFolder(callbacks)] if writes else []), *callbacks, *missing]


class _RunFolder(L.Callback):
    """Claims the run folder once all is known to be well, tells the other ranks, and points to it what writes.

    Args:
        callbacks: The run's. Lightning gives its ModelCheckpoint a place before there is a run folder.
    """

    def __init__(self, callbacks: list[L.Callback]) -> None:
        self._without_place = [c for c in callbacks if isinstance(c, ModelCheckpoint) and c.dirpath is None]

    def _claim(self, trainer: L.Trainer) -> Path:
        assert isinstance(trainer, Trainer)
        if trainer.folder is None and trainer.is_global_zero:
            wanted = trainer.wanted_folder
            trainer.folder = (
                run_folder.claim_exactly(wanted) if wanted else run_folder.claim(trainer.run_root, trainer.run_name)
            )
        trainer.folder = Path(trainer.strategy.broadcast(str(trainer.folder)))
        return trainer.folder

    def on_fit_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(trainer, Trainer)
        if not undeclared(trainer).fast_dev_run:
            folder = self._claim(trainer)
            if trainer.is_global_zero:
                trainer.lock = run_folder.only_trainer(folder)
            assert isinstance(bank, SAEBank)
            for logger in _per_sae(trainer):
                logger.set_folder(folder)
                logger.resume(bank.position.steps)
            for callback in self._without_place:
                callback.dirpath = str(run_folder.checkpoint(folder).parent.resolve())

    def on_predict_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        self._claim(trainer)


def _per_sae(trainer: L.Trainer) -> list[PerSAE]:
    return [logger for logger in trainer.loggers if isinstance(logger, PerSAE)]
