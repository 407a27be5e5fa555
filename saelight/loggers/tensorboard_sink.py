"""TensorBoard events, one folder per SAE."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from saelight.loggers.sink import Sink, SinkRun

_BESIDE_SETTINGS = ("val/fvu", "val/l0", "val/dead")


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
        if "class_path" in config:  # an SAE's, not the bank's
            self._events.add_settings(dict(_settings(config)), _BESIDE_SETTINGS)

    @property
    def experiment(self) -> Any:
        return self._events

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._events.add_row(metrics, step)

    def resume(self, step: int) -> None:
        self._events.forget_after(step)

    def flush(self) -> None:
        self._events.flush()


def _settings(config: dict[str, Any], within: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """A config's settings one by one, `schedule.kind` for what is nested; variants by their names, None left out."""
    for key, value in config.items():
        if key == "init_args" and isinstance(value, dict):
            yield from _settings(value, within)
        elif key == "class_path":
            yield f"{within}variant", str(value).rpartition(".")[2]
        elif isinstance(value, dict):
            yield from _settings(value, f"{within}{key}.")
        elif value is not None:
            yield f"{within}{key}", value if isinstance(value, bool | int | float | str) else str(value)
