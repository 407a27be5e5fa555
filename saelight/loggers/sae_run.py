"""One SAE's run: the same numbers as CSV, TensorBoard and W&B."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from saelight.loggers.csv_file import CSVFile
from saelight.loggers.wandb_runs import AXIS


class Run:
    """Writes metrics.csv, TensorBoard events and hparams.yaml into `folder`, and a W&B run if there is one.

    Args:
        folder: made when it does not exist; files of an earlier process are gone on with.
        to: which of "csv" and "tensorboard" to write.
        config: the SAE's hyper-parameters, plain data.
        open_wandb: starts the W&B run or goes on with it; None for none.

    Attributes:
        tensorboard: the `SummaryWriter`, for figures and histograms; None without "tensorboard".
        wandb: the W&B run; None without one, and between `finish` and the next `log`.
    """

    def __init__(
        self, folder: Path, to: tuple[str, ...], config: dict[str, Any], open_wandb: Callable[[], Any] | None = None
    ) -> None:
        self._open_wandb = open_wandb
        self.wandb = open_wandb() if open_wandb else None
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config, sort_keys=False)
        if config:
            (folder / "hparams.yaml").write_text(text)
        self.csv = CSVFile(folder / "metrics.csv") if "csv" in to else None
        self.tensorboard = None
        if "tensorboard" in to:
            from saelight.loggers.events import Events  # takes more than a second

            self.tensorboard = Events(folder)
            # Stays open as long as the run: of two files begun in one second TensorBoard may read only one.
            weakref.finalize(self, self.tensorboard.close)
            if config:
                self.tensorboard.add_text("config", f"```yaml\n{text}```")

    def log(self, metrics: dict[str, float], step: int, shared: dict[str, float] | None = None) -> None:
        """Write `metrics` at `step`; `shared` ones, which belong to no SAE, to W&B only."""
        if metrics and self.csv:
            self.csv.append(metrics, step)
        if metrics and self.tensorboard:
            self.tensorboard.add_row(metrics, step)
        if self._open_wandb:
            self.wandb = self.wandb or self._open_wandb()
            self.wandb.log({**metrics, **(shared or {}), AXIS: step})

    def resume(self, step: int) -> None:
        """Forget what is later than `step` (W&B cannot: its curve shows both lives)."""
        if self.csv:
            self.csv.drop_after(step)
        if self.tensorboard:
            self.tensorboard.forget_after(step)

    def flush(self) -> None:
        """Put on the disk what is still held back."""
        if self.tensorboard:
            self.tensorboard.flush()

    def finish(self, exit_code: int) -> None:
        """End the W&B run, finished or failed; the next `log` goes on with it."""
        self.flush()
        if self.wandb:
            self.wandb.finish(exit_code=exit_code)
            self.wandb = None
