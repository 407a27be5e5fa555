"""TensorBoard events, one folder per SAE."""

import weakref
from pathlib import Path
from typing import Any

import yaml

from saelight.loggers.sink import Sink, SinkRun


class TensorBoardSink(Sink):
    """Opens `logs/<sae>/`, which TensorBoard shows as a run."""

    def open(self, folder: Path, name: str, config: dict[str, Any]) -> "TensorBoardRun":
        return TensorBoardRun(folder / "logs" / name, config)


class TensorBoardRun(SinkRun):
    """Events in `folder`; its `experiment` is the `SummaryWriter`, for figures and histograms."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        from saelight.loggers.events import Events  # takes more than a second

        self._events = Events(folder)
        # Stays open as long as the run: of two files begun in one second TensorBoard may read only one.
        weakref.finalize(self, self._events.close)
        if config:
            self._events.add_text("config", f"```yaml\n{yaml.safe_dump(config, sort_keys=False)}```")

    @property
    def experiment(self) -> Any:
        return self._events

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._events.add_row(metrics, step)

    def resume(self, step: int) -> None:
        self._events.forget_after(step)

    def flush(self) -> None:
        self._events.flush()
